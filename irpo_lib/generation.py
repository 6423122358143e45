"""(c^n, y^n) ~ M_t(x): N sampled responses a prompt, as token ids (§ 2).

A prompt's KV cache is computed once for its N samples, rows that have finished leave the batch, and prompts of like
length share one. For any causal language model of transformers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from irpo_lib.decoding import opened

#: Rows that are decoded at once on a CPU; more rows cost memory, fewer cost speed.
ROWS = 512


@dataclass(frozen=True)
class Sample:
    """Token ids of one response; with EOS when `finish_reason` is "stop", cut at the limit when it is "length"."""

    token_ids: list[int]
    finish_reason: str


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[list[int]],
    n: int,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    seed: int,
    rows: int = ROWS,
    end: int | None = None,
) -> Iterator[tuple[int, list[Sample]]]:
    """Samples n responses a prompt; yields (index of the prompt, its samples) as batches finish.

    Args:
        model: A causal language model whose config or generation config names its EOS tokens.
        prompts: Token ids, with BOS.
        n: N.
        temperature: 0 is greedy decoding (n must be 1), above 0 samples.
        top_p: Sample from the smallest set of tokens with this probability; 1 is all of them.
        max_new_tokens: A response that has no EOS by then is cut.
        seed: The same seed, prompts and `rows` give the same samples.
        rows: The size of a batch, in responses.
        end: The token that ends a reply, where the model's config may not name it (`models.end_token_id`).
    """
    if temperature == 0 and n != 1:
        raise ValueError(f"greedy decoding gives one response, not {n}: set temperature above 0")
    eos = _eos_ids(model, end)
    waiting = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    at_once = max(1, rows // n)
    with opened(model, prompts, max_new_tokens) as source:
        batches: list[_Batch] = []
        while waiting or batches:
            free = at_once - -(-sum(batch.rows.count for batch in batches) // n)
            if waiting and (free >= at_once / 4 if source.joins else not batches):
                some = [waiting.pop() for _ in range(min(free, len(waiting)))]
                batches.append(_Batch(source, prompts, some, n, max_new_tokens, seed))
            logits = source.logits(
                [b.rows for b in batches], torch.cat([b.newest for b in batches]), torch.cat([b.at for b in batches])
            )
            uniform = torch.cat([b.uniform() for b in batches])
            chosen = _pick(logits, temperature, top_p, uniform)
            for batch, tokens in zip(batches, chosen.split([b.rows.count for b in batches]), strict=True):
                yield from batch.take(tokens, eos)
            batches = [batch for batch in batches if batch.rows.count]


class _Batch:
    """Prompts that began together, and the n samples of each so far."""

    def __init__(self, source, prompts, some: Sequence[int], n: int, most: int, seed: int):
        self.some, self.n, self.most, self.step = some, n, most, 0
        device = source.model.device
        self.rows = source.begin([prompts[i] for i in some], n, most)
        self.newest, self.at = (
            torch.tensor(x, device=device).repeat_interleave(n)
            for x in ([prompts[i][-1] for i in some], [len(prompts[i]) - 1 for i in some])
        )
        self.numbers = torch.stack([_uniform(seed, i, n, most) for i in some]).flatten(0, 1).to(device)
        self.tokens = torch.zeros(len(some) * n, most, dtype=torch.long)
        self.lengths = torch.zeros(len(some) * n, dtype=torch.long)
        self.left = [n] * len(some)
        self.ids = torch.arange(len(some) * n)  # of the rows that have not finished

    def uniform(self) -> torch.Tensor:
        return self.numbers[self.ids.to(self.numbers.device), self.step]

    def take(self, chosen: torch.Tensor, eos: torch.Tensor) -> Iterator[tuple[int, list[Sample]]]:
        """One more token a row; yields the prompts whose last sample has finished."""
        here = chosen.cpu()
        self.tokens[self.ids, self.step] = here
        self.step += 1
        stopped = torch.isin(here, eos)
        self.lengths[self.ids[stopped]] = self.step
        over = stopped if self.step < self.most else torch.ones_like(stopped)
        self.newest, self.at = chosen, self.at + 1
        if not over.any():
            return
        ended = self.ids[over]
        keep = _without(over)
        self.ids = self.ids[keep]
        keep = keep.to(chosen.device)
        self.newest, self.at = chosen[keep], self.at[keep]
        self.rows.select(keep)
        for row in ended.tolist():
            self.left[row // self.n] -= 1
            if not self.left[row // self.n]:
                yield self.some[row // self.n], self._samples(row // self.n)

    def _samples(self, which: int) -> list[Sample]:
        mine = slice(which * self.n, (which + 1) * self.n)
        return [
            Sample(tokens[: length or self.most], "stop" if length else "length")
            for tokens, length in zip(self.tokens[mine].tolist(), self.lengths[mine].tolist(), strict=True)
        ]


def _without(over: torch.Tensor) -> torch.Tensor:
    """Which row takes each place when some leave: the last ones fill the gaps, the others stay where they are."""
    left = int((~over).sum())
    keep = torch.arange(left)
    keep[over[:left]] = (~over[left:]).nonzero().squeeze(-1) + left
    return keep


def _uniform(seed: int, prompt: int, n: int, most: int) -> torch.Tensor:
    """A prompt's random numbers in [0, 1), [n, most]: the same whatever it is batched with."""
    generator = torch.Generator().manual_seed(seed + prompt)
    return torch.rand(n, most, dtype=torch.float64, generator=generator)


def _pick(logits: torch.Tensor, temperature: float, top_p: float, uniform: torch.Tensor) -> torch.Tensor:
    """[rows, vocabulary] and a number in [0, 1) for each row → [rows], by the inverse of the distribution function."""
    if temperature == 0:
        return logits.argmax(-1)
    p = torch.softmax(logits / temperature, -1)
    if top_p < 1:
        p, tokens = p.sort(-1, descending=True)
    below = p.cumsum(-1, dtype=torch.float64)
    mass = below[:, -1:]
    if top_p < 1:
        mass = below.gather(-1, (below < top_p).sum(-1, keepdim=True).clamp(max=p.shape[-1] - 1))
    found = torch.searchsorted(below, uniform[:, None] * mass, right=True).clamp(max=p.shape[-1] - 1)
    return (tokens.gather(-1, found) if top_p < 1 else found).squeeze(-1)


def _eos_ids(model: PreTrainedModel, end: int | None) -> torch.Tensor:
    eos = model.generation_config.eos_token_id
    eos = model.config.eos_token_id if eos is None else eos
    found = set() if eos is None else {eos} if isinstance(eos, int) else set(eos)
    found |= set() if end is None else {end}
    if not found:
        raise ValueError("the model's config names no EOS token: generation would never end")
    return torch.tensor(sorted(found), device=model.device)
