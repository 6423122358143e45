"""Sequences that begin alike share their beginnings: each is computed once, with the same log-probs and gradients.

The sequences of a micro-batch form a tree. MATH's worked examples are the same in all of them, a prompt is the same for
chosen and rejected, the responses are the leaves. A node is a run of tokens; nodes are laid out depth first in one row,
each token with the position that it has in its own sequence.
"""

from collections.abc import Sequence
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
    nodes: list[list[int]] = []
    pieces: list[list[np.ndarray]] = [[] for _ in arrays]

    def grow(group: list[int], depth: int) -> None:
        """What stands behind the first `depth` tokens of sequences, in order, that are equal up to there."""
        last, node = arrays[group[-1]], None
        shared = shared_length(arrays[group[0]], last)
        if shared == len(last) or shared - depth >= shortest:
            start = nodes[-1][1] if nodes else 0
            node = [start, start + shared - depth, 0]
            nodes.append(node)
            for i in group:
                pieces[i].append(np.arange(node[0], node[1]))
            depth = shared
        for _, alike in groupby(group, key=lambda i: arrays[i][shared] if len(arrays[i]) > shared else -1):
            branch = list(alike)
            if len(arrays[branch[0]]) > depth:
                grow(branch, depth)
        if node:
            node[2] = nodes[-1][1]

    grow(sorted(range(len(arrays)), key=lambda i: arrays[i].tolist()), 0)
    paths = [np.concatenate(some) for some in pieces]
    token_ids, positions = np.empty((2, nodes[-1][1]), dtype=np.int64)
    for path, tokens in zip(paths, arrays, strict=True):
        token_ids[path], positions[path] = tokens, np.arange(len(tokens))
    return PrefixTree(token_ids, positions, np.array(nodes), paths)


def shared_length(a: np.ndarray, b: np.ndarray) -> int:
    """How many tokens two sequences have in common at their beginning."""
    n = min(len(a), len(b))
    different = a[:n] != b[:n]
    return int(different.argmax()) if different.any() else n
