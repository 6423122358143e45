"""Attention over a `PrefixTree`, for any model that takes its attention from transformers' `AttentionInterface`.

A token attends to the earlier tokens of its node and to all of its ancestors. The descendants of a node stand right
behind it, so that is two blocks a node: its own tokens with themselves, causally, and its descendants with it, whole.
On a CPU blocks of like shape are one call of torch's flash attention, and no masked block is computed. Parts of a
softmax are put together by their log-sum-exp; the backward pass of a block needs only the output and log-sum-exp of the
whole (as in ring attention, Liu et al., 2023). On a GPU, FlexAttention skips the masked blocks in one kernel.

The tree comes as the attention mask: on a CPU its nodes, as a tensor of integers [1, 1, nodes, 3]; on a GPU a
`BlockMask`. With any other mask, or none, this is transformers' `sdpa`.
"""

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from irpo_lib.fast.prefix_tree import PrefixTree

#: The name of this attention in a model's config and in presets.
NAME = "prefix_tree"
#: Arguments of an attention that change its result in a way that is not made here.
FOREIGN = ("sliding_window", "softcap", "s_aux", "position_bias")


def tree_mask(tree: PrefixTree, device: torch.device) -> Tensor | BlockMask:
    """What a model gets as its attention mask for a tree's row."""
    if device.type == "cuda":
        return block_mask(tree, device)
    return torch.from_numpy(tree.nodes)[None, None]


def block_mask(tree: PrefixTree, device: torch.device) -> BlockMask:
    """FlexAttention's mask: a token sees an earlier one whose node's descendants reach up to it."""
    start, end, last = tree.nodes.T
    lasts = torch.from_numpy(np.repeat(last, end - start)).to(device)

    def sees(b, h, query, key):
        return (key <= query) & (query < lasts[key])

    return create_block_mask(sees, None, None, len(lasts), len(lasts), device=str(device))


def tree_attention(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any):
    """Queries [1, heads, T, d], keys and values [1, kv heads, T, d] → [1, T, heads, d].

    Raises:
        ValueError: the model wants dropout, a window or the like.
    """
    flex = isinstance(attention_mask, BlockMask)
    if not flex and (attention_mask is None or attention_mask.dtype != torch.int64):
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    foreign = [name for name in FOREIGN if options.get(name) is not None]
    foreign += ["dropout"] * bool(options.get("dropout"))
    if foreign:
        raise ValueError(f"its attention has {' and '.join(foreign)}")
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if not flex:
        by_token = (x[0].transpose(0, 1) for x in (query, key, value))
        return TreeAttention.apply(*by_token, attention_mask.numpy().tobytes(), options.get("scaling"))[None], None
    attend = _compiled() if query.is_cuda else flex_attention
    out = attend(query, key, value, block_mask=attention_mask, scale=options.get("scaling"), enable_gqa=True)
    return out.transpose(1, 2).contiguous(), None


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)


@dataclass(frozen=True)
class Blocks:
    """Blocks of like shape as one call: places in the row of n blocks' queries [n, q] and keys [n, k].

    A shorter block is filled up with its last token; `real` [n, q] says which queries are there, and `hidden`
    [n, 1, 1, k] is minus infinity at keys that are not (a causal block needs none: they stand behind its queries).
    """

    queries: Tensor
    keys: Tensor
    real: Tensor
    hidden: Tensor | None

    def gathered(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """[T, heads, d] each → what the blocks have of them, [n, heads, q or k, d]."""
        return [_gather(query, self.queries), _gather(key, self.keys), _gather(value, self.keys)]

    def options(self, dtype: torch.dtype, scale: float | None) -> dict[str, Any]:
        """What torch's flash attention has to know beside queries, keys and values."""
        mask = None if self.hidden is None else self.hidden.to(dtype)
        return {"dropout_p": 0.0, "is_causal": mask is None, "attn_mask": mask, "scale": scale}


@lru_cache(maxsize=4)
def plan_blocks(nodes: bytes) -> list[Blocks]:
    """The blocks of a tree's nodes ([nodes, 3] integers), each node's own first, in few calls: a call has its price.

    Those in one call are of the same depth, so that no query is in it twice, and lengths differ by a quarter at most.
    """
    alike = defaultdict(list)
    above: list[int] = []  # where the subtrees end that a node is in
    for start, end, last in np.frombuffer(nodes, dtype=np.int64).reshape(-1, 3).tolist():
        while above and start >= above[-1]:
            above.pop()
        alike[-1, _size(end - start), 0].append(((start, end), (start, end)))
        if last > end:
            alike[len(above), _size(last - end), _size(end - start)].append(((end, last), (start, end)))
            above.append(last)
    return [_filled_up(some, causal=depth < 0) for (depth, _, _), some in sorted(alike.items())]


def _size(length: int) -> int:
    return math.ceil(math.log(length, 1.25))


def _filled_up(some: list[tuple[tuple[int, int], tuple[int, int]]], causal: bool) -> Blocks:
    """One call's blocks, of which each is a range of queries and one of keys."""

    def places(ranges: Tensor) -> tuple[Tensor, Tensor]:
        lengths = ranges[:, 1] - ranges[:, 0]
        steps = torch.arange(int(lengths.max()))
        return torch.minimum(ranges[:, :1] + steps, ranges[:, 1:] - 1), steps < lengths[:, None]

    (queries, real), (keys, there) = (places(torch.tensor(ranges)) for ranges in zip(*some, strict=True))
    hidden = None if causal else torch.zeros(there.shape).masked_fill_(~there, -torch.inf)[:, None, None]
    return Blocks(queries, keys, real, hidden)


class TreeAttention(torch.autograd.Function):
    """Softmax attention over a tree on a CPU: [T, heads, d] each; there may be fewer heads of keys and values."""

    @staticmethod
    def forward(ctx, query, key, value, nodes, scale):
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out = torch.empty(query.shape, dtype=torch.promote_types(query.dtype, torch.float32))
        sums = torch.empty(query.shape[:-1], dtype=out.dtype)  # log Σ exp of a token's scores
        for b in plan_blocks(nodes):
            found = attend(*b.gathered(query, key, value), **b.options(query.dtype, scale))
            part, part_sums = (x.transpose(1, 2)[b.real] for x in found)
            rows = b.queries[b.real]
            if b.hidden is None:
                out[rows], sums[rows] = part.to(out.dtype), part_sums.to(out.dtype)
                continue
            before = sums[rows]
            both = torch.logaddexp(before, part_sums)
            share, other = ((x - both).exp_().unsqueeze(-1) for x in (before, part_sums))
            out[rows] = out[rows] * share + part * other
            sums[rows] = both
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.nodes, ctx.scale = nodes, scale
        return out

    @staticmethod
    def backward(ctx, grad_out):
        *saved, sums = ctx.saved_tensors
        narrow, wide = saved[0].dtype, sums.dtype
        # For narrower types torch's backward pass has no fast products on a CPU: here it is 2 to 4 times as fast.
        query, key, value, out, grad_out = (t.to(wide) for t in (*saved, grad_out))
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        grads = [torch.zeros_like(t) for t in (query, key, value)]
        for b in plan_blocks(ctx.nodes):
            above = _gather(grad_out, b.queries).masked_fill(~b.real[:, None, :, None], 0)
            below = _gather(out, b.queries), sums[b.queries].transpose(1, 2)
            found = backward(above, *b.gathered(query, key, value), *below, **b.options(wide, ctx.scale))
            for grad, where, part in zip(grads, (b.queries, b.keys, b.keys), found, strict=True):
                grad.index_add_(0, where.flatten(), part.transpose(1, 2).flatten(0, 1))
        return *(g.to(narrow) for g in grads), None, None


def _gather(states: Tensor, places: Tensor) -> Tensor:
    """[T, heads, d] at places [n, length] → [n, heads, length, d]."""
    return states[places].transpose(1, 2)


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
