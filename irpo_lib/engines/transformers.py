"""(c^n, y^n) ~ M_t(x): N sampled responses a prompt, as token ids (§ 2).

The prefix of all prompts is computed once, a prompt once for its N samples, and waiting prompts take the place of rows
that have finished. On a CPU each core samples for prompts of its own. For any causal language model of transformers.
"""

import multiprocessing
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from transformers import GenerationConfig, LogitsProcessorList, PreTrainedModel

from irpo_lib.cluster.children import die_with_parent
from irpo_lib.config import Config
from irpo_lib.engines import Sampler
from irpo_lib.fast.decoding import opened
from irpo_lib.fast.draw import pick, uniform_numbers
from irpo_lib.fast.packed import packed
from irpo_lib.models.load import load_model
from irpo_lib.records import Sample

#: Rows that are decoded at once on a CPU; more rows cost memory, fewer cost speed.
ROWS = 1024
#: A process of its own is worth its start for so many rows.
LEAST_ROWS = 64
#: Of a model that more than one process samples from; at 0.5B parameters one process with two threads is 8 % faster.
MOST_BYTES = 2**29


def sampler(config: Config, model: str, end: int) -> Sampler:
    """`generate` of a model; the seed is a shard's."""
    return partial(
        generate, packed(load_model(model, config.dtype), config.generation_rows), top_p=config.top_p,
        max_new_tokens=config.max_new_tokens, rows=config.generation_rows, end=end,
    )  # fmt: skip


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
        seed: The same seed and prompts give the same samples, each prompt by random numbers of its own; `rows` and the
            number of threads change no more than the rounding of logits.
        rows: Responses that are decoded at once, in all processes together.
        end: The token that ends a reply, where the model's config may not name it (`models.end_token_id`).
    """
    if temperature == 0 and n != 1:
        raise ValueError(f"greedy decoding gives one response, not {n}: set temperature above 0")
    work = _Work(model, prompts, n, temperature, top_p, max_new_tokens, seed, rows, _eos_ids(model, end))
    processes = _processes(model, len(prompts) * n, rows)
    if processes == 1:
        yield from work
    else:
        yield from DataLoader(
            work, batch_size=None, num_workers=processes, in_order=False, collate_fn=lambda found: found,
            prefetch_factor=32, multiprocessing_context="fork",
            worker_init_fn=lambda number: die_with_parent(signal.SIGKILL),
            generator=torch.Generator(),  # else it would draw from the global one
        )  # fmt: skip


def _processes(model: PreTrainedModel, samples: int, rows: int) -> int:
    """One a core on a CPU: threads that share each small operation spend much of their time in waiting for each other.

    Not with large weights, which each process would read for itself at each step.

    A forked process must stay with one thread, since the threads of its parent's OpenMP are not there. One that is
    forked beside vLLM's or a process group's threads would wait for their locks for ever.
    """
    if model.device.type != "cpu" or sys.platform != "linux" or multiprocessing.current_process().daemon:
        return 1
    if "vllm" in sys.modules or torch.distributed.is_initialized() or model.get_memory_footprint() > MOST_BYTES:
        return 1
    return max(1, min(torch.get_num_threads(), samples // LEAST_ROWS, rows // LEAST_ROWS))


@dataclass(frozen=True)
class _Work(IterableDataset):
    """What there is to sample; of several processes, each does a share of the prompts."""

    model: PreTrainedModel
    prompts: Sequence[list[int]]
    n: int
    temperature: float
    top_p: float
    most: int
    seed: int
    rows: int
    eos: torch.Tensor

    @torch.inference_mode()
    def __iter__(self) -> Iterator[tuple[int, list[Sample]]]:
        worker = get_worker_info()
        part, of = (worker.id, worker.num_workers) if worker else (0, 1)
        waiting = sorted(range(len(self.prompts)), key=lambda i: -len(self.prompts[i]))[part::of]
        if not waiting:
            return
        at_once = max(1, self.rows // of // self.n)
        with opened(self.model, [self.prompts[i] for i in waiting], self.most) as source:
            if source is None:
                for start in range(0, len(waiting), at_once):
                    some = waiting[start : start + at_once]
                    yield from zip(some, _by_generate(self, some), strict=True)
                return
            batches: list[_Batch] = []
            while waiting or batches:
                free = at_once - -(-sum(batch.rows.count for batch in batches) // self.n)
                if waiting and free >= at_once / 2:
                    some = [waiting.pop() for _ in range(min(free, len(waiting)))]
                    batches.append(_Batch(self, source, some))
                sizes = [batch.rows.count for batch in batches]
                newest, at, uniform = (
                    torch.cat(x) for x in zip(*((b.newest, b.at, b.uniform()) for b in batches), strict=True)
                )
                logits = source.logits([batch.rows for batch in batches], newest, at)
                chosen = pick(logits, self.temperature, self.top_p, uniform)
                for batch, tokens in zip(batches, chosen.split(sizes), strict=True):
                    yield from batch.take(tokens)
                batches = [batch for batch in batches if batch.rows.count]


def _by_generate(work: _Work, some: Sequence[int]) -> Iterator[list[Sample]]:
    """The samples of some prompts by transformers' own `generate`, which gives each a copy of its prompt's keys."""
    model, prompts = work.model, [torch.tensor(work.prompts[i]) for i in some for _ in range(work.n)]
    ids, mask = (
        pad_sequence(rows, batch_first=True, padding_side="left").to(model.device)
        for rows in (prompts, [torch.ones_like(p) for p in prompts])
    )
    width = ids.shape[1]
    numbers = torch.cat([uniform_numbers(work.seed, i, work.n, work.most) for i in some]).to(model.device)

    def drawn(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Leaves only the token that our own numbers draw, so that greedy search takes it."""
        token = pick(scores, work.temperature, work.top_p, numbers[:, input_ids.shape[1] - width])
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)

    wanted = GenerationConfig(max_new_tokens=work.most, eos_token_id=work.eos.tolist(), pad_token_id=int(work.eos[0]))
    own, model.generation_config = model.generation_config, wanted  # it would fill in a model's penalties
    try:
        out: Any = model.generate(  # type: ignore[operator]
            ids,
            attention_mask=mask,
            logits_processor=LogitsProcessorList([drawn]),  # type: ignore[list-item]
        )
    finally:
        model.generation_config = own
    for rows in out[:, width:].split(work.n):
        yield _until_end(rows, work.eos)


def _until_end(rows: torch.Tensor, eos: torch.Tensor) -> list[Sample]:
    """[n, tokens] → what stands in each row up to its first end token."""
    ended = torch.isin(rows, eos)
    lengths = torch.where(ended.any(-1), ended.int().argmax(-1) + 1, 0)
    return [
        Sample(tokens[:length], "stop") if length else Sample(tokens, "length")
        for tokens, length in zip(rows.tolist(), lengths.tolist(), strict=True)
    ]


class _Batch:
    """Prompts that began together, and the n samples of each so far."""

    def __init__(self, work: _Work, source: Any, some: Sequence[int]):
        n, most, device = work.n, work.most, work.model.device
        prompts = [work.prompts[i] for i in some]
        self.some, self.n, self.most, self.eos, self.step = some, n, most, work.eos.cpu(), 0
        self.rows = source.begin(prompts, n, most)
        self.newest = torch.tensor([p[-1] for p in prompts], device=device).repeat_interleave(n)
        self.at = torch.tensor([len(p) - 1 for p in prompts], device=device).repeat_interleave(n)
        self.numbers = torch.cat([uniform_numbers(work.seed, i, n, most) for i in some]).to(device)
        self.tokens = torch.zeros(len(some) * n, most, dtype=torch.long)
        self.ids = torch.arange(len(some) * n)  # of the rows that have not finished

    def uniform(self) -> torch.Tensor:
        return self.numbers[self.ids.to(self.numbers.device), self.step]

    def take(self, chosen: torch.Tensor) -> Iterator[tuple[int, list[Sample]]]:
        """One more token a row; yields the prompts whose last sample has finished."""
        here = chosen.cpu()
        self.tokens[self.ids, self.step] = here
        self.step += 1
        over = torch.isin(here, self.eos) | (self.step == self.most)
        self.newest, self.at = chosen, self.at + 1
        if not over.any():
            return
        ended, keep = self.ids[over] // self.n, _without(over)
        self.ids = self.ids[keep]
        keep = keep.to(chosen.device)
        self.newest, self.at = self.newest[keep], self.at[keep]
        self.rows.select(keep)
        for which in ended[torch.isin(ended, self.ids // self.n, invert=True)].unique().tolist():
            yield self.some[which], _until_end(self.tokens[which * self.n : (which + 1) * self.n], self.eos)


def _without(over: torch.Tensor) -> torch.Tensor:
    """Which row takes each place when some leave: the last ones fill the gaps, the others stay where they are."""
    left = int((~over).sum())
    keep = torch.arange(left)
    keep[over[:left]] = (~over[left:]).nonzero().squeeze(-1) + left
    return keep


def _eos_ids(model: PreTrainedModel, end: int | None) -> torch.Tensor:
    eos = model.generation_config.eos_token_id
    eos = model.config.eos_token_id if eos is None else eos
    found = {i for i in (*(eos if isinstance(eos, (list, tuple)) else [eos]), end) if i is not None}
    if not found:
        raise ValueError("the model's config names no EOS token: generation would never end")
    return torch.tensor(sorted(found), device=model.device)
