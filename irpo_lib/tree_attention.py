"""Attention over a `PrefixTree`, for any model that takes its attention from transformers' `AttentionInterface`.

A token attends to the earlier tokens of its node and to all of its ancestors. The descendants of a node stand right
behind it, so that is two blocks a node: its own tokens with themselves, causally, and its descendants with it, whole.
On a CPU each block is one call of torch's flash attention, and nothing is computed to be masked. Parts of a softmax are
put together by their log-sum-exp; the backward pass of a block needs only the output and log-sum-exp of the whole (as
in ring attention, Liu et al., 2023). On a GPU, FlexAttention skips the masked blocks in one kernel.

The tree comes as the attention mask: on a CPU its nodes, as a tensor of integers [1, 1, nodes, 3]; on a GPU a
`BlockMask`. With any other mask, or none, this is transformers' `sdpa`.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from irpo_lib.prefix_tree import PrefixTree

#: The name of this attention in a model's config and in presets.
NAME = "prefix_tree"
#: Arguments of an attention that change its result in a way that is not made here.
FOREIGN = ("sliding_window", "softcap", "s_aux", "position_bias")


class UnsupportedAttention(ValueError):
    """The model's attention is not the plain one."""


def tree_mask(tree: PrefixTree, device: torch.device) -> torch.Tensor | BlockMask:
    """What a model gets as its attention mask for a tree's row."""
    if device.type == "cuda":
        return block_mask(tree, device)
    return torch.from_numpy(tree.nodes)[None, None]


def block_mask(tree: PrefixTree, device: torch.device) -> BlockMask:
    """FlexAttention's mask: a token sees an earlier one whose node's descendants reach up to it."""
    lasts = torch.empty(len(tree.token_ids), dtype=torch.long)
    for start, end, last in tree.nodes.tolist():
        lasts[start:end] = last
    lasts = lasts.to(device)

    def sees(b, h, query, key):
        return (key <= query) & (query < lasts[key])

    return create_block_mask(sees, None, None, len(lasts), len(lasts), device=str(device))


def tree_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: Any,
    dropout: float = 0.0, scaling: float | None = None, **others: Any,
) -> tuple[torch.Tensor, None]:  # fmt: skip
    """Queries [1, heads, T, d], keys and values [1, kv heads, T, d] → [1, T, heads, d].

    Raises:
        UnsupportedAttention: the model wants dropout, a window or the like.
    """
    flex = isinstance(attention_mask, BlockMask)
    if not flex and (
        attention_mask is None or attention_mask.is_floating_point() or attention_mask.dtype == torch.bool
    ):
        return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **others)
    foreign = [name for name in FOREIGN if others.get(name) is not None] + ["dropout"] * bool(dropout)
    if foreign:
        raise UnsupportedAttention(f"its attention has {' and '.join(foreign)}")
    if torch.is_autocast_enabled(query.device.type):
        dtype = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if flex:
        attend = _compiled() if query.is_cuda else flex_attention
        out = attend(query, key, value, block_mask=attention_mask, scale=scale, enable_gqa=True)
    else:
        out = TreeAttention.apply(query, key, value, attention_mask[0, 0].tolist(), scale)
    return out.transpose(1, 2).contiguous(), None


@cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)


class TreeAttention(torch.autograd.Function):
    """Softmax attention over a tree on a CPU, block by block: [1, heads, T, d]; there may be fewer heads of keys."""

    @staticmethod
    def forward(ctx, query, key, value, nodes, scale):
        attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        out = torch.empty(query.shape, dtype=torch.promote_types(query.dtype, torch.float32))
        sums = torch.empty(query.shape[:-1], dtype=out.dtype)  # log Σ exp of a token's scores
        for start, end, _ in nodes:
            own = slice(start, end)
            out[:, :, own], sums[:, :, own] = attend(
                query[:, :, own], key[:, :, own], value[:, :, own], 0.0, True, scale=scale
            )
        for start, end, last in nodes:
            if last == end:
                continue
            below = slice(end, last)
            part, part_sums = attend(
                query[:, :, below], key[:, :, start:end], value[:, :, start:end], 0.0, False, scale=scale
            )
            both = torch.logaddexp(sums[:, :, below], part_sums)
            out[:, :, below].mul_((sums[:, :, below] - both).exp_().unsqueeze(-1))
            out[:, :, below].addcmul_(part, (part_sums - both).exp_().unsqueeze(-1).to(out.dtype))
            sums[:, :, below] = both
        out = out.to(query.dtype)
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.nodes, ctx.scale = nodes, scale
        return out

    @staticmethod
    def backward(ctx, grad_out):
        query, key, value, out, sums = ctx.saved_tensors
        backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        wide = torch.promote_types(query.dtype, torch.float32)
        grads = [torch.empty(t.shape, dtype=wide) for t in (query, key, value)]

        def of_block(rows: slice, columns: slice, causal: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
            """Where a block's gradients belong, and what they are."""
            found = backward(
                grad_out[:, :, rows], query[:, :, rows], key[:, :, columns], value[:, :, columns], out[:, :, rows],
                sums[:, :, rows], 0.0, causal, scale=ctx.scale,
            )  # fmt: skip
            for grad, where, part in zip(grads, (rows, columns, columns), found, strict=True):
                yield grad[:, :, where], part

        for start, end, _ in ctx.nodes:
            for grad, part in of_block(slice(start, end), slice(start, end), causal=True):
                grad.copy_(part)
        for start, end, last in ctx.nodes:
            if last > end:
                for grad, part in of_block(slice(end, last), slice(start, end), causal=False):
                    grad += part
        return *(g.to(query.dtype) for g in grads), None, None


AttentionInterface.register(NAME, tree_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
