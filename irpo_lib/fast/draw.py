"""Tokens by the inverse of the distribution function, from random numbers that are a prompt's own."""

import torch
from torch.nn.functional import pad

from irpo_lib.config import derive_seed

#: Numbers that stay in a core's cache between operations.
CACHED = 2**18
#: Up to so many tokens a running sum over all of them costs nothing.
SMALL = 4096
#: Tokens of a block of a larger vocabulary. Most are a multiple of it: to fill a last one up is a copy of all of them.
BLOCK = 128


def uniform_numbers(seed: int, prompt: int, n: int, most: int) -> torch.Tensor:
    """A prompt's random numbers in [0, 1), [n, most]: the same whatever it is batched with."""
    generator = torch.Generator().manual_seed(derive_seed(seed, prompt))
    return torch.rand(n, most, dtype=torch.float64, generator=generator)


def pick(logits: torch.Tensor, temperature: float, top_p: float, uniform: torch.Tensor) -> torch.Tensor:
    """[rows, vocabulary] and a number in [0, 1) for each row → [rows], by the inverse of the distribution function."""
    if temperature == 0:
        return logits.argmax(-1)
    wide = torch.promote_types(logits.dtype, torch.float32)

    def drawn(some: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        p = torch.softmax(some.to(wide, copy=True).div_(temperature), -1)
        return draw(_of_top(p, top_p), numbers)

    size = rows_at_once(logits)
    return torch.cat([drawn(*some) for some in zip(logits.split(size), uniform.split(size), strict=True)])


def _of_top(p: torch.Tensor, top_p: float) -> torch.Tensor:
    """Probabilities of which those outside the smallest set of tokens with the sum `top_p` are 0."""
    if top_p == 1:
        return p
    falling, tokens = p.sort(-1, descending=True)
    before = falling.cumsum(-1, dtype=torch.float64) - falling
    return p.scatter(-1, tokens, falling.masked_fill_(before >= top_p, 0.0))


def draw(p: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """[rows, vocabulary] probabilities and a float64 number in [0, 1) for each row → [rows] tokens.

    The token is the first one at which the running sum passes the number's share of the whole sum. In a large
    vocabulary the block that holds this token is found first, then the token in the block. Running sums are in float64.
    """
    if p.shape[-1] <= SMALL:
        below = p.cumsum(-1, dtype=torch.float64)
        return _first_above(below, uniform[:, None] * below[:, -1:]).squeeze(-1)
    missing = -p.shape[-1] % BLOCK
    blocks = (pad(p, (0, missing)) if missing else p).unflatten(-1, (-1, BLOCK))
    sums = blocks.sum(-1).double()  # of so few numbers float32 is exact enough, and five times as fast
    below = sums.cumsum(-1)
    target = uniform[:, None] * below[:, -1:]
    block = _first_above(below, target)
    before = (below - sums).gather(-1, block)
    inside = blocks[torch.arange(len(p), device=p.device), block.squeeze(-1)].cumsum(-1, dtype=torch.float64)
    return (block * BLOCK + _first_above(inside, target - before)).squeeze(-1)


def rows_at_once(logits: torch.Tensor) -> int:
    """How many rows of logits are turned into probabilities and drawn from together.

    On a CPU each thread has two of a large vocabulary at least: a single one would be left to one thread.
    """
    return len(logits) if logits.is_cuda else max(2, CACHED // logits.shape[-1]) * torch.get_num_threads()


def _first_above(below: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """[rows, n] running sums, [rows, 1] → [rows, 1]; rounding never leads beyond the last element above zero."""
    last = torch.nextafter(below[:, -1:], below.new_zeros(()))
    return torch.searchsorted(below, torch.minimum(target, last), right=True)
