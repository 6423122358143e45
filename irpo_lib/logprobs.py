"""log M(c, y | x): sums of token log-probabilities of responses; one piece of code for policy and reference."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from irpo_lib.config import Config
from irpo_lib.fast.batches import Tokens, plan_rows, plan_trees, row_batch, tree_batch
from irpo_lib.fast.predict import predicted_logps
from irpo_lib.fast.tree_attention import NAME as PREFIX_TREE
from irpo_lib.models.parallel import Ranks, check_layout, gather_dicts, join
from irpo_lib.models.weights import computing, load_for_training
from irpo_lib.pairs import response_key
from irpo_lib.records import PreferencePair
from irpo_lib.stages.parquet import Records
from irpo_lib.stages.store import sole_writer, write_json
from irpo_lib.terminal.progress import Progress, quiet

#: What is scored at once, outside of training.
TOKENS_PER_BATCH = 8192


def token_logps(model: PreTrainedModel, sequences: Sequence[Tokens]) -> list[torch.Tensor]:
    """log M(token | what stands before it) for each token of each response: B tensors [length], at least float32."""
    batch = (tree_batch if _as_tree(model) else row_batch)(sequences, model.device)
    return list(predicted_logps(model, batch)[batch.of_response].split(batch.lengths))


def sequence_logps(model: PreTrainedModel, sequences: Sequence[Tokens]) -> torch.Tensor:
    """log M(c, y | x): the sum over response tokens. [B], at least float32"""
    return torch.stack([logps.sum() for logps in token_logps(model, sequences)])


def _as_tree(model: PreTrainedModel) -> bool:
    return model.config._attn_implementation == PREFIX_TREE


@torch.no_grad()
def score_tokens(
    model: PreTrainedModel, sequences: Sequence[Tokens], ranks: Ranks | None = None, progress: Progress | None = None
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yields (index, `token_logps`) for many sequences; of several data ranks, each for its share of the batches."""
    batches = (plan_trees if _as_tree(model) else plan_rows)(sequences, TOKENS_PER_BATCH)
    if ranks is not None and batches:  # a sharded model needs all of its ranks for every batch
        batches = list(ranks.share(batches + batches[:1] * (-len(batches) % ranks.layout.data_ranks)))
    for batch in batches:
        found = token_logps(model, [sequences[i] for i in batch])
        if progress:  # all of a batch at once: an estimate after its first one would be for batches of one
            progress.add(len(batch) * (ranks.layout.data_ranks if ranks else 1))
        yield from zip(batch, found, strict=True)


def score(
    model: PreTrainedModel, sequences: Sequence[Tokens], ranks: Ranks | None = None, progress: Progress | None = None
) -> dict[int, float]:
    """index → log M(c, y | x), of all sequences, on every rank."""
    found = {index: logps.sum().item() for index, logps in score_tokens(model, sequences, ranks, progress)}
    return gather_dicts(found, ranks) if ranks else found


def reference(config: Config, folder: Path, pairs: Path, model: str) -> None:
    """log M_t of each distinct response of the pairs, into `folder/logps.json`."""
    ranks = join(config)
    with sole_writer(folder, ranks.is_main), quiet(not ranks.is_main):
        loaded = load_for_training(model, config)
        check_layout(loaded, ranks)
        with computing(config, loaded.device):
            logps = reference_logps(loaded, Records(pairs / "pairs.parquet", PreferencePair), ranks)
        if ranks.is_main:
            write_json(folder / "logps.json", logps)


def reference_logps(
    model: PreTrainedModel, pairs: Sequence[PreferencePair], ranks: Ranks | None = None
) -> dict[str, float]:
    """The reference cache: log M_t(c, y | x) of each distinct response of the pairs, under its `response_key`.

    Pairs repeat responses, so there are fewer of them than two a pair.
    """
    responses = DistinctResponses(pairs)
    with Progress(len(responses), "reference", "responses") as progress:
        logps = score(model, responses, ranks, progress)
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
