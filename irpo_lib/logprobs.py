"""log M(c, y | x): sums of token log-probabilities of responses; one piece of code for policy and reference."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

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


@torch.inference_mode()
def score(
    model: PreTrainedModel, sequences: Sequence[Tokens], tokens_per_batch: int = 8192
) -> Iterator[tuple[int, float]]:
    """Yields (index, log M(c, y | x)) for many sequences, those of like length batched together."""
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i][0]) + len(sequences[i][1]))
    batch: list[int] = []
    for index in order:
        width = len(sequences[index][0]) + len(sequences[index][1])
        if batch and (len(batch) + 1) * width > tokens_per_batch:
            yield from _scored(model, sequences, batch)
            batch = []
        batch.append(index)
    if batch:
        yield from _scored(model, sequences, batch)


def _scored(model, sequences, batch) -> Iterator[tuple[int, float]]:
    logps = sequence_logps(model, make_batch([sequences[i] for i in batch], model.device))
    yield from zip(batch, logps.tolist(), strict=True)


def reference_logps(model: PreTrainedModel, pairs: Sequence[PreferencePair]) -> dict[str, float]:
    """The reference cache: log M_t(c, y | x) of each distinct response of the pairs, under its `response_key`.

    Pairs repeat responses, so there are fewer of them than two a pair.
    """
    distinct = {
        response_key(pair.prompt_ids, response): (pair.prompt_ids, response)
        for pair in pairs
        for response in (pair.chosen_ids, pair.rejected_ids)
        if response
    }
    keys, logps = list(distinct), {}
    with Progress(len(keys), "reference", "responses") as progress:
        for index, value in score(model, list(distinct.values())):
            logps[keys[index]] = value
            progress.add(1)
    return logps


def response_key(prompt_ids: Sequence[int], response_ids: Sequence[int]) -> str:
    return hash_json([list(prompt_ids), list(response_ids)])
