"""What a decoding loop asks of a model: prompts once for their samples, then the next token's logits for all rows.

`Shared` attends to the prompts' keys where they are, once for all samples (`shared_attention`). `opened` finds out
whether a model can have it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils import logging

from irpo_lib.fast.shared_attention import NAME, NotShared, Part, Rows, SharedCache, at_least_float32

#: Tokens of one forward pass over prompts; more cost memory and save no time.
PREFILL = 4096
#: A prefix of all prompts that is shorter is left to each of them: a part of its own costs time at every step.
LEAST_PREFIX = 32

logger = logging.get_logger(__name__)


@contextmanager
def opened(model: PreTrainedModel, prompts: Sequence[list[int]], most: int) -> Iterator["Shared | None"]:
    """What decodes prompts that grow by up to `most` tokens; None where it would not give the model's own logits."""
    reason = _why_not_shared(model, prompts, most)
    how = f"each sample has a copy of its prompt's keys, since {reason}"
    how = how if reason else "samples share their prompt's keys"
    logger.info_once(f"{type(model).__name__}: {how}")
    with nullcontext() if reason else _shared_attention(model):
        yield None if reason else Shared(model, prompts)


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
    off = (found - expected).to(at_least_float32(found))
    if not off.norm(dim=-1).max() <= precision**0.5 * expected.norm():
        return "its logits came out different when they were shared"
    return None


class Shared:
    """The prefix of all prompts, computed once, and forward passes of rows on top of it."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[list[int]]):
        self.model, self.layers = model, model.config.get_text_config().num_hidden_layers
        first, last = min(prompts), max(prompts)  # what these two begin with, all between them begin with
        same = [a == b for a, b in zip(first[:-1], last[:-1], strict=False)]
        common = min([*same, False].index(False), min(len(p) for p in prompts) - 1)
        self.prefix = 0
        self.common: list[Part] = []
        if common >= LEAST_PREFIX:
            self.common.append(self._read([first[:common]], 1))
            self.prefix = common

    def begin(self, prompts: Sequence[list[int]], n: int, most: int) -> Rows:
        """n rows a prompt, side by side, behind all of its tokens but the last; each may grow by `most`."""
        rests = [p[self.prefix : -1] for p in prompts]
        own = [self._read(rests, n)] if any(rests) else []
        count = len(prompts) * n
        return Rows(self._above(count) + own, count, most)

    def _above(self, rows: int) -> list[Part]:
        """The common prefix, where there is one, as the past of so many rows."""
        group = torch.zeros(rows, dtype=torch.long, device=self.model.device)
        return [part.under(group) for part in self.common]

    def _read(self, texts: Sequence[list[int]], n: int) -> Part:
        """Keys and values of texts behind the common prefix, each as the past of n rows."""
        lengths = torch.tensor([len(t) for t in texts], device=self.model.device)
        width, columns = int(lengths.max()), max(1, PREFILL // len(texts))
        ids = torch.tensor([t + [0] * (width - len(t)) for t in texts], device=self.model.device)
        positions = torch.arange(self.prefix, self.prefix + width, device=ids.device).expand_as(ids)
        rows = Rows(self._above(len(texts)), len(texts), width)
        for some, at in zip(ids.split(columns, 1), positions.split(columns, 1), strict=True):
            self.logits([rows], some, at)
        return rows.as_part(lengths, torch.arange(len(texts), device=ids.device).repeat_interleave(n))

    def logits(self, together: Sequence[Rows], tokens: Tensor, positions: Tensor) -> Tensor:
        """Behind each row's newest token or tokens, [rows] or [rows, new] → [rows, vocabulary]."""
        past = SharedCache(together, self.layers)
        ids, at = (x.reshape(len(x), -1) for x in (tokens, positions))
        out = self.model(input_ids=ids, position_ids=at, past_key_values=past, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1]
