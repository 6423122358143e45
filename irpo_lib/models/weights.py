"""In which numbers a model is scored and trained, and what of it is trained: all weights, or LoRA adapters.

`dtype` is the type of *computation*. Full fine-tuning in bfloat16 keeps its weights in float32 and computes under
autocast: at a rate like the paper's 7e-7 an update is smaller than the distance of two bfloat16 numbers, and would be
lost. LoRA freezes the model in `dtype`, QLoRA in 4 bits, and keeps its adapters in float32. The reference is scored in
the same way as the policy, so that the margin is 0 at step 0.
"""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers import PreTrainedModel

from irpo_lib.config import Config
from irpo_lib.fast.predict import choose_path
from irpo_lib.fast.tree_attention import NAME as PREFIX_TREE
from irpo_lib.models.load import load_model
from irpo_lib.models.parallel import distributed_config, share_tied_pieces


def load_for_training(name: str, config: Config) -> PreTrainedModel:
    """The model as it is scored and trained: its weights in float32, or frozen in `dtype` below LoRA adapters."""
    dtype = config.dtype if config.lora_rank else "float32"
    attention = "sdpa" if config.attention == PREFIX_TREE else config.attention
    model = load_model(name, dtype, attention, distributed_config(config), config.lora_quantized)
    share_tied_pieces(model)
    return choose_path(model, config.attention)


def computing(config: Config, device: torch.device) -> AbstractContextManager:
    """Autocast to `dtype`, where it is not float32; FSDP2 has a mixed precision of its own."""
    if config.dtype == "float32" or config.parallel.fsdp > 1:
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, config.dtype))


def prepared(model: PreTrainedModel, config: Config) -> PreTrainedModel:
    """The model in training mode."""
    model.config.use_cache = False
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def add_adapters(model: PreTrainedModel, config: Config) -> Any:
    """The model with LoRA adapters on all linear layers but the head; unchanged where `lora_rank` is 0."""
    if not config.lora_rank:
        return model
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear")
    return get_peft_model(model, settings)


def merged_copy(model: Any, config: Config) -> PreTrainedModel:
    """The plain model that is saved, a copy: adapters merged into it, weights in the storage form of `dtype`.

    With QLoRA they are merged into the weights as they were before they were rounded to 4 bits.
    """
    plain = _adapters_on_original(model, config) if config.lora_quantized else copy.deepcopy(model).cpu()
    if hasattr(plain, "merge_and_unload"):
        plain = plain.float().merge_and_unload()  # sums in float32: a bfloat16 weight would swallow a small adapter
    return plain.to(getattr(torch, config.dtype))


def _adapters_on_original(model: Any, config: Config) -> Any:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    original = load_model(model.peft_config["default"].base_model_name_or_path, config.dtype).cpu()
    plain = add_adapters(original, config)
    set_peft_model_state_dict(plain, get_peft_model_state_dict(model))
    return plain
