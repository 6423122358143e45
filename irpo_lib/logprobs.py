"""log M(c, y | x): sums of token log-probabilities of responses; one piece of code for policy and reference."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from irpo_lib.parallel import Ranks, gather_dicts
from irpo_lib.progress import Progress
from irpo_lib.records import PreferencePair
from irpo_lib.store import hash_json

#: (prompt ids, response ids)
Tokens = tuple[list[int], list[int]]


@dataclass
class Batch:
    """Right-padded sequences: `input_ids` [B, T]; `response_mask` [B, T] is 1 on response tokens, EOS included."""

    input_ids: torch.Tensor
    response_mask: torch.Tensor

    @property
    def lengths(self) -> torch.Tensor:
        """|c| + |y| of Equation 1: response tokens, EOS included, prompt excluded. [B]"""
        return self.response_mask.sum(-1)


def make_batch(sequences: Sequence[Tokens], device: torch.device | str = "cpu") -> Batch:
    """(prompt ids, response ids) pairs → a padded batch."""
    width = max(len(p) + len(r) for p, r in sequences)
    input_ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros(len(sequences), width, dtype=torch.long)
    for row, (prompt, response) in enumerate(sequences):
        end = len(prompt) + len(response)
        input_ids[row, :end] = torch.tensor(prompt + response)
        mask[row, len(prompt) : end] = 1
    return Batch(input_ids.to(device), mask.to(device))


def token_logps(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """log M(token | what stands before it) at each response token, 0 elsewhere. [B, T - 1], float32

    Padding stands to the right, where causal attention never looks back from, so no attention mask is needed.
    Logits are computed from the shortest prompt's end on only.
    """
    first = int(batch.response_mask.argmax(-1).min())
    targets = batch.input_ids[:, first:]
    logits = model(
        input_ids=batch.input_ids[:, :-1], use_cache=False, logits_to_keep=batch.input_ids.shape[1] - first
    ).logits
    logps = -cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none").view(targets.shape)
    logps = logps * batch.response_mask[:, first:]
    return torch.nn.functional.pad(logps, (first - 1, 0))


def sequence_logps(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """log M(c, y | x): the sum over response tokens. [B], float32"""
    return token_logps(model, batch).sum(-1)


def plan_batches(sequences: Sequence[Tokens], tokens_per_batch: int) -> list[list[int]]:
    """Indices of sequences, those of like length together, in batches of at most so many tokens with padding."""
    lengths = [len(prompt) + len(response) for prompt, response in sequences]
    batches: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lengths.__getitem__):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > tokens_per_batch:
            batches.append([])
        batches[-1].append(index)
    return batches


@torch.no_grad()
def score(
    model: PreTrainedModel, sequences: Sequence[Tokens], tokens_per_batch: int = 8192, ranks: Ranks | None = None
) -> Iterator[tuple[int, float]]:
    """Yields (index, log M(c, y | x)) for many sequences; of several data ranks, each for its share of the batches."""
    batches = plan_batches(sequences, tokens_per_batch)
    if ranks is not None and batches:  # a sharded model needs all of its ranks for every batch
        batches = list(ranks.share(batches + batches[:1] * (-len(batches) % ranks.data_ranks)))
    for batch in batches:
        logps = sequence_logps(model, make_batch([sequences[i] for i in batch], model.device))
        yield from zip(batch, logps.tolist(), strict=True)


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
