"""Training in several processes: the same losses in every layout, checkpoints any layout can read, ranks that die."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import assert_same, ranks_of, run_training, start_training, wait_until
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from irpo_lib.cluster import job as jobs
from irpo_lib.cluster import launch
from irpo_lib.cluster.layout import Parallel
from irpo_lib.models.load import load_tokenizer
from irpo_lib.stages.store import read_json, read_log
from irpo_lib.terminal.errors import UserError

#: Not in `make check`: processes that train together, and what a death of one does.
pytestmark = pytest.mark.slow

#: With the micro-batches that they are tried with, which change nothing either.
LAYOUTS = {
    "ddp 2": (Parallel(ddp=2), 1),
    "fsdp 2": (Parallel(fsdp=2), 2),
    "tp 2": (Parallel(tp=2), 1),
    "tp 2, fsdp 2": (Parallel(tp=2, fsdp=2), 1),
}


@pytest.fixture
def config(twenty_steps):
    return twenty_steps


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize(("layout", "micro"), LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_trains_alike(config, scored, alone, tmp_path, layout, micro):
    log = run_training(replace(config, parallel=layout, micro_batch_size=micro), scored, tmp_path)
    assert_same(log, alone[1])
    expected, found = weights(alone[0]), weights(tmp_path)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, atol=2e-4), name


@pytest.mark.parametrize("layout", [Parallel(fsdp=2), Parallel(tp=2)], ids=str)
def test_a_model_whose_head_is_its_embedding_trains_alike(twenty_steps, scored, tmp_path, layout):
    """As mini-llama's is: one tensor, with the gradient of both, also where FSDP2 cannot halve its rows."""
    shape = AutoConfig.from_pretrained(twenty_steps.model, tie_word_embeddings=True)
    shape.vocab_size -= layout.fsdp > 1
    assert shape.vocab_size % layout.processes == (layout.fsdp > 1)
    torch.manual_seed(0)
    tied = AutoModelForCausalLM.from_config(shape)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    tied.save_pretrained(tmp_path / "tied")
    load_tokenizer(twenty_steps.model).save_pretrained(tmp_path / "tied")
    config = replace(twenty_steps, model=str(tmp_path / "tied"))
    reference = tmp_path / "reference"
    reference.mkdir()
    launch.run_work("reference", config, reference, pairs=scored[0], model=config.model)
    here = run_training(config, (scored[0], reference), tmp_path / "here")
    there = run_training(replace(config, parallel=layout), (scored[0], reference), tmp_path / "there")
    assert_same(there, here)
    expected, found = weights(tmp_path / "here"), weights(tmp_path / "there")
    assert expected.keys() == found.keys()
    assert all(torch.allclose(found[name], tensor, atol=2e-4) for name, tensor in expected.items())


def test_the_model_of_a_cut_up_training_loads_as_any_other(config, scored, tmp_path):
    config = replace(config, parallel=Parallel(tp=2, fsdp=2), dtype="bfloat16", max_steps=2)
    run_training(config, scored, tmp_path)
    folder = tmp_path / "model"
    assert {t.dtype for t in weights(tmp_path).values()} == {torch.bfloat16}
    loaded, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.config.use_cache
    assert loaded.dtype == torch.bfloat16
    written, before = read_json(folder / "config.json"), read_json(Path(config.model) / "config.json")
    assert "distributed_config" not in written
    assert written["architectures"] == before["architectures"] == ["LlamaForCausalLM"]
    assert load_tokenizer(str(folder)).eos_token_id == load_tokenizer(config.model).eos_token_id


def test_reference_log_probs_are_the_same_in_a_layout(config, scored, tmp_path):
    config = replace(config, parallel=Parallel(tp=2, fsdp=2))
    launch.run_work("reference", config, tmp_path, pairs=scored[0], model=config.model)
    found, expected = read_json(tmp_path / "logps.json"), read_json(scored[1] / "logps.json")
    assert list(found) == list(expected)
    assert list(found.values()) == pytest.approx(list(expected.values()), abs=1e-4)


# --- going on ---


def copy_checkpoint(source: Path, target: Path, step: int) -> None:
    """Marks the copy, so that a log shows it was taken over from this checkpoint."""
    copied = target / "checkpoints" / f"checkpoint-{step}"
    shutil.copytree(source / "checkpoints" / f"checkpoint-{step}", copied)
    log = read_json(copied / "log.json")
    log[0]["loss"] = 1234.0
    (copied / "log.json").write_text(json.dumps(log))


def test_a_training_goes_on_in_another_layout(config, scored, alone, tmp_path):
    copy_checkpoint(alone[0], tmp_path / "there", 10)
    there = replace(config, parallel=Parallel(tp=2, fsdp=2))
    log = run_training(there, scored, tmp_path / "there", keep_checkpoints=True)
    assert log[0]["loss"] == 1234.0
    assert_same(log[1:], alone[1][1:])
    copy_checkpoint(tmp_path / "there", tmp_path / "back", 15)
    log = run_training(config, scored, tmp_path / "back")
    assert log[0]["loss"] == 1234.0
    assert_same(log[1:], alone[1][1:])


@pytest.mark.parametrize("moment", ["in a step", "in a save"])
def test_a_rank_that_dies_ends_the_run_which_goes_on_from_its_last_checkpoint(config, scored, alone, tmp_path, moment):
    config, checkpoints = replace(config, parallel=Parallel(fsdp=2)), tmp_path / "checkpoints"
    with start_training(config, scored, tmp_path) as process:
        if moment == "in a step":
            wait_until(lambda: (checkpoints / "checkpoint-5" / "log.json").is_file(), process)
        else:
            wait_until(lambda: (checkpoints / "checkpoint-10").is_dir(), process)
        os.kill(ranks_of(tmp_path)[-1], signal.SIGKILL)
        said = process.communicate(timeout=90)[1]
    assert process.returncode == 1
    assert "SIGKILL" in said or "Signal 9" in said
    assert not ranks_of(tmp_path)
    assert not (tmp_path / "model").exists()
    assert_same(run_training(config, scored, tmp_path), alone[1])


@pytest.mark.parametrize("who", ["the notebook", "the launcher"])
def test_ranks_die_with_what_started_them(config, scored, alone, tmp_path, who):
    config = replace(config, parallel=Parallel(fsdp=2))
    with start_training(config, scored, tmp_path) as process:
        wait_until(lambda: (tmp_path / "checkpoints" / "checkpoint-5" / "log.json").is_file(), process)
        victim = process.pid if who == "the notebook" else int(
            Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0]
        )  # fmt: skip
        os.kill(victim, signal.SIGKILL)
        process.communicate(timeout=60)
    deadline = time.monotonic() + 40
    while ranks_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not ranks_of(tmp_path)
    assert_same(run_training(config, scored, tmp_path), alone[1])


# --- what is checked before a step is taken ---


def test_a_wrong_number_of_processes_is_refused(config, scored, tmp_path):
    config = replace(config, parallel=Parallel(fsdp=4))
    job = tmp_path / "job.json"
    arguments = {"folder": tmp_path, "pairs": scored[0], "model": config.model}
    jobs.write_job(job, "reference", config, arguments)
    two = [*launch.torchrun(2), "--standalone", "-m", "irpo_lib.cluster.job", str(job)]
    for command, started in ((two, 2), ([sys.executable, "-m", "irpo_lib.cluster.job", str(job)], 1)):
        said = subprocess.run(command, capture_output=True, text=True).stderr
        assert f"needs 4 processes, but {started} were started" in said


def test_two_agents_find_each_other(config, scored, alone, tmp_path):
    """As two nodes do under Slurm: a launcher on each, a c10d rendezvous."""
    config = replace(config, parallel=Parallel(tp=1, fsdp=2))
    job = tmp_path / "job.json"
    arguments = {"folder": tmp_path, "pairs": scored[0], "reference": scored[1], "model": config.model, "iteration": 1,
                 "steps": config.max_steps}  # fmt: skip
    jobs.write_job(job, "train", config, arguments)
    agents = []
    for node in range(2):
        rendezvous = ["--nnodes=2", "--rdzv-backend=c10d", "--rdzv-id=1", "--rdzv-endpoint=127.0.0.1:29417",
                      f"--rdzv-conf=is_host={'true' if node == 0 else 'false'}"]  # fmt: skip
        command = [*launch.torchrun(1), *rendezvous, "-m", "irpo_lib.cluster.job", str(job)]
        agents.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
    assert [a.wait(timeout=120) for a in agents] == [0, 0]
    assert_same(read_log(tmp_path / "log.csv"), alone[1])


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_pairs(config, scored, tmp_path):
    config = replace(config, learning_rate=1e30, parallel=Parallel(fsdp=2))
    with pytest.raises(UserError, match=r"step \d+: the loss is (nan|inf), with pairs of the problems p\d+"):
        run_training(config, scored, tmp_path)
    assert not (tmp_path / "model").exists()
