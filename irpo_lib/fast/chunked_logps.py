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
from torch.nn.functional import linear

#: Logits that are there at once.
LOGITS = 2**24


@contextmanager
def logps_instead_of_logits(head: torch.nn.Linear, places: torch.Tensor, targets: torch.Tensor) -> Iterator[None]:
    """The head maps hidden states [B, T, h] to log-probs [R]: of `targets` [R] at `places` [R], counted over B · T."""

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        hidden, weight = hidden.flatten(0, 1)[places], head.weight
        if torch.is_autocast_enabled(hidden.device.type):
            dtype = torch.get_autocast_dtype(hidden.device.type)
            hidden, weight = hidden.to(dtype), weight.to(dtype)
        return ChunkedLogps.apply(hidden, weight, head.bias, targets)

    head.forward = forward  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del head.forward


def can_be_replaced(head: Any) -> bool:
    """A head that is a matrix, and whole where it is computed: tensor parallelism cuts up the vocabulary."""
    if type(head) is not torch.nn.Linear:
        return False
    weight = head.weight
    return not (isinstance(weight, DTensor) and "tp" in (weight.device_mesh.mesh_dim_names or ()))


class ChunkedLogps(torch.autograd.Function):
    """hidden [R, h], weight [V, h], bias [V] or none, targets [R] → log-probs [R], at least float32."""

    @staticmethod
    def forward(ctx, hidden, weight, bias, targets):
        wide = torch.promote_types(hidden.dtype, torch.float32)
        logps, sums = (torch.empty(len(hidden), dtype=wide, device=hidden.device) for _ in range(2))
        for some in _chunks(len(hidden), len(weight)):
            logits = linear(hidden[some], weight, bias).to(wide)
            sums[some] = logits.logsumexp(-1)
            logps[some] = logits.gather(-1, targets[some, None]).squeeze(-1) - sums[some]
        ctx.save_for_backward(hidden, weight, bias, targets, sums)
        return logps

    @staticmethod
    def backward(ctx, grad):
        hidden, weight, bias, targets, sums = ctx.saved_tensors
        needs_hidden, needs_weight, needs_bias, _ = ctx.needs_input_grad
        grad_hidden: Any = torch.empty_like(hidden) if needs_hidden else None
        grad_weight: Any = torch.zeros_like(weight, dtype=sums.dtype) if needs_weight else None
        grad_bias: Any = torch.zeros_like(bias, dtype=sums.dtype) if needs_bias else None
        for some in _chunks(len(hidden), len(weight)):
            # d log p(target) / d logits = onehot(target) - p
            logits = linear(hidden[some], weight, bias).to(sums.dtype)
            of_logits = logits.sub_(sums[some, None]).exp_().mul_(-grad[some, None])
            of_logits.scatter_add_(-1, targets[some, None], grad[some, None])
            if needs_bias:
                grad_bias += of_logits.sum(0)
            of_logits = of_logits.to(hidden.dtype)
            if needs_hidden:
                grad_hidden[some] = of_logits @ weight
            if needs_weight:
                _add_product(grad_weight, of_logits.T, hidden[some])
        if needs_weight:
            grad_weight = grad_weight.to(weight.dtype)
        if needs_bias:
            grad_bias = grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None


def _add_product(total: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
    """total += a b, in place where the types allow it."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def _chunks(rows: int, vocabulary: int) -> Iterator[slice]:
    size = max(1, LOGITS // vocabulary)
    return (slice(start, start + size) for start in range(0, rows, size))
