"""LoRA and reduced precision: what is trained, what is saved, and that the reference is scored as the policy is."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import random_pairs
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from irpo_lib import training
from irpo_lib.config import load_config
from irpo_lib.engines import trl
from irpo_lib.iteration import Experiment
from irpo_lib.logprobs import score
from irpo_lib.models.device import fast_dtype
from irpo_lib.models.load import load_model, load_tokenizer, resolve_model
from irpo_lib.models.weights import add_adapters, computing, load_for_training
from irpo_lib.pairs import ScoredPair
from irpo_lib.stages.store import read_json, read_log, read_records
from irpo_lib.terminal.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
LORA = {"lora_rank": 4, "lora_alpha": 16}


def scored(config, pairs):
    """The pairs with the reference log-probs that the `reference` stage would give them."""
    model = load_for_training(config.model, config)
    responses = [(s.pair.prompt_ids, r) for s in pairs for r in (s.pair.chosen_ids, s.pair.rejected_ids)]
    with computing(config, model.device):
        logps = score(model, responses)
    return [ScoredPair(s.pair, logps[2 * i], logps[2 * i + 1]) for i, s in enumerate(pairs)]


def train(config, folder, engine=training, **options):
    pairs = scored(config, random_pairs(24))
    model, tokenizer = load_for_training(config.model, config), load_tokenizer(config.model)
    engine.Trainer(model, tokenizer, pairs, config, config.max_steps, 7, folder, **options).fit()
    return read_log(folder / "log.csv")


def tensors(folder):
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture
def config(small_config):
    return replace(
        small_config,
        learning_rate=1e-3,
        warmup_steps=0,
        batch_size=4,
        micro_batch_size=2,
        max_steps=8,
        checkpoint_every=4,
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("lora", [{}, LORA], ids=["full", "lora"])
def test_the_reference_is_scored_as_the_policy_is(config, tmp_path, dtype, lora):
    config = replace(config, dtype=dtype, max_steps=24, **lora)  # each pair four times
    log = train(config, tmp_path)
    assert log[0]["margins"] == pytest.approx(0, abs=1e-4 if dtype == "float32" else 0.1)
    assert log[0]["dpo"] == pytest.approx(math.log(2), abs=1e-4 if dtype == "float32" else 0.05)
    first, last = (sum(row["loss"] for row in rows) for rows in (log[:6], log[-6:]))
    assert last < first
    assert {t.dtype for t in tensors(tmp_path).values()} == {getattr(torch, dtype)}


def test_the_margin_is_0_in_bfloat16_only_because_both_are_computed_alike(config):
    """Scored in float32, the reference would be off by more than the step-0 check allows for its own batches."""
    low = replace(config, dtype="bfloat16")
    pairs = random_pairs(24)
    apart = [
        abs(a.reference_chosen_logps - b.reference_chosen_logps)
        for a, b in zip(scored(config, pairs), scored(low, pairs), strict=True)
    ]
    assert max(apart) > 0.01


def test_full_fine_tuning_keeps_float32_weights_and_lora_freezes_the_model_as_it_is(config):
    assert load_for_training(config.model, replace(config, dtype="bfloat16")).dtype == torch.float32
    assert load_for_training(config.model, replace(config, dtype="bfloat16", **LORA)).dtype == torch.bfloat16


def test_lora_trains_the_linear_layers_and_is_merged_into_a_plain_model(config, tmp_path):
    config = replace(config, **LORA)
    train(config, tmp_path, keep_checkpoints=True)
    before, after = load_file(f"{config.model}/model.safetensors"), tensors(tmp_path)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {n for n in before if "_proj" in n}
    assert not list((tmp_path / "model").glob("adapter*"))
    (checkpoint,) = (tmp_path / "checkpoints" / "checkpoint-8").glob("*.safetensors")
    adapters = load_file(checkpoint)
    assert {n.partition(".")[0] for n in adapters} == {"weight", "exp_avg", "exp_avg_sq"}
    assert all("lora_" in n for n in adapters)
    for name in changed:
        module = f"weight.base_model.model.{name.removesuffix('.weight')}"
        a, b = (adapters[f"{module}.lora_{side}.default.weight"].double() for side in "AB")
        scale = LORA["lora_alpha"] / LORA["lora_rank"]
        assert torch.allclose(after[name].double(), before[name].double() + scale * b @ a, atol=1e-6), name
    for step in (4, 8):
        kept = AutoModelForCausalLM.from_pretrained(tmp_path / f"model-{step}", dtype=torch.float32)
        assert not hasattr(kept, "peft_config")
    last = load_file(tmp_path / "model-8" / "model.safetensors")
    assert all(torch.equal(last[name], tensor) for name, tensor in after.items())


def test_lora_resumes_from_its_checkpoint(config, tmp_path):
    config = replace(config, **LORA)
    log = train(config, tmp_path / "whole", keep_checkpoints=True)
    shutil.copytree(tmp_path / "whole/checkpoints/checkpoint-4", tmp_path / "cut/checkpoints/checkpoint-4")
    state = tmp_path / "cut/checkpoints/checkpoint-4/log.json"
    marked = read_json(state)
    marked[0]["loss"] = 1234.0
    state.write_text(json.dumps(marked))
    resumed = train(config, tmp_path / "cut")
    assert resumed[0]["loss"] == 1234.0
    assert resumed[1:] == log[1:]
    for name, tensor in tensors(tmp_path / "whole").items():
        assert torch.equal(tensor, tensors(tmp_path / "cut")[name]), name


def test_both_engines_train_adapters_alike(config, tmp_path):
    config = replace(config, micro_batch_size=1, **LORA)
    ours, theirs = train(config, tmp_path / "irpo"), train(config, tmp_path / "trl", engine=trl)
    assert [r["loss"] for r in ours[:1]] == pytest.approx([r["loss"] for r in theirs[:1]], abs=1e-4)
    assert [r["chosen_rewards"] for r in theirs][-1] != 0


def test_gradient_checkpointing_changes_no_loss(config, tmp_path):
    plain = train(config, tmp_path / "plain")
    saving = train(replace(config, gradient_checkpointing=True), tmp_path / "saving")
    assert [r["loss"] for r in saving] == pytest.approx([r["loss"] for r in plain], abs=1e-5)


def test_attention_implementations_agree(config):
    pairs = random_pairs(10)
    eager, *others = (scored(replace(config, attention=a), pairs) for a in ("eager", "sdpa", "prefix_tree"))
    for other in others:
        for a, b in zip(eager, other, strict=True):
            assert a.reference_chosen_logps == pytest.approx(b.reference_chosen_logps, abs=1e-3)


@pytest.mark.slow  # a loop with LoRA
def test_the_loop_with_lora_and_a_chosen_checkpoint(small_config, tmp_path):
    config = replace(
        small_config, model="mini-llama", iterations=2, temperatures=(1.0, 1.0), max_new_tokens=160, samples=3,
        train_problems=8, majority_iterations=(), select_checkpoint=True, held_out=2, probe_every=2, **LORA,
    )  # fmt: skip
    experiment = Experiment(config, tmp_path)
    experiment.run()
    m1, m2 = (load_model(experiment.model(t), "float32") for t in (1, 2))
    assert any(not torch.equal(a, b) for a, b in zip(m1.parameters(), m2.parameters(), strict=True))
    from irpo_lib.records import PreferencePair

    pairs = read_records(experiment.pair(2) / "pairs.parquet", PreferencePair)
    eos = load_tokenizer("mini-llama").eos_token_id
    bos = load_tokenizer("mini-llama").bos_token_id
    for p in pairs:
        assert p.prompt_ids.count(bos) == 1
        assert p.chosen_ids.count(eos) == 1
        assert p.chosen_ids[-1] == eos


@pytest.mark.filterwarnings("error:.*autograd kernel was not registered")
def test_qlora_trains_adapters_on_4_bits_and_merges_them_into_the_original_weights(config, tmp_path):
    pytest.importorskip("bitsandbytes")
    config = replace(config, model="mini-llama", lora_quantized=True, **LORA)  # blocks of 64 need its width
    frozen = load_for_training(config.model, config)
    assert {p.dtype for n, p in frozen.named_parameters() if "_proj" in n} == {torch.uint8}
    log = train(config, tmp_path, keep_checkpoints=True)
    assert log[0]["margins"] == pytest.approx(0, abs=1e-4)
    before, after = load_file(f"{resolve_model(config.model)}/model.safetensors"), tensors(tmp_path)
    assert before.keys() == after.keys()
    (checkpoint,) = (tmp_path / "checkpoints" / "checkpoint-8").glob("*.safetensors")
    adapters = load_file(checkpoint)
    for name in before:
        module = f"weight.base_model.model.{name.removesuffix('.weight')}"
        if "_proj" not in name:
            assert torch.equal(after[name], before[name]), name
            continue
        a, b = (adapters[f"{module}.lora_{side}.default.weight"].double() for side in "AB")
        scale = LORA["lora_alpha"] / LORA["lora_rank"]
        assert torch.allclose(after[name].double(), before[name].double() + scale * b @ a, atol=1e-6), name
    chosen = [(s.pair.prompt_ids, s.pair.chosen_ids) for s in random_pairs(24)]
    untrained, trained = (score(load_model(m, "float32"), chosen) for m in (config.model, str(tmp_path / "model")))
    assert sum(trained.values()) > sum(untrained.values())


def test_the_gradients_of_qlora_are_those_of_the_model_with_its_rounded_weights(config):
    """Also after it has been scored, in evaluation mode and without gradients, as the probe does."""
    functional = pytest.importorskip("bitsandbytes.functional")
    config = replace(config, model="mini-llama", lora_quantized=True, **LORA)
    pairs = scored(config, random_pairs(4))
    rounded = load_model(config.model, "float32")
    quantized = load_for_training(config.model, config)
    with torch.no_grad():
        for name, p in rounded.named_parameters():
            q = quantized.get_parameter(name)
            p.copy_(functional.dequantize_4bit(q.data, q.quant_state) if "_proj" in name else q)
    gradients = []
    for model in (quantized, rounded):
        score(model, [(s.pair.prompt_ids, s.pair.chosen_ids) for s in pairs])
        torch.manual_seed(0)
        model = add_adapters(training.prepared(model, config), config)
        training.irpo_loss(*training.pair_logps(model, pairs), config.beta, config.alpha).loss.mean().backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.requires_grad})
    quantized_gradients, expected = gradients
    assert quantized_gradients.keys() == expected.keys()
    for name, gradient in quantized_gradients.items():
        assert (gradient - expected[name]).norm() < 1e-4 * max(1e-3, expected[name].norm()), name


def test_qlora_needs_adapters(config):
    with pytest.raises(UserError, match="lora_quantized=true needs lora_rank above 0"):
        replace(config, lora_quantized=True)


@pytest.mark.skipif(torch.cuda.is_available() or not Path("/proc/cpuinfo").is_file(), reason="asks Linux about its CPU")
def test_dtype_auto_is_bfloat16_on_a_cpu_that_has_instructions_for_it(capsys):
    fast_dtype.cache_clear()
    flags = Path("/proc/cpuinfo").read_text().split()
    expected = "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(flags) else "float32"
    assert load_config("mini", dtype="auto").dtype == load_config("mini", dtype="auto").dtype == expected
    assert capsys.readouterr().out.count(f"dtype auto: {expected}, since") == 1


def test_dtype_auto_is_not_for_work_on_other_machines():
    with pytest.raises(UserError, match="dtype=auto looks at this machine"):
        load_config("mini", dtype="auto", launcher="slurm")
