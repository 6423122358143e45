"""What a decoding loop asks of a model: prompts once for their samples, then the next token's logits for all rows.

`Shared` attends to the prompts' keys where they are, once for all samples (`shared_attention`); `Copied` gives each
sample a copy of them, through whatever attention and cache the model has. `opened` finds out which a model can have.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from inspect import signature

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from irpo_lib.fast.shared_attention import NAME, NotShared, Part, Rows, SharedCache, at_least_float32

#: Tokens of one forward pass over prompts; more cost memory and save no time.
PREFILL = 4096
#: A prefix of all prompts that is shorter is left to each of them: a part of its own costs time at every step.
LEAST_PREFIX = 32

logger = logging.getLogger(__name__)


@contextmanager
def opened(model: PreTrainedModel, prompts: Sequence[list[int]], most: int) -> Iterator["Shared | Copied"]:
    """The faster of the two that gives the model's own logits, for prompts that grow by up to `most` tokens."""
    reason = _why_not_shared(model, prompts, most)
    _say(f"{type(model).__name__}: " + (f"each sample has a copy of its prompt's keys, since {reason}" if reason else
                                        "samples share their prompt's keys"))  # fmt: skip
    if reason:
        yield Copied(model)
    else:
        with _shared_attention(model):
            yield Shared(model, prompts)


@cache
def _say(what: str) -> None:
    logger.info(what)


@contextmanager
def _shared_attention(model: PreTrainedModel) -> Iterator[None]:
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def _why_not_shared(model: PreTrainedModel, prompts: Sequence[list[int]], most: int) -> str | None:
    """Why a model cannot share keys, if so; a short prompt is computed both ways to see that it can."""
    longest = max(len(p) for p in prompts) + most
    for layer in DynamicCache(config=model.config).layers:
        window = layer.sliding_window if type(layer) is DynamicSlidingWindowLayer else None
        if type(layer) is not DynamicLayer and (window is None or window < longest):
            return "not all of its layers attend to the whole past"
    if model.config._attn_implementation not in ("sdpa", "eager") or not model._can_set_attn_implementation():
        return f"its attention is {model.config._attn_implementation}"
    ids = prompts[0][:PREFILL]
    expected = model(input_ids=torch.tensor([ids], device=model.device), logits_to_keep=1).logits[:, -1]
    try:
        with _shared_attention(model):
            shared = Shared(model, [ids, ids])
            last = torch.full((2,), ids[-1], device=model.device)
            found = shared.logits([shared.begin([ids], 2, 1)], last, torch.full_like(last, len(ids) - 1))
    except NotShared as error:
        return str(error)
    # Rounding grows with depth, to well below the square root of the precision; another attention gives O(1). Models
    # compute their norms in float32 even where the rest is in float64.
    precision = max(torch.finfo(dtype).eps for dtype in (model.dtype, torch.float32))
    if not (found - expected).norm(dim=-1).max() <= precision**0.5 * expected.norm():
        return "its logits came out different when they were shared"
    return None


class Shared:
    """The prefix of all prompts, computed once, and forward passes of rows on top of it."""

    joins = True  # rows that began at different times share a forward pass

    def __init__(self, model: PreTrainedModel, prompts: Sequence[list[int]]):
        self.model, self.layers = model, model.config.get_text_config().num_hidden_layers
        first, last = min(prompts), max(prompts)  # what these two begin with, all between them begin with
        same = [a == b for a, b in zip(first[:-1], last[:-1], strict=False)]
        common = min([*same, False].index(False), min(len(p) for p in prompts) - 1)
        self.prefix = common if common >= LEAST_PREFIX else 0
        self.common: Part | None = None
        if self.prefix:
            self.common = self._read([], [prompts[0][: self.prefix]], 0, self._zeros(1))

    def begin(self, prompts: Sequence[list[int]], n: int, most: int) -> Rows:
        """n rows a prompt, side by side, behind all of its tokens but the last; each may grow by `most`."""
        rests = [p[self.prefix : -1] for p in prompts]
        parts = [self.common.under(self._zeros(len(prompts) * n))] if self.common else []
        if any(rests):
            above = [self.common.under(self._zeros(len(prompts)))] if self.common else []
            group = torch.arange(len(prompts), device=self.model.device).repeat_interleave(n)
            parts.append(self._read(above, rests, self.prefix, group))
        return Rows(parts, len(prompts) * n, most)

    def _read(self, above: list[Part], texts: Sequence[list[int]], start: int, group: Tensor) -> Part:
        """Keys and values of texts that begin at a position, as the past of the rows of `group`."""
        lengths = torch.tensor([len(t) for t in texts], device=self.model.device)
        width, columns = int(lengths.max()), max(1, PREFILL // len(texts))
        ids = torch.tensor([t + [0] * (width - len(t)) for t in texts], device=self.model.device)
        positions = torch.arange(start, start + width, device=ids.device).expand_as(ids)
        rows = Rows(above, len(texts), width)
        for some, at in zip(ids.split(columns, 1), positions.split(columns, 1), strict=True):
            _forward(self.model, some, None, at, SharedCache([rows], self.layers))
        return rows.as_part(lengths, group)

    def _zeros(self, count: int) -> Tensor:
        return torch.zeros(count, dtype=torch.long, device=self.model.device)

    def logits(self, together: Sequence[Rows], tokens: Tensor, positions: Tensor) -> Tensor:
        """Of the token behind each row's newest, [rows] → [rows, vocabulary] in float32 at least."""
        past = SharedCache(together, self.layers)
        return _forward(self.model, tokens[:, None], None, positions[:, None], past)


class Copied:
    """Forward passes of rows with a whole cache each, of whatever kind the model needs."""

    joins = False

    def __init__(self, model: PreTrainedModel):
        self.model = model

    def begin(self, prompts: Sequence[list[int]], n: int, most: int) -> "CopiedRows":
        """As `Shared.begin`."""
        return CopiedRows(self.model, prompts, n, most)

    def logits(self, together: Sequence["CopiedRows"], tokens: Tensor, positions: Tensor) -> Tensor:
        """As `Shared.logits`."""
        sizes = [rows.count for rows in together]
        each = zip(together, tokens.split(sizes), positions.split(sizes), strict=True)
        return torch.cat([rows.logits(t, p) for rows, t, p in each])


class CopiedRows:
    """Rows in one left-padded batch with one cache; those that have finished leave it when they are a tenth."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[list[int]], n: int, most: int):
        self.model, device = model, model.device
        rests = [p[:-1] for p in prompts]
        width = max(len(r) for r in rests)
        self.padded = any(len(r) != width for r in rests)
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rests], device=device)
        self.cache = _growing_cache(model, most)
        if width:
            ids = torch.tensor([[0] * (width - len(r)) + r for r in rests], device=device)
            positions = (mask.cumsum(-1) - 1).clamp(min=0)
            _forward(model, ids, mask if self.padded else None, positions, self.cache)
            self.cache.reorder_cache(torch.arange(len(prompts), device=device).repeat_interleave(n))  # type: ignore[arg-type]
        self.mask = mask.long().repeat_interleave(n, 0)
        self.live = torch.arange(len(prompts) * n, device=device)  # where in the batch each row is

    @property
    def count(self) -> int:
        return len(self.live)

    def select(self, keep: Tensor) -> None:
        """Row i becomes what row keep[i] is."""
        self.live = self.live[keep]
        # A row that has finished costs as much as one that has not; copying the cache costs about a step.
        if 0 < len(self.live) <= 0.9 * len(self.mask):
            self.cache.reorder_cache(self.live)  # type: ignore[arg-type]
            self.mask, self.live = self.mask[self.live], torch.arange(len(self.live), device=self.live.device)

    def logits(self, tokens: Tensor, positions: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], -1)
        ids, at = (torch.zeros(len(self.mask), dtype=torch.long, device=x.device).index_copy_(0, self.live, x)
                   for x in (tokens, positions))  # fmt: skip
        mask = self.mask if self.padded else None
        return _forward(self.model, ids[:, None], mask, at[:, None], self.cache)[self.live]


def _forward(model: PreTrainedModel, input_ids: Tensor, mask: Tensor | None, position_ids: Tensor, past) -> Tensor:
    """Logits behind the last column, [rows, vocabulary], in float32 at least."""
    recurrent = "cache_params" in signature(model.forward).parameters  # Mamba's name; it masks new columns only
    if recurrent and mask is not None:
        mask = mask[:, -input_ids.shape[1] :]
    out = model(
        input_ids=input_ids,
        attention_mask=mask,
        position_ids=position_ids,
        use_cache=True,
        logits_to_keep=1,
        **{"cache_params" if recurrent else "past_key_values": past},
    )
    return out.logits[:, -1].to(at_least_float32(out.logits))


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

    def _wider(self, buffer: Tensor, needed: int) -> Tensor:
        shape = list(buffer.shape)
        shape[-2] = needed + self.room
        wider = buffer.new_empty(shape)
        wider[:, :, : self.used] = buffer[:, :, : self.used]
        return wider

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.buffers = [b[beam_idx] for b in self.buffers]
        self.keys, self.values = (b[:, :, : self.used] for b in self.buffers)


def _growing_cache(model: PreTrainedModel, room: int) -> DynamicCache:
    """A cache that grows in place for full-attention layers; others (sliding windows) keep transformers' own."""
    cache = DynamicCache(config=model.config)
    cache.layers = [GrowingLayer(min(room, 64)) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
