"""(c^n, y^n) ~ M_t(x): N sampled responses a prompt, as token ids (§ 2).

A prompt's KV cache is computed once for its N samples, rows that have finished leave the batch, and prompts of like
length share one. For any causal language model of transformers.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer

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
    generator = torch.Generator(model.device).manual_seed(seed)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    at_once = max(1, rows // n)
    for start in range(0, len(order), at_once):
        batch = order[start : start + at_once]
        samples = _decode(model, [prompts[i] for i in batch], n, temperature, top_p, max_new_tokens, eos, generator)
        for row, index in enumerate(batch):
            yield index, samples[row * n : (row + 1) * n]


def _decode(model, prompts, n, temperature, top_p, max_new_tokens, eos, generator) -> list[Sample]:
    """One batch: [len(prompts) * n] samples, those of a prompt side by side."""
    device = model.device
    width = max(len(p) for p in prompts)
    padded = any(len(p) != width for p in prompts)
    input_ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    lengths = mask.sum(-1).repeat_interleave(n)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = _growing_cache(model, max_new_tokens)
    logits = _forward(model, input_ids, mask if padded else None, positions, cache)
    cache.batch_repeat_interleave(n)
    logits, mask = logits.repeat_interleave(n, 0), mask.repeat_interleave(n, 0)

    tokens = torch.zeros(len(prompts) * n, max_new_tokens, dtype=torch.long)
    finished = [0] * (len(prompts) * n)
    rows = torch.arange(len(prompts) * n)
    alive = torch.ones(len(rows), dtype=torch.bool)
    for step in range(max_new_tokens):
        chosen = _pick(logits, temperature, top_p, generator)
        tokens[rows[alive], step] = chosen.cpu()[alive]
        stopped = alive & torch.isin(chosen, eos).cpu()
        for row in rows[stopped].tolist():
            finished[row] = step + 1
        alive &= ~stopped
        left = int(alive.sum())
        if left == 0 or step + 1 == max_new_tokens:
            break
        # A row that has finished costs as much as one that has not; copying the cache costs about a step.
        if left <= 0.9 * len(rows):
            keep = alive.nonzero().squeeze(-1)
            cache.batch_select_indices(keep.to(device))
            rows, chosen, mask, lengths = (
                rows[keep],
                chosen[keep.to(device)],
                mask[keep.to(device)],
                lengths[keep.to(device)],
            )
            alive = alive[keep]
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], -1)
        logits = _forward(model, chosen[:, None], mask if padded else None, (lengths + step)[:, None], cache)
    return [
        Sample(tokens[row, : end or max_new_tokens].tolist(), "stop" if end else "length")
        for row, end in enumerate(finished)
    ]


def _forward(model, input_ids, attention_mask, position_ids, cache) -> torch.Tensor:
    """Logits of the next token, [rows, vocabulary], float32."""
    out = model(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=position_ids,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return out.logits[:, -1].float()


def _pick(logits: torch.Tensor, temperature: float, top_p: float, generator: torch.Generator) -> torch.Tensor:
    """[rows, vocabulary] → [rows]."""
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = torch.softmax(logits / temperature, -1)
    if top_p < 1:
        ordered, indices = probabilities.sort(-1, descending=True)
        beyond = ordered.cumsum(-1) - ordered >= top_p
        probabilities = torch.zeros_like(probabilities).scatter(-1, indices, ordered.masked_fill(beyond, 0))
    # argmax(p / e) with e ~ Exp(1) is a draw from p, and much faster than torch.multinomial.
    noise = torch.empty_like(probabilities).exponential_(generator=generator)
    return (probabilities / noise).argmax(-1)


def _eos_ids(model: PreTrainedModel, end: int | None) -> torch.Tensor:
    eos = model.generation_config.eos_token_id
    eos = model.config.eos_token_id if eos is None else eos
    found = set() if eos is None else {eos} if isinstance(eos, int) else set(eos)
    found |= set() if end is None else {end}
    if not found:
        raise ValueError("the model's config names no EOS token: generation would never end")
    return torch.tensor(sorted(found), device=model.device)


class GrowingLayer(DynamicLayer):
    """A cache layer with room ahead: a new token is written in place, where DynamicLayer copies the whole cache."""

    def __init__(self, room: int):
        super().__init__()
        self.room, self.used = room, 0

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.buffers = [key_states, value_states]
            self.used = key_states.shape[-2]
        else:
            end = self.used + key_states.shape[-2]
            if end > self.buffers[0].shape[-2]:
                self.buffers = [self._wider(b, end) for b in self.buffers]
            self.buffers[0][:, :, self.used : end] = key_states
            self.buffers[1][:, :, self.used : end] = value_states
            self.used = end
        self.keys, self.values = (b[:, :, : self.used] for b in self.buffers)
        return self.keys, self.values

    def _wider(self, buffer: torch.Tensor, needed: int) -> torch.Tensor:
        shape = list(buffer.shape)
        shape[-2] = needed + self.room
        wider = buffer.new_empty(shape)
        wider[:, :, : self.used] = buffer[:, :, : self.used]
        return wider

    def batch_repeat_interleave(self, repeats: int) -> None:
        self._map(lambda b: b.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._map(lambda b: b[indices])

    def _map(self, change) -> None:
        self.buffers = [change(b) for b in self.buffers]
        self.keys, self.values = (b[:, :, : self.used] for b in self.buffers)


def _growing_cache(model: PreTrainedModel, room: int) -> DynamicCache:
    """A cache that grows in place for full-attention layers; others (sliding windows) keep transformers' own."""
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingLayer(min(room, 64)) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
