"""Sequences that begin alike share their beginnings: each is computed once, with the same log-probs and gradients.

The sequences of a micro-batch form a tree. MATH's worked examples are the same in all of them, a prompt is the same for
chosen and rejected, the responses are the leaves. A node is a run of tokens; nodes are laid out depth first in one row,
each token with the position that it has in its own sequence.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

#: A shorter run of tokens is computed again in each sequence rather than made a node.
SHORTEST = 8


@dataclass(frozen=True)
class PrefixTree:
    """T tokens in a row, of which each sequence is a path.

    `token_ids` and `positions` are [T]. `nodes` are [nodes, 3]: a node's tokens are `start` … `end` - 1, those of its
    descendants `end` … `last` - 1. `paths[i]` are the places in the row of sequence i's tokens, in its order.
    """

    token_ids: np.ndarray
    positions: np.ndarray
    nodes: np.ndarray
    paths: list[np.ndarray]


def build_tree(sequences: Sequence[Sequence[int]], shortest: int = SHORTEST) -> PrefixTree:
    """The tree of some sequences of token ids; equal ones have the same path.

    >>> tree = build_tree([[1, 2, 3], [1, 2, 4, 5]], shortest=1)
    >>> tree.token_ids.tolist(), tree.positions.tolist()
    ([1, 2, 3, 4, 5], [0, 1, 2, 2, 3])
    >>> tree.nodes.tolist(), tree.paths[1].tolist()
    ([[0, 2, 5], [2, 3, 3], [3, 5, 5]], [0, 1, 3, 4])
    """
    arrays = [np.asarray(s, dtype=np.int64) for s in sequences]
    runs: list[np.ndarray] = []
    depths: list[np.ndarray] = []
    nodes: list[list[int]] = []
    pieces: list[list[np.ndarray]] = [[] for _ in arrays]

    def lay_out(group: list[int], depth: int, end: int) -> list[int]:
        """A node of the tokens `depth` … `end` - 1 that a group has in common."""
        start = nodes[-1][1] if nodes else 0
        node = [start, start + end - depth, start + end - depth]
        nodes.append(node)
        runs.append(arrays[group[0]][depth:end])
        depths.append(np.arange(depth, end))
        for i in group:
            pieces[i].append(np.arange(node[0], node[1]))
        return node

    def grow(group: list[int], depth: int) -> None:
        """What stands behind the first `depth` tokens of sequences, in order, that are equal up to there."""
        last = arrays[group[-1]]
        shared = shared_length(arrays[group[0]], last)
        all_equal, node = shared == len(last), None
        if all_equal or shared - depth >= shortest:
            node, depth = lay_out(group, depth, shared), shared
        for branch in () if all_equal else _branches(arrays, group, shared):
            if len(arrays[branch[0]]) > depth:
                grow(branch, depth)
        if node:
            node[2] = nodes[-1][1]

    grow(sorted(range(len(arrays)), key=lambda i: arrays[i].tolist()), 0)
    return PrefixTree(
        np.concatenate(runs), np.concatenate(depths), np.array(nodes), [np.concatenate(some) for some in pieces]
    )


def _branches(arrays: Sequence[np.ndarray], group: list[int], place: int) -> Iterator[list[int]]:
    """A sorted group apart by the token that each has at a place; those that end before it come first."""
    for _, branch in groupby(group, key=lambda i: arrays[i][place] if len(arrays[i]) > place else -1):
        yield list(branch)


def shared_length(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two sequences have in common at their beginning."""
    n = min(len(a), len(b))
    different = a[:n] != b[:n]
    return int(different.argmax()) if different.any() else n
