"""What a user can get wrong: one sentence on stderr, exit status 1, and nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from helpers import RUN_STAGE

import irpo_lib.tasks.mini
from irpo_lib import generation
from irpo_lib.config import DATA, PRESETS, load_config
from irpo_lib.iteration import Experiment
from irpo_lib.models.load import load_model, load_tokenizer, model_hash
from irpo_lib.records import Problem
from irpo_lib.stages.store import write_records
from irpo_lib.tasks import get_task, gsm8k, read_split
from irpo_lib.tasks.jsonl import read_problems
from irpo_lib.terminal.cli import main
from irpo_lib.terminal.errors import UserError


def one_sentence(stderr: str) -> str:
    assert stderr.startswith("irpo: ")
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    return stderr


@pytest.fixture
def fails(tmp_path, capfd):
    """Runs `irpo run` with some arguments, and returns its one sentence; nothing may be left of the run folder."""

    def run(*arguments: str) -> str:
        run_dir = tmp_path / "run"
        assert main(["run", "--run-dir", str(run_dir), *arguments]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert not run_dir.exists()
        return one_sentence(err)

    return run


# --- settings ---


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--preset", "minni"], ["unknown preset 'minni'", "did you mean 'mini'?"]),
        (["--preset", "xyzzy"], ["unknown preset 'xyzzy'", "known are", "mini"]),
        (["--preset", "none.yaml"], ["none.yaml", "does not exist"]),
        (["--task", "gsm8k-mimi"], ["no task 'gsm8k-mimi'", "did you mean 'gsm8k-mini'?"]),
        (["--set", "task=arc-nimi"], ["no task 'arc-nimi'", "did you mean 'arc-mini'?"]),
        (["--set", "task=[1]"], ["no task '[1]'"]),
        (["--set", "betta=0.3"], ["unknown key 'betta'", "did you mean 'beta'?"]),
        (["--set", "preset=mini"], ["unknown key 'preset'"]),
        (["--set", "=3"], ["unknown key ''"]),
        (["--set", "beta"], ["--set beta", "key=value"]),
        (["--set", "beta=["], ["--set beta=[", "not valid YAML"]),
        (["--set", "beta=high"], ["beta='high'", "must be float"]),
        (["--set", "beta=true"], ["beta=True", "must be float"]),
        (["--set", "beta=0"], ["beta=0.0", "above 0"]),
        (["--set", "beta=.nan"], ["beta=nan", "above 0"]),
        (["--set", "beta=.inf"], ["beta=inf", "finite"]),
        (["--set", "alpha=-1"], ["alpha=-1.0", "0 or more"]),
        (["--set", "samples=2.5"], ["samples=2.5", "must be int"]),
        (["--set", "samples=.inf"], ["samples=inf", "must be int"]),
        (["--set", "samples=0"], ["samples=0", "1 or more"]),
        (["--set", "seed=null"], ["seed=None", "must be int"]),
        (["--set", "select_checkpoint=1"], ["select_checkpoint=1", "must be bool"]),
        (["--set", "dtype=float8"], ["dtype='float8'", "one of float32, bfloat16, float16"]),
        (["--set", "engine=vlm"], ["engine='vlm'", "one of"]),
        (["--set", "top_p=1.5"], ["top_p=1.5", "at most 1"]),
        (["--set", "train_problems=0"], ["train_problems=0", "null for all"]),
        (["--set", "temperatures=0.8"], ["temperatures=0.8", "must be tuple"]),
        (["--set", "temperatures='12'"], ["temperatures='12'", "must be tuple"]),
        (
            ["--set", "iterations=4", "--set", "temperatures=[0.8]"],
            ["temperatures=[0.8] has 1 values for iterations=4"],
        ),
        (["--set", "temperatures=[1, 1, 1, 0]"], ["temperatures=", "above 0"]),
        (["--set", "majority_iterations=[0.5]"], ["majority_iterations=0.5", "must be int"]),
        (["--set", "batch_size=16", "--set", "micro_batch_size=5"], ["batch_size=16", "micro_batch_size=5"]),
        (["--set", "alpha=0", "--set", "dpo_weight=0"], ["alpha=0", "dpo_weight=0", "no loss"]),
        (["--set", "select_checkpoint=true", "--set", "held_out=0"], ["select_checkpoint=true", "held_out"]),
    ],
)
def test_settings(fails, arguments, parts):
    message = fails(*arguments)
    for part in parts:
        assert part in message


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "key: value"),
        ("- beta", "key: value"),
        ("beta: [", "not valid YAML"),
        ("task: gsm8k-mini\nper_task: {gsm8k-mini: null}", "per_task"),
        ("task: gsm8k-mini\nper_task: {gsm8k-mini: {}}", "these keys are missing: alpha, attention, batch_size"),
        ("task: gsm8k-mini\nbetta: 1\nper_task: {gsm8k-mini: {}}", "unknown key 'betta'; did you mean 'beta'?"),
    ],
)
def test_presets_of_ones_own(fails, tmp_path, text, part):
    preset = tmp_path / "mine.yaml"
    preset.write_text(text)
    message = fails("--preset", str(preset))
    assert part in message
    assert str(preset) in message


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["run", "--preset", "minni"], "did you mean 'mini'?"),
        (["run", "--set", "model=./no-such-model"], "./no-such-model does not exist"),
        (["run", "--set", "probe_every=0"], "set it to 1 or more"),
        (["status", "no-such-run"], "no-such-run does not exist"),
        (["table", "."], "holds no run with an evaluated M0 yet"),
    ],
)
@pytest.mark.slow  # the exit status and stderr of real processes
def test_the_command_in_a_process_of_its_own(tmp_path, arguments, part):
    command = [sys.executable, "-m", "irpo_lib.terminal.cli", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert part in one_sentence(done.stderr)
    assert list(tmp_path.iterdir()) == []


# --- problems ---

GOOD = '{"id": "a", "question": "1 + 1?", "answer": "2"}\n'


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """A copy of data/ that may be spoilt."""
    folder = tmp_path / "data"
    for task in ("gsm8k-mini", "arc-mini"):
        shutil.copytree(DATA / task, folder / task)
    monkeypatch.setattr(irpo_lib.tasks.mini, "DATA", folder)
    return folder


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (GOOD + "\n" + '{"id": "b", "question": \n' + GOOD, ["train.jsonl, line 3", "not valid JSON"]),
        (GOOD + "[1, 2]\n", ["train.jsonl, line 2", "JSON object", "list"]),
        (GOOD + '{"id": "b", "question": "1 + 2?"}\n', ["train.jsonl, line 2", "'answer' is missing or empty"]),
        (GOOD + '{"id": "b", "question": "1 + 2?", "answer": ""}\n', ["line 2", "'answer' is missing or empty"]),
        (GOOD + '{"id": "b", "question": "", "answer": "3"}\n', ["line 2", "'question' is missing or empty"]),
        (GOOD + '{"question": "1 + 2?", "answer": "3"}\n', ["line 2", "'id' is missing or empty"]),
        (
            GOOD + '{"id": "b", "question": "x?", "answer": "A", "choices": ["one"]}\n',
            ["line 2", "two to five options"],
        ),
        (GOOD + GOOD.replace('"2"', '"many"').replace('"a"', '"b"'), ["'train'", "'b'", "'many' is no answer"]),
        (GOOD + GOOD, ["gsm8k-mini", "'train'", "the id 'a' stands twice"]),
        ("", ["gsm8k-mini", "'train' is empty"]),
        ("\n\n", ["gsm8k-mini", "'train' is empty"]),
        (b'{"id": "\xff"}\n', ["train.jsonl, line 1", "not valid UTF-8"]),
    ],
)
def test_problems(fails, data, tiny_model, text, parts):
    path = data / "gsm8k-mini" / "train.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    message = fails("--set", f"model={tiny_model}")
    for part in parts:
        assert part in message


def test_an_answer_that_is_not_among_the_options(data):
    row = {"id": "a", "question": "Which?", "answer": "D", "choices": ["one", "two", "three"]}
    (data / "arc-mini" / "test.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match="'D' is no answer of this task"):
        read_split(get_task("arc-mini"), "test")


def test_missing_problems(fails, data, tiny_model):
    (data / "gsm8k-mini" / "test.jsonl").unlink()
    assert "test.jsonl does not exist" in fails("--set", f"model={tiny_model}")
    shutil.rmtree(data / "gsm8k-mini")
    assert "irpo make-data" in fails("--set", f"model={tiny_model}")


def test_files_as_windows_writes_them(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + (GOOD + GOOD.replace('"a"', '"b"')).replace("\n", "\r\n").encode())
    assert read_problems(path) == [Problem("a", "1 + 1?", "2"), Problem("b", "1 + 1?", "2")]


@pytest.mark.parametrize("answer", ["1 + 1 = 2", "1 + 1 = 2\n#### two", "#### 1 2"])
def test_gsm8k_without_a_number_behind_the_marks(tmp_path, answer):
    path = tmp_path / "train.jsonl"
    path.write_text(
        json.dumps({"question": "?", "answer": "#### 1"}) + "\n" + json.dumps({"question": "?", "answer": answer})
    )
    with pytest.raises(UserError, match=r"train\.jsonl, line 2: 'answer' must end with '#### NUMBER'"):
        gsm8k.read("train", str(path))


def test_an_unknown_task():
    with pytest.raises(UserError, match="unknown task 'math-mimi'; did you mean 'math-mini'"):
        get_task("math-mimi")


# --- models ---


def test_missing_models(fails, tmp_path):
    assert f"the model folder {tmp_path / 'none'} does not exist" in fails("--set", f"model={tmp_path / 'none'}")
    (tmp_path / "empty").mkdir()
    assert "no tokenizer can be loaded" in fails("--set", f"model={tmp_path / 'empty'}")


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("tokenizer.json", None, "tokenizer"),
        ("tokenizer.json", "{}", "tokenizer"),
        ("tokenizer_config.json", "{", "tokenizer"),
        ("config.json", "{", "tokenizer"),
        ("config.json", None, "model"),
        ("config.json", "{}", "model"),
        ("model.safetensors", None, "model"),
        ("model.safetensors", "x" * 1000, "model"),
        ("model.safetensors", "", "model"),
    ],
)
def test_broken_model_folders(tiny_model, tmp_path, file, content, what):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    if what == "model":
        load_tokenizer(str(folder))
    with pytest.raises(UserError) as error:
        load_tokenizer(str(folder)) if what == "tokenizer" else load_model(str(folder), "float32")
    assert str(error.value).startswith(f"{folder}: no {what} can be loaded from it (")
    assert "\n" not in str(error.value)


def test_weights_that_lack_a_tensor(tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="lack 1 tensors"):
        load_model(str(folder), "float32")


def test_a_seed_model_is_never_overwritten(tmp_path, capfd):
    assert main(["make-seed-model", "--out", str(tmp_path)]) == 1
    assert f"{tmp_path} exists already" in one_sentence(capfd.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_a_tokenizer_without_eos(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "eos_token"}))
    with pytest.raises(UserError, match="the tokenizer has no EOS token"):
        load_tokenizer(str(folder))


# --- run folders ---


def test_a_second_run_with_other_settings_names_them(small_config, tmp_path):
    Experiment(small_config, tmp_path).reward(1)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    other = Experiment(replace(small_config, samples=5, top_p=0.9, beta=0.7), tmp_path)
    with pytest.raises(UserError) as error:
        other.reward(1)
    message = str(error.value)
    assert "samples (4 there, 5 now)" in message
    assert "top_p (1.0 there, 0.9 now)" in message
    assert "beta" not in message, "generation does not depend on beta"
    assert "\n" not in message
    with pytest.raises(UserError, match="problems"):
        Experiment(replace(small_config, train_problems=11), tmp_path).generate(1)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_model_that_cannot_be_loaded_leaves_nothing(small_config, tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="no model can be loaded"):
        Experiment(replace(small_config, model=str(folder)), tmp_path / "run").generate(1)
    assert [p for p in (tmp_path / "run").rglob("*") if p.name != "iteration-1"] == []
    Experiment(small_config, tmp_path / "run").generate(1)


def test_held_out_problems_that_leave_none(small_config, tmp_path):
    config = replace(small_config, select_checkpoint=True, held_out=12)
    with pytest.raises(UserError, match="held_out=12 leaves none of the 12 training problems"):
        Experiment(config, tmp_path).train(1)


@pytest.mark.slow  # two real processes
def test_two_processes_on_one_stage(small_config, tmp_path):
    config = replace(small_config, train_problems=400, problems_per_shard=4, samples=8, max_new_tokens=60)
    partial = tmp_path / "iteration-1" / "generate.partial"
    command = [sys.executable, "-c", RUN_STAGE, "generate", json.dumps(asdict(config)), str(tmp_path)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL) as first:
        try:
            deadline = time.monotonic() + 60
            while not any(partial.glob("shard-*.parquet")):
                assert first.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with pytest.raises(UserError) as error:
                Experiment(config, tmp_path).generate(1)
            assert first.poll() is None, "the first process had ended before the second began"
        finally:
            first.kill()
    assert str(error.value) == f"another process is working on {partial}: wait until it ends"


def test_presets_are_found_whatever_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {p.stem for p in PRESETS.glob("*.yaml")} >= {"mini"}
    assert load_config("mini").task == "gsm8k-mini"


# --- what a finished stage was made from ---

SEVENS = """
from irpo_lib.records import Problem
from irpo_lib.tasks import Task
from irpo_lib.tasks.numbers import number

def read(split):
    return [Problem(f"{split}-{n}", f"What is {n} times 7?", str(7 * n), f"Final answer: {7 * n}") for n in range(8)]

task = Task("sevens", read, lambda p: f"Question: {p.question}", lambda answer, problem: number(answer))
"""


def test_a_changed_dataset_under_a_finished_stage_is_refused(small_config, tmp_path):
    path, run_dir = tmp_path / "sevens.py", tmp_path / "run"
    config = replace(small_config, task=str(path), train_problems=4)
    path.write_text(SEVENS)
    folder = Experiment(config, run_dir).generate(1)
    path.write_text(SEVENS.replace("What is", "How much is"))
    with pytest.raises(UserError, match=r"generate was made with other settings: problems \('\w+' there, '\w+' now\)"):
        Experiment(config, run_dir).generate(1)
    path.write_text(SEVENS)
    assert Experiment(config, run_dir).generate(1) == folder


def test_a_changed_model_under_a_finished_stage_is_refused(small_config, tmp_path):
    model, run_dir = tmp_path / "model", tmp_path / "run"
    shutil.copytree(small_config.model, model)
    config = replace(small_config, model=str(model))
    folder = Experiment(config, run_dir).generate(1)
    weights = model / "model.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    with pytest.raises(UserError, match=r"generate was made with other settings: model \('\w+' there, '\w+' now\)"):
        Experiment(config, run_dir).generate(1)
    weights.write_bytes(before)
    assert Experiment(config, run_dir).generate(1) == folder


def test_samples_are_drawn_from_the_files_that_the_stage_began_with(small_config, tmp_path):
    """Another machine may see another version of the model's folder."""
    write_records(tmp_path / "problems.parquet", read_split(get_task("gsm8k-mini"), "dev")[:2])
    job = (small_config, tmp_path, small_config.model)
    rest = (tmp_path / "problems.parquet", 1, 0.0, "x")
    with pytest.raises(UserError, match=r"not those that this stage began with \(hash \w{16}, should be 0123"):
        generation.sample(*job, "0123", *rest)
    assert not list(tmp_path.glob("shard-*"))
    generation.sample(*job, model_hash(small_config.model), *rest)
    assert list(tmp_path.glob("shard-*"))
