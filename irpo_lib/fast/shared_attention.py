"""Attention to a past that rows share: its keys are kept once, and read once for all of them.

The keys of the prefix common to all prompts are one [1, …] part, those of the prompts one part of [prompts, …], and
only what a row has sampled is its own. One matrix product a part takes the place of one a row, as in Hydragen (Juravsky
et al., 2024); the parts' scores meet in one softmax. It stands behind transformers' attention interface, so that it
serves any model whose layers all attend to the whole past.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "shared_prefix"
#: Columns by which a row's own cache grows at least.
ROOM = 32


def at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


class NotShared(Exception):
    """The model's attention asks for something that this one does not do."""


class Part:
    """Keys and values of g sequences, each of which is the past of some rows: [g, kv heads, length, head dim] a layer.

    `group` [rows] says which of the g is a row's past; `mask` [g, 1, 1, length] is 0, or minus infinity at padding.
    """

    def __init__(self, keys: Sequence[Tensor], values: Sequence[Tensor], mask: Tensor | None, group: Tensor):
        self.keys, self.values, self.mask, self.group = keys, values, mask, group
        groups, _, self.length, _ = keys[0].shape
        counts = torch.bincount(group, minlength=groups)
        # Rows are laid out as a grid of [g, most rows of a sequence], where they are not one already.
        self.width = int(counts.max())
        self.cell = self.row = None
        in_order = torch.arange(groups, device=group.device).repeat_interleave(self.width)
        if not torch.equal(group, in_order):
            order = group.argsort(stable=True)
            place = torch.arange(len(group), device=group.device) - (counts.cumsum(0) - counts)[group[order]]
            self.cell = torch.empty_like(group).index_copy_(0, order, group[order] * self.width + place)
            self.row = torch.zeros(groups * self.width, dtype=torch.long, device=group.device)
            self.row[self.cell] = torch.arange(len(group), device=group.device)

    def under(self, group: Tensor) -> "Part":
        """The same past of other rows."""
        return Part(self.keys, self.values, self.mask, group)

    def scores(self, layer: int, query: Tensor) -> Tensor:
        """[rows, kv heads, queries, head dim] → [rows, kv heads, queries, length]."""
        found = self._by_sequence(query) @ self.keys[layer].transpose(-1, -2)
        return self._by_row(found if self.mask is None else found + self.mask, query.shape[2])

    def mix(self, layer: int, weights: Tensor) -> Tensor:
        """[rows, kv heads, queries, length] → [rows, kv heads, queries, head dim]."""
        return self._by_row(self._by_sequence(weights) @ self.values[layer], weights.shape[2])

    def _by_sequence(self, x: Tensor) -> Tensor:
        x = x if self.row is None else x[self.row]
        return x.unflatten(0, (-1, self.width)).transpose(1, 2).flatten(2, 3)

    def _by_row(self, x: Tensor, queries: int) -> Tensor:
        x = x.unflatten(2, (self.width, queries)).transpose(1, 2).flatten(0, 1)
        return x if self.cell is None else x[self.cell]


class Rows:
    """Sequences of one length on top of parts that they share; their own keys and values grow in place."""

    def __init__(self, parts: list[Part], count: int, most: int):
        self.parts, self.count, self.most = parts, count, most
        self.own: dict[int, list[Tensor]] = {}  # of each layer the keys and the values, with room for more
        self.used: dict[int, int] = {}

    def append(self, layer: int, *keys_and_values: Tensor) -> None:
        used = self.used.get(layer, 0)
        end = used + keys_and_values[0].shape[-2]
        if layer not in self.own or end > self.own[layer][0].shape[-2]:
            columns = min(self.most, max(end, 2 * used, ROOM))
            wider = [x.new_empty(self.count, x.shape[1], columns, x.shape[3]) for x in keys_and_values]
            for buffer, x in zip(wider, self.cache(layer) if used else (), strict=False):
                buffer[:, :, :used] = x
            self.own[layer] = wider
        for buffer, x in zip(self.own[layer], keys_and_values, strict=True):
            buffer[: self.count, :, used:end] = x
        self.used[layer] = end

    def cache(self, layer: int) -> list[Tensor]:
        return [buffer[: self.count, :, : self.used[layer]] for buffer in self.own[layer]]

    def select(self, keep: Tensor) -> None:
        """Row i becomes what row keep[i] is; cheap where most rows stay in their places."""
        moved = (keep != torch.arange(len(keep), device=keep.device)).nonzero().squeeze(-1)
        for layer, buffers in self.own.items():
            for buffer in buffers:
                buffer[moved, :, : self.used[layer]] = buffer[keep[moved], :, : self.used[layer]]
        self.count = len(keep)
        self.parts = [part.under(part.group[keep]) for part in self.parts]

    def attend(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        """[rows, heads, queries, head dim] → [rows, queries, heads, head dim], causal among a row's own."""
        keys, values = self.cache(layer)
        new = query.shape[2]
        q = query.unflatten(1, (keys.shape[1], -1)).flatten(2, 3)
        own = q @ keys.transpose(-1, -2)
        if new > 1:
            ahead = torch.ones(new, keys.shape[2], dtype=torch.bool, device=q.device).triu(keys.shape[2] - new + 1)
            own = own.unflatten(2, (-1, new)).masked_fill_(ahead, -torch.inf).flatten(2, 3)
        scores = torch.cat([*(p.scores(layer, q) for p in self.parts), own], -1)
        weights = torch.softmax(scores.to(at_least_float32(scores)).mul_(scaling), -1).to(query.dtype)
        *shared, mine = weights.split([*(p.length for p in self.parts), keys.shape[2]], -1)
        out = mine @ values
        for part, share in zip(self.parts, shared, strict=True):
            out += part.mix(layer, share)
        return out.unflatten(2, (-1, new)).flatten(1, 2).transpose(1, 2)

    def as_part(self, lengths: Tensor, group: Tensor) -> Part:
        """These rows' own keys and values, of so many tokens each, as the past of others."""
        keys, values = zip(*(self.cache(layer) for layer in sorted(self.own)), strict=True)
        blank = torch.arange(keys[0].shape[2], device=lengths.device) >= lengths[:, None]
        mask = torch.zeros(blank.shape, dtype=keys[0].dtype, device=blank.device).masked_fill_(blank, -torch.inf)
        return Part(keys, values, mask[:, None, None] if blank.any() else None, group)


class SharedCache(Cache):
    """The cache of one forward pass over several `Rows`, one after the other in the batch."""

    def __init__(self, together: Sequence[Rows], layers: int):
        super().__init__(layers=[DynamicLayer() for _ in range(layers)])
        self.together = together

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args, **kwargs):
        sizes = [rows.count for rows in self.together]
        for rows, k, v in zip(self.together, key_states.split(sizes), value_states.split(sizes), strict=True):
            rows.append(layer_idx, k, v)
        key_states.cache = self, layer_idx  # type: ignore[attr-defined]
        return key_states, value_states

    def attend(self, layer: int, query: Tensor, scaling: float) -> Tensor:
        each = query.split([rows.count for rows in self.together])
        found = [rows.attend(layer, q, scaling) for rows, q in zip(self.together, each, strict=True)]
        return found[0] if len(found) == 1 else torch.cat(found)


def attend(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any):
    """Attention as transformers asks for it; for keys that are in no `SharedCache`, torch's own.

    Raises:
        NotShared: the model asks for more than softmax over the whole past.
    """
    if not hasattr(key, "cache"):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    asked = [name for name in ("softcap", "s_aux", "position_bias") if options.get(name) is not None]
    if asked or attention_mask is not None or options.get("is_causal") is False:
        raise NotShared(f"its attention has {', '.join(asked) or 'a mask of its own'}")
    cache, layer = key.cache
    scaling = options.get("scaling")
    return cache.attend(layer, query, query.shape[-1] ** -0.5 if scaling is None else scaling), None


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
