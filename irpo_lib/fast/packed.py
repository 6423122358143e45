"""Weights in the order in which a CPU's bfloat16 products read them, for a model that is only sampled from.

torch brings a weight into that order anew in each product. With the few rows of a decoding step, that takes nearly as
long as the product itself.
"""

from functools import partial

import torch
from transformers import PreTrainedModel


def packed(model: PreTrainedModel, rows: int) -> PreTrainedModel:
    """The model, with a second copy of its linear maps' weights laid out for so many rows; it gives the same numbers.

    Models in other types or on a GPU stay as they are.
    """
    mkldnn = torch.ops.mkldnn
    if model.device.type == "cpu" and model.dtype == torch.bfloat16 and mkldnn._is_mkldnn_bf16_supported():
        for module in model.modules():
            if type(module) is torch.nn.Linear:
                weight = mkldnn._reorder_linear_weight(module.weight.detach(), rows)
                module.forward = partial(_linear, weight, module.bias)  # type: ignore[method-assign]
    return model


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, states: torch.Tensor) -> torch.Tensor:
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], "")
