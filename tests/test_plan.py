"""The computed plan: parameters against real shapes, activations against what autograd really keeps."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from irpo_lib.config import load_config
from irpo_lib.errors import UserError
from irpo_lib.models import load_model
from irpo_lib.plan import GIB, KNOWN, architecture, plan, plan_table

SHAPES = {
    "Qwen/Qwen2.5-0.5B-Instruct": Qwen2Config(
        num_hidden_layers=24, hidden_size=896, num_attention_heads=14, num_key_value_heads=2, intermediate_size=4864,
        vocab_size=151936, tie_word_embeddings=True),
    "meta-llama/Llama-2-7b-chat-hf": LlamaConfig(
        num_hidden_layers=32, hidden_size=4096, num_attention_heads=32, intermediate_size=11008, vocab_size=32000),
    "meta-llama/Llama-2-70b-chat-hf": LlamaConfig(
        num_hidden_layers=80, hidden_size=8192, num_attention_heads=64, num_key_value_heads=8, intermediate_size=28672,
        vocab_size=32000),
}  # fmt: skip


def counted(config) -> int:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).num_parameters()


@pytest.mark.parametrize("name", list(KNOWN))
def test_parameters_are_those_of_the_real_shapes(name):
    assert KNOWN[name].parameters == counted(SHAPES[name])


def test_parameters_of_a_folder(tiny_model):
    for folder in (tiny_model, "mini-llama"):
        assert architecture(folder).parameters == load_model(folder, "float32").num_parameters()


def test_lora_parameters_are_those_that_peft_adds(tiny_model):
    from irpo_lib.weights import add_adapters

    config = load_config("mini", model=tiny_model, lora_rank=3)
    model = add_adapters(load_model(tiny_model, "float32"), config)
    added = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert architecture(tiny_model).lora_parameters(3) == added


def test_activations_are_of_the_size_that_autograd_keeps():
    """Within a factor of two, in float32, for a Llama of realistic proportions; logits are left out."""
    settings = LlamaConfig(num_hidden_layers=3, hidden_size=128, num_attention_heads=4, intermediate_size=344,
                           vocab_size=64, max_position_embeddings=256)  # fmt: skip
    model, kept = AutoModelForCausalLM.from_config(settings), {}
    parameters = {p.data_ptr() for p in model.parameters()}

    def keep(tensor):
        if tensor.data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    b, s = 8, 64
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        model(input_ids=torch.zeros(b, s, dtype=torch.long), use_cache=False)
    # the formula of the module's docstring, doubled for float32
    expected = 3 * b * s * (14 * 128 + 2 * 32 * 12 + 8 * 344) * 2
    assert expected / 2 < sum(kept.values()) < expected * 2


@pytest.mark.parametrize("preset", ["mini", "qwen-0.5b", "llama-2-7b-lora", "llama-2-70b"])
def test_every_preset_has_a_plan(preset):
    for task in ("gsm8k", "arc", "math"):
        config = load_config(preset, task)
        sizes = dict(plan(config))
        assert all(size > 0 for size in sizes.values())
        assert "training, in all" in plan_table(config)


def test_llama_2_70b_needs_more_than_any_one_gpu_and_qwen_fits_on_one():
    total = {p: sum(size for what, size in plan(load_config(p)) if what.startswith("training"))
             for p in ("llama-2-70b", "llama-2-7b-lora", "qwen-0.5b")}  # fmt: skip
    assert total["llama-2-70b"] > 16 * 68.9e9 / GIB  # 4 bytes each for weights and gradients, 8 for AdamW
    assert total["llama-2-7b-lora"] < 40
    assert total["qwen-0.5b"] < 40


def test_a_model_without_a_known_architecture_is_one_sentence():
    with pytest.raises(UserError, match=r"no plan for someone/something: give a folder with a config\.json"):
        plan(load_config("mini", model="someone/something"))
