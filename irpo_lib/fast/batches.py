"""Prompts and responses as one forward pass sees them: padded rows, or the paths of a prefix tree."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from irpo_lib.fast.prefix_tree import build_tree, shared_length
from irpo_lib.fast.tree_attention import tree_mask

#: (prompt ids, response ids)
Tokens = tuple[list[int], list[int]]


@dataclass
class Batch:
    """Sequences as one forward pass sees them, and where in it their responses' tokens are predicted.

    Sequences are rows that are padded to the right, [B, T], or the paths of a prefix tree in a single row, [1, T].
    """

    #: What a model takes. Rows need no mask: padding stands where causal attention never looks back from.
    inputs: dict[str, Any]
    #: [R]: the place of the token before each that is predicted, counted over all rows; and what is predicted.
    places: torch.Tensor
    targets: torch.Tensor
    #: [S]: of which of the R each response token's log-prob is, one response after the other; several share one.
    of_response: torch.Tensor
    lengths: list[int]


def row_batch(sequences: Sequence[Tokens], device: torch.device | str = "cpu") -> Batch:
    """Each sequence in a row of its own."""
    # Nothing is predicted behind the last token.
    input_ids = pad_sequence([torch.tensor([*p, *r][:-1]) for p, r in sequences], batch_first=True).to(device)
    rows = torch.arange(input_ids.numel(), device=device).view_as(input_ids)
    lengths = [len(response) for _, response in sequences]
    places = [row[len(p) - 1 :][:n] for row, (p, _), n in zip(rows, sequences, lengths, strict=True)]
    targets = torch.tensor([token for _, response in sequences for token in response], device=device)
    return Batch(
        {"input_ids": input_ids}, torch.cat(places), targets, torch.arange(len(targets), device=device), lengths
    )


def tree_batch(sequences: Sequence[Tokens], device: torch.device | str = "cpu") -> Batch:
    """All sequences in one row, as a prefix tree: what they have in common is computed, and predicted, once."""
    device = torch.device(device)
    tree = build_tree([prompt + response for prompt, response in sequences])
    ends = [path[len(prompt) - 1 :] for path, (prompt, _) in zip(tree.paths, sequences, strict=True)]
    responses, before = np.concatenate([end[1:] for end in ends]), np.concatenate([end[:-1] for end in ends])
    predicted, first, of_response = np.unique(responses, return_index=True, return_inverse=True)

    def tensor(array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    inputs = {"input_ids": tensor(tree.token_ids)[None], "position_ids": tensor(tree.positions)[None]}
    return Batch(
        inputs | {"attention_mask": tree_mask(tree, device)},
        tensor(before[first]), tensor(tree.token_ids[predicted]), tensor(of_response),
        [len(response) for _, response in sequences],
    )  # fmt: skip


def plan_rows(sequences: Sequence[Tokens], tokens_per_batch: int) -> list[list[int]]:
    """Indices of sequences, those of like length together, in batches of at most so many tokens with padding."""
    lengths = [len(prompt) + len(response) for prompt, response in sequences]
    batches: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lengths.__getitem__):
        if not batches or (len(batches[-1]) + 1) * lengths[index] > tokens_per_batch:
            batches.append([])
        batches[-1].append(index)
    return batches


def plan_trees(sequences: Sequence[Tokens], tokens: int) -> list[list[int]]:
    """Indices of sequences, those that begin alike together, in trees of at most so many tokens.

    A sequence that is longer has a tree of its own.
    """
    # Bytes with the highest first are in the order of the numbers, and a tenth of the size of lists.
    packed = [np.array(prompt + response, dtype=">i4").tobytes() for prompt, response in sequences]
    groups: list[list[int]] = []
    used, before = 0, np.empty(0, dtype=">i4")
    for index in sorted(range(len(packed)), key=packed.__getitem__):
        own = np.frombuffer(packed[index], dtype=">i4")
        new = len(own) - shared_length(before, own)
        if not groups or used + new > tokens:
            groups.append([])
            used, new = 0, len(own)
        groups[-1].append(index)
        used, before = used + new, own
    return groups
