"""log softmax(h Wᵀ)[token] for many tokens, without the [tokens, vocabulary] tensor of all logits.

A language model ends in `head(hidden)`. Within `logps_instead_of_logits`, its head gives the log-probs of given tokens
at given places instead, and computes logits for a few places at a time, in the forward pass and again in the backward
pass. The rest of the model's forward pass is its own: whatever is hooked to it (FSDP2, adapters) stays in force.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.distributed.tensor import DTensor
from torch.nn.functional import linear, pad

from irpo_lib.fast.draw import CACHED

#: Logits that are there at once, at least: a small vocabulary's in one piece.
LOGITS = 2**24
#: Tokens whose logits are there at once, at least. Each chunk reads and writes the gradient of the head, as large as
#: the logits of `hidden_size` tokens; smaller chunks of a large vocabulary would do little else.
ROWS = 1024
#: Rows of the head whose gradient is added at once.
PIECE = 8192
#: Rows of a large product, in multiples of so many: others are up to a third slower in bfloat16 on a CPU.
MULTIPLE = 64


@contextmanager
def logps_instead_of_logits(head: torch.nn.Linear, places: torch.Tensor, targets: torch.Tensor) -> Iterator[None]:
    """The head maps hidden states [B, T, h] to log-probs [R]: of `targets` [R] at `places` [R], counted over B · T."""

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        where, what = places, targets
        if len(targets) * len(head.weight) > LOGITS:
            where, what = (pad(x, (0, -len(x) % MULTIPLE)) for x in (places, targets))
        chosen = hidden.flatten(0, 1)[where].to(dtype)
        return ChunkedLogps.apply(chosen, head.weight, head.bias, what)[: len(targets)]

    head.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del head.forward


def can_be_replaced(head: Any) -> bool:
    """A head that is a matrix, and whole where it is computed: tensor parallelism cuts up the vocabulary."""
    weight = getattr(head, "weight", None)
    cut = isinstance(weight, DTensor) and "tp" in (weight.device_mesh.mesh_dim_names or ())
    return type(head) is torch.nn.Linear and not cut


class ChunkedLogps(torch.autograd.Function):
    """hidden [R, h], weight [V, h], bias [V] or none, targets [R] → log-probs [R], at least float32.

    Products are in the type of `hidden`, all sums and the gradient of a float32 weight in float32.
    """

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets):
        wide = torch.promote_types(hidden.dtype, torch.float32)
        logps, sums = (torch.empty(len(hidden), dtype=wide, device=hidden.device) for _ in range(2))
        used: Any = [x if x is None else x.to(hidden.dtype) for x in (weight, bias)]
        for some in _chunks(len(hidden), len(weight)):
            logits = linear(hidden[some], *used)
            for rows, few in _in_cache(some, logits):
                values = few.to(wide)
                sums[rows] = values.logsumexp(-1)
                logps[rows] = values.gather(-1, targets[rows, None]).squeeze(-1) - sums[rows]
        ctx.save_for_backward(hidden, *used, targets, sums)
        return logps

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, bias, targets, sums = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias, _ = ctx.needs_input_grad
        grad_hidden: Any = torch.empty_like(hidden) if needs_hidden else None
        grad_weight: Any = torch.zeros_like(weight, dtype=sums.dtype) if needs_weight else None
        grad_bias: Any = torch.zeros_like(bias, dtype=sums.dtype) if needs_bias else None
        for some in _chunks(len(hidden), len(weight)):
            logits = linear(hidden[some], weight, bias)
            for rows, few in _in_cache(some, logits):
                # d log p(target) / d logits = onehot(target) - p
                of_logits = few.to(sums.dtype).sub_(sums[rows, None]).exp_().mul_(-grad[rows, None])
                of_logits.scatter_add_(-1, targets[rows, None], grad[rows, None])
                if needs_bias:
                    grad_bias += of_logits.sum(0)
                few.copy_(of_logits)
            if needs_hidden:
                grad_hidden[some] = logits @ weight
            if needs_weight:
                # In pieces: to add what is in another type, torch makes a copy of all of it first.
                for piece, few in zip(grad_weight.split(PIECE), logits.split(PIECE, dim=1), strict=True):
                    if few.dtype == piece.dtype:
                        piece.addmm_(few.T, hidden[some])
                    else:
                        piece += few.T @ hidden[some]
        return grad_hidden, grad_weight, grad_bias, None  # autograd turns each into the type of what it belongs to


def rows_of_a_chunk(vocabulary: int) -> int:
    return max(ROWS, LOGITS // vocabulary)


def _chunks(rows: int, vocabulary: int) -> Iterator[slice]:
    size = rows_of_a_chunk(vocabulary)
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def _in_cache(some: slice, logits: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """A chunk's logits, few rows at a time: on a CPU so few that they stay in its cache between operations."""
    size = max(1, (CACHED if logits.device.type == "cpu" else LOGITS) // logits.shape[-1])
    for start, few in zip(range(some.start, some.stop, size), logits.split(size), strict=True):
        yield slice(start, start + len(few)), few
