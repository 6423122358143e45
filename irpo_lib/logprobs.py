"""log M(c, y | x): sums of token log-probabilities of responses; one piece of code for policy and reference."""

import logging
from collections.abc import Iterator, Sequence
from weakref import WeakSet

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from irpo_lib.fast.batches import Batch, Tokens, plan_rows, plan_trees, row_batch, tree_batch
from irpo_lib.fast.chunked_logps import can_be_replaced, logps_instead_of_logits
from irpo_lib.fast.tree_attention import NAME as PREFIX_TREE
from irpo_lib.fast.tree_attention import UnsupportedAttention
from irpo_lib.parallel import Ranks, gather_dicts, let_go
from irpo_lib.progress import Progress
from irpo_lib.records import PreferencePair
from irpo_lib.store import hash_json

log = logging.getLogger(__name__)
#: How far two ways to compute a log-prob of a few tokens may be apart, in nats.
SAME = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.05}
#: Heads of models whose logits are their head's output, so that they can be made in chunks.
_in_chunks: WeakSet[torch.nn.Module] = WeakSet()


def token_logps(model: PreTrainedModel, sequences: Sequence[Tokens]) -> list[torch.Tensor]:
    """log M(token | what stands before it) for each token of each response: B tensors [length], at least float32."""
    batch = (tree_batch if _as_tree(model) else row_batch)(sequences, model.device)
    return list(predicted_logps(model, batch)[batch.of_response].split(batch.lengths))


def sequence_logps(model: PreTrainedModel, sequences: Sequence[Tokens]) -> torch.Tensor:
    """log M(c, y | x): the sum over response tokens. [B], at least float32"""
    return torch.stack([logps.sum() for logps in token_logps(model, sequences)])


def predicted_logps(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The log-prob of each of a batch's targets, [R]; there are logits for these alone, in chunks where that works."""
    inputs = {
        "input_ids": batch.input_ids, "position_ids": batch.position_ids, "attention_mask": batch.attention_mask,
        "use_cache": False,
    }  # fmt: skip
    head = model.get_output_embeddings()
    if head in _in_chunks:
        with logps_instead_of_logits(head, batch.places, batch.targets):
            return model(**inputs).logits
    width = batch.input_ids.shape[1]
    columns, column = torch.unique(batch.places % width, return_inverse=True)
    logits = model(**inputs, logits_to_keep=columns).logits[batch.places // width, column]
    return -cross_entropy(logits.to(torch.promote_types(logits.dtype, torch.float32)), batch.targets, reduction="none")


def _as_tree(model: PreTrainedModel) -> bool:
    return model.config._attn_implementation == PREFIX_TREE


@torch.no_grad()
def choose_path(model: PreTrainedModel, attention: str) -> PreTrainedModel:
    """Makes a model score in the fastest way that leaves its log-probs as they are.

    Where `attention` is the prefix tree and the model cannot have it, the log says why; a training's counts, and so
    `irpo status`, say what it has.

    Caps behind the head, layers that are no attention, learnt biases: what a model does is seen by trying it on a few
    tokens. What does not show on a few tokens, such as a window, `tree_attention` refuses.
    """
    prompt = [*range(3, 15)]
    sequences = [(prompt, [3, 1, 2]), (prompt, [3, 1, 4, 2]), ([*prompt[:-1], 1], [2]), ([5, 4], [3, 1])]
    head, said = model.get_output_embeddings(), []
    kept = head.register_forward_hook(lambda module, inputs, output: said.append(output))
    rows = row_batch(sequences, model.device)
    logits = model(input_ids=rows.input_ids, use_cache=False).logits
    kept.remove()
    if can_be_replaced(head) and torch.equal(logits, said[0]):
        _in_chunks.add(head)
    if attention == PREFIX_TREE:
        reason = _why_no_tree(model, sequences)
        if reason:
            model.set_attn_implementation("sdpa")
            log.warning("%s: shared beginnings of sequences are computed in each of them, since %s",
                        type(model).__name__, reason)  # fmt: skip
    let_go(model)
    return model


def _why_no_tree(model: PreTrainedModel, sequences: Sequence[Tokens]) -> str:
    expected = predicted_logps(model, row_batch(sequences, model.device))
    batch = tree_batch(sequences, model.device)
    try:
        model.set_attn_implementation(PREFIX_TREE)
        found = predicted_logps(model, batch)[batch.of_response]
    except (UnsupportedAttention, ValueError, TypeError, RuntimeError) as error:
        return " ".join(str(error).split())
    difference = (found - expected).abs().max().item()
    return "" if difference <= SAME[model.dtype] else f"their log-probs would be off by {difference:.2g} nats"


@torch.no_grad()
def score_tokens(
    model: PreTrainedModel, sequences: Sequence[Tokens], tokens_per_batch: int = 8192, ranks: Ranks | None = None
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yields (index, `token_logps`) for many sequences; of several data ranks, each for its share of the batches."""
    batches = (plan_trees if _as_tree(model) else plan_rows)(sequences, tokens_per_batch)
    if ranks is not None and batches:  # a sharded model needs all of its ranks for every batch
        batches = list(ranks.share(batches + batches[:1] * (-len(batches) % ranks.data_ranks)))
    for batch in batches:
        yield from zip(batch, token_logps(model, [sequences[i] for i in batch]), strict=True)


def score(
    model: PreTrainedModel, sequences: Sequence[Tokens], tokens_per_batch: int = 8192, ranks: Ranks | None = None
) -> Iterator[tuple[int, float]]:
    """Yields (index, log M(c, y | x)) for many sequences, as `score_tokens` does for their tokens."""
    for index, logps in score_tokens(model, sequences, tokens_per_batch, ranks):
        yield index, logps.sum().item()


def score_together(
    model: PreTrainedModel, sequences: Sequence[Tokens], ranks: Ranks | None = None, progress: Progress | None = None
) -> dict[int, float]:
    """index → log M(c, y | x), of all sequences, on every rank."""
    found = {}
    for index, value in score(model, sequences, ranks=ranks):
        found[index] = value
        if progress:
            progress.add(ranks.data_ranks if ranks else 1)
    return gather_dicts(found, ranks) if ranks else found


def reference_logps(
    model: PreTrainedModel, pairs: Sequence[PreferencePair], ranks: Ranks | None = None
) -> dict[str, float]:
    """The reference cache: log M_t(c, y | x) of each distinct response of the pairs, under its `response_key`.

    Pairs repeat responses, so there are fewer of them than two a pair.
    """
    responses = DistinctResponses(pairs)
    with Progress(len(responses), "reference", "responses") as progress:
        logps = score_together(model, responses, ranks, progress)
    return {key: logps[index] for index, key in enumerate(responses.keys)}


class DistinctResponses(Sequence[Tokens]):
    """What the pairs have to be scored, each once; one that is asked for is read from its pair."""

    def __init__(self, pairs: Sequence[PreferencePair]):
        self.pairs = pairs
        self.keys: dict[str, tuple[int, bool]] = {}  # → the first pair that has it, and whether as its chosen response
        for place, pair in enumerate(pairs):
            for chosen, response in ((True, pair.chosen_ids), (False, pair.rejected_ids)):
                if response:
                    self.keys.setdefault(response_key(pair.prompt_ids, response), (place, chosen))
        self.places = list(self.keys.values())

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index):
        place, chosen = self.places[index]
        pair = self.pairs[place]
        return pair.prompt_ids, pair.chosen_ids if chosen else pair.rejected_ids


def response_key(prompt_ids: Sequence[int], response_ids: Sequence[int]) -> str:
    return hash_json([list(prompt_ids), list(response_ids)])
