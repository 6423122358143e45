"""The computed plan: parameters against real shapes, memory against measured peaks, hours against worked numbers."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from irpo_lib.cluster.architecture import KNOWN, Architecture, architecture
from irpo_lib.cluster.hours import hours
from irpo_lib.cluster.launch import torchrun
from irpo_lib.cluster.layout import Parallel
from irpo_lib.cluster.plan import GIB, GPUS, needed, plan, plan_table, training_sizes
from irpo_lib.config import DATA, load_config
from irpo_lib.models.load import load_model
from irpo_lib.terminal.cli import main
from irpo_lib.terminal.errors import UserError

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
SHAPES["Qwen/Qwen2.5-Coder-0.5B-Instruct"] = SHAPES["Qwen/Qwen2.5-0.5B-Instruct"]


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
    from irpo_lib.models.weights import add_adapters

    config = load_config("mini", model=tiny_model, lora_rank=3)
    model = add_adapters(load_model(tiny_model, "float32"), config)
    added = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert architecture(tiny_model).lora_parameters(3) == added


@pytest.fixture(scope="module")
def larger_model(tmp_path_factory):
    """26 million parameters: large enough for its tensors to be what memory is used for."""
    folder = tmp_path_factory.mktemp("larger")
    shape = LlamaConfig(vocab_size=8192, hidden_size=512, intermediate_size=1376, num_hidden_layers=6,
                        num_attention_heads=8, num_key_value_heads=4)  # fmt: skip
    AutoModelForCausalLM.from_config(shape).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DATA / "mini-llama" / name, folder)
    return str(folder)


@pytest.mark.parametrize(
    ("layout", "checkpointing"),
    [(Parallel(), True), (Parallel(tp=2, fsdp=2), False)],
    ids=["one process, checkpointing", "tp 2, fsdp 2"],
)
@pytest.mark.slow  # memory of real trainings
def test_the_computed_peak_is_within_a_tenth_of_the_measured_one(larger_model, tmp_path, layout, checkpointing):
    config = load_config(
        "mini", model=larger_model, parallel=asdict(layout), batch_size=4, micro_batch_size=2, max_length=256,
        gradient_checkpointing=checkpointing,
    )  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(asdict(config)))
    script = [str(Path(__file__).with_name("measure_memory.py")), str(tmp_path / "config.json")]
    command = [sys.executable, *script]
    if layout.processes > 1:
        command = [*torchrun(layout.processes), "--standalone", *script]
    # Freed blocks go back to the system at once, so that resident memory is live memory.
    environment = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stderr[-2000:]
    measured = int(done.stdout.split("peak: ")[1].split()[0])
    computed = sum(training_sizes(config, architecture(larger_model)).values())
    assert computed == pytest.approx(measured, rel=0.1)


def test_a_small_model_worked_by_hand():
    """h 4, one layer, 2 heads of 2 with one key-value head, MLP 6, 10 words: 16+8+8+16+72 = 120 a layer, 2 norms of 4,
    80 in embedding and head, the last norm of 4."""
    a = Architecture(1, 4, 2, 1, 2, 6, 10)
    assert a.block == 4 * 4 + 2 * 4 * 2 + 4 * 4 + 3 * 4 * 6 == 120
    assert a.parameters == 120 + 8 + 80 + 4
    config = load_config("mini", batch_size=4, micro_batch_size=1, max_length=5, parallel={"tp": 2, "fsdp": 2})
    sizes = training_sizes(config, a)
    here = ((120 + 40) / 2 + (8 + 40 + 4)) / 2
    assert sizes["training: weights"] == 4 * here
    assert sizes["training: AdamW"] == 8 * here
    assert sizes["training: weights put together"] == 4 * (2 * 60 + 20)
    assert sizes["training: activations of 2 sequences of 5 tokens"] == 4 * 10 * (28 + (2 * 4 + 24) / 2)
    assert sizes["training: logits and their gradient"] == 8 * 10 * 10


def test_the_papers_layout_fits_and_one_that_keeps_layers_whole_does_not():
    """Simulated with fake tensors, the first took 27.7 GiB at 2048 tokens; nothing of it is in the second twice."""
    config = load_config("llama-2-70b")
    assert 24 < needed(config) < 34
    assert "A100-80GB, of which 90% are 67.1 GiB: fits" in plan_table(config, GPUS["A100-80GB"])
    wide = load_config("llama-2-70b", parallel={"fsdp": 16}, nodes=2, micro_batch_size=1)
    assert needed(wide) > 67.1
    assert "does not fit" in plan_table(wide, GPUS["A100-80GB"])


def test_hours_of_the_papers_training_are_what_its_flops_take():
    """8 * 69e9 parameters * 5000 steps * 16 pairs * 2 * 320 tokens * 2 runs (§ 3.1's choice of a checkpoint, then all)
    at 40 % of 64 times 312e12 FLOP/s."""
    train = next(s for s in hours(load_config("llama-2-70b"), GPUS["A100-80GB"]) if s.stage == "train")
    assert train.hours == pytest.approx(8 * 68.98e9 * 5000 * 16 * 640 * 2 / (64 * 0.4 * 312e12) / 3600, rel=0.01)
    assert train.gpu_hours == pytest.approx(64 * train.hours)


def test_decoding_takes_at_least_as_long_as_reading_the_weights():
    for preset, name in (("llama-2-70b", "A100-80GB"), ("llama-2-70b", "V100-32GB"), ("qwen-0.5b", "L4-24GB")):
        config, gpu = load_config(preset), GPUS[name]
        a = architecture(config.model)
        generate = next(s for s in hours(config, gpu) if s.stage == "generate")
        tokens = 7473 * config.samples * 200 / config.nodes / 512
        assert generate.hours * 3600 > tokens * a.parameters * 2 / config.generation_tp / gpu.bandwidth


def test_hours_count_votes_only_where_there_are_any(tmp_path):
    path = tmp_path / "judged.py"
    path.write_text("""from irpo_lib.tasks import Task
task = Task("judged", lambda split: [], lambda problem: "", reward=lambda response, problem: 1.0)
""")
    gpu = GPUS["A100-80GB"]
    assert "vote" in [s.stage for s in hours(load_config("mini"), gpu)]
    for config in (load_config("mini", str(path)), load_config("mini", majority_iterations=[])):
        assert [s.stage for s in hours(config, gpu)] == ["generate", "reference", "train", "evaluate"]


def test_the_command_prints_memory_hours_and_cost(capsys):
    assert main(["plan", "--preset", "llama-2-70b", "--gpus", "H100-80GB", "--price", "3"]) == 0
    said = capsys.readouterr().out
    assert "training, in all" in said
    assert "H100-80GB, of which" in said
    assert "at $3.00 a GPU-hour" in said
    assert main(["plan", "--gpus", "H100"]) == 1
    assert "unknown GPU 'H100'; did you mean 'H100-80GB'?" in capsys.readouterr().err


@pytest.mark.parametrize("preset", ["mini", "laptop-0.5b", "qwen-0.5b", "llama-2-7b-lora", "llama-2-70b"])
def test_every_preset_has_a_plan(preset):
    for task in ("gsm8k", "arc", "math"):
        config = load_config(preset, task)
        assert all(size > 0 for sizes in plan(config).values() for size in sizes.values())
        assert "training, in all" in plan_table(config)


def test_llama_2_70b_needs_more_than_any_one_gpu_and_qwen_fits_on_one():
    alone = {"parallel": {}, "nodes": 1}
    presets = ("llama-2-70b", "llama-2-7b-lora", "qwen-0.5b")
    total = {p: sum(plan(load_config(p, **alone))["training"].values()) for p in presets}
    assert total["llama-2-70b"] > 16 * 68.9e9 / GIB  # 4 bytes each for weights and gradients, 8 for AdamW
    assert total["llama-2-7b-lora"] < 40
    assert total["qwen-0.5b"] < 40


def test_a_model_without_a_known_architecture_is_one_sentence():
    with pytest.raises(UserError, match=r"no plan for someone/something: give a folder with a config\.json"):
        plan(load_config("mini", model="someone/something"))


def test_an_iteration_on_two_cores_takes_about_two_hours():
    """By hand: 3 passes of 75 steps of 16 pairs of 640 tokens, at 55 % of 945 GFLOP/s, are 1.2 hours of them."""
    stages = hours(load_config("laptop-0.5b"), GPUS["CPU-2-cores"])
    train = next(s for s in stages if s.stage == "train")
    assert train.hours == pytest.approx(3 * 75 * 16 * 640 * 2 * 0.494e9 / (0.55 * 945e9) / 3600, rel=1e-2)
    assert sum(s.hours for s in stages) < 2.2
