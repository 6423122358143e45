"""In which numbers a model is scored and trained, and what of it is trained: all weights, or LoRA adapters.

`dtype` is the type of *computation*. Full fine-tuning in bfloat16 keeps its weights in float32 and computes under
autocast: at a rate like the paper's 7e-7 an update is smaller than the distance of two bfloat16 numbers, and would be
lost. LoRA freezes the model in `dtype` and keeps its adapters in float32. The reference is scored in the same way as
the policy, so that the margin is 0 at step 0.
"""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from irpo_lib.config import Config
from irpo_lib.models import load_model


def load_for_training(name: str, config: Config) -> PreTrainedModel:
    """The model as it is scored and trained: its weights in float32, or frozen in `dtype` below LoRA adapters."""
    return load_model(name, config.dtype if config.lora_rank else "float32", config.attention)


def load_checkpoint(checkpoint: str, start: str, config: Config) -> PreTrainedModel:
    """A model folder, or a training checkpoint with adapters only, merged into what the training started from."""
    if not (Path(checkpoint) / "adapter_config.json").is_file():
        return load_model(checkpoint, config.dtype)
    from peft import PeftModel

    return merged(PeftModel.from_pretrained(load_model(start, config.dtype), checkpoint), config.dtype).eval()


def computing(config: Config, device: torch.device) -> AbstractContextManager:
    """Autocast to `dtype`, where it is not float32."""
    if config.dtype == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=getattr(torch, config.dtype))


def add_adapters(model: PreTrainedModel, config: Config) -> Any:
    """The model with LoRA adapters on all linear layers but the head; unchanged where `lora_rank` is 0."""
    if not config.lora_rank:
        return model
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear")
    return get_peft_model(model, settings)


def merged(model: Any, dtype: str) -> PreTrainedModel:
    """The plain model that is saved: adapters merged into it, weights in the storage form of `dtype`."""
    if hasattr(model, "merge_and_unload"):
        model = model.float().merge_and_unload()  # sums in float32: a bfloat16 weight would swallow a small adapter
    return model.to(getattr(torch, dtype))
