"""Stages are there whole or not at all; records and settings come back as they went."""

import json
import math
import os
import random
import re
import sys
from dataclasses import asdict, replace

import pytest
import yaml

from irpo_lib.config import PRESETS, Config, load_config, parse_overrides
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.stages.store import (
    hash_file,
    hash_folder,
    read_json,
    read_records,
    run_stage,
    stage_hash,
    write_json,
    write_records,
)
from irpo_lib.tasks import TASKS
from irpo_lib.tasks.jsonl import read_problems, write_problems
from irpo_lib.terminal.errors import UserError

SETTINGS, INPUTS = {"beta": 0.1, "temperatures": (0.8, 1.3)}, {"model": "abc"}


def work(folder):
    write_json(folder / "result.json", {"right": 3})
    (folder / "shards").mkdir(exist_ok=True)
    (folder / "shards" / "one.txt").write_text("one")
    return {"problems": 4}


def never(folder):
    raise AssertionError("the stage was there and is run again")


# --- stages ---


def test_a_stage_runs_once(tmp_path):
    folder = tmp_path / "iteration-1" / "generate"
    assert run_stage(folder, SETTINGS, INPUTS, work) == folder
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
    assert run_stage(folder, SETTINGS, INPUTS, never) == folder
    assert {p: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert [p.name for p in folder.parent.iterdir()] == ["generate"]


def test_what_the_manifest_holds(tmp_path):
    folder = run_stage(tmp_path / "stage", SETTINGS, INPUTS, work)
    manifest = read_json(folder / "stage.json")
    assert set(manifest) == {"settings", "inputs", "status", "counts", "seconds", "outputs", "versions", "device"}
    assert manifest["settings"] == {"beta": 0.1, "temperatures": [0.8, 1.3]}
    assert manifest["inputs"] == INPUTS
    assert manifest["status"] == "complete"
    assert manifest["counts"] == {"problems": 4}
    assert 0 <= manifest["seconds"] < 10
    assert manifest["outputs"] == {name: hash_file(folder / name) for name in ("result.json", "shards/one.txt")}
    assert manifest["versions"]["python"] == sys.version.split()[0]
    assert {"torch", "transformers", "trl"} <= set(manifest["versions"])
    assert str(os.cpu_count()) in manifest["device"]


def test_an_interrupted_stage_goes_on_where_it_was(tmp_path):
    folder, done = tmp_path / "stage", []

    def shards(partial):
        for i in range(4):
            path = partial / f"shard-{i}"
            if path.is_file():
                continue
            if i == 2 and not done:
                done.append("half")
                raise RuntimeError("the machine went down")
            path.write_text(str(i))
        return {}

    with pytest.raises(RuntimeError):
        run_stage(folder, SETTINGS, INPUTS, shards)
    assert not folder.exists()
    partial = tmp_path / "stage.partial"
    first = (partial / "shard-0").stat().st_mtime_ns
    with pytest.raises(UserError, match=r"stage\.partial was made with other settings: beta \(0\.1 there, 0\.3 now\)"):
        run_stage(folder, SETTINGS | {"beta": 0.3}, INPUTS, never)
    run_stage(folder, SETTINGS, INPUTS, shards)
    assert (folder / "shard-0").stat().st_mtime_ns == first
    assert sorted(p.name for p in folder.iterdir()) == ["shard-0", "shard-1", "shard-2", "shard-3", "stage.json"]
    assert not partial.exists()


def test_bad_input_that_wrote_nothing_leaves_nothing(tmp_path):
    def refuse(folder):
        raise UserError("no such model")

    with pytest.raises(UserError, match="no such model"):
        run_stage(tmp_path / "stage", SETTINGS, INPUTS, refuse)
    assert list(tmp_path.iterdir()) == []
    run_stage(tmp_path / "stage", SETTINGS | {"beta": 0.3}, INPUTS, work)


def test_every_differing_key_is_named(tmp_path):
    folder = run_stage(tmp_path / "stage", SETTINGS, INPUTS, work)
    with pytest.raises(UserError) as error:
        run_stage(folder, {"beta": 0.3, "temperatures": [0.8, 1.3], "alpha": 1}, {"model": "xyz"}, never)
    message = str(error.value)
    for part in (
        "beta (0.1 there, 0.3 now)",
        "alpha (None there, 1 now)",
        "model ('abc' there, 'xyz' now)",
        str(folder),
    ):
        assert part in message
    assert "temperatures" not in message
    assert "\n" not in message


def test_hashes_follow_content_alone(tmp_path):
    one, two = (run_stage(tmp_path / name, SETTINGS, INPUTS, work) for name in ("one", "two"))
    assert stage_hash(one) == stage_hash(two)
    assert hash_folder(one) == hash_folder(two), "manifests, which hold times, do not count"
    (two / "shards" / "one.txt").write_text("two")
    assert hash_folder(one) != hash_folder(two)


def test_a_broken_manifest_names_its_file(tmp_path):
    folder = run_stage(tmp_path / "stage", SETTINGS, INPUTS, work)
    (folder / "stage.json").write_text('{"settings":\n')
    with pytest.raises(UserError, match=r"stage\.json, line 2: not valid JSON"):
        run_stage(folder, SETTINGS, INPUTS, never)


# --- records ---


def random_records(rng: random.Random, n: int) -> tuple[list[Completion], list[PreferencePair]]:
    def ids() -> list[int]:
        return [rng.randrange(2**31) for _ in range(rng.randrange(6))]

    texts = ["", "plain", "two\nlines", "é−😀", "\x00", '"quoted", comma']
    completions = [
        Completion(f"p{i}", i, ids(), ids(), rng.choice(texts), rng.choice(["stop", "length"]),
                   rng.choice([None, "3"]), rng.choice([None, 0.0, 1.0]))
        for i in range(n)
    ]  # fmt: skip
    pairs = [PreferencePair(f"p{i}", i, ids(), ids(), ids(), rng.choice(["model", "gold"])) for i in range(n)]
    return completions, pairs


@pytest.mark.parametrize("n", [1, 2, 50])
def test_records_come_back_as_they_went(tmp_path, n):
    completions, pairs = random_records(random.Random(n), n)
    write_records(tmp_path / "c.parquet", completions)
    write_records(tmp_path / "p.parquet", pairs)
    assert read_records(tmp_path / "c.parquet", Completion) == completions
    assert read_records(tmp_path / "p.parquet", PreferencePair) == pairs
    assert read_records([tmp_path / "c.parquet"] * 2, Completion) == completions * 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.parquet", "p.parquet"]


def test_no_records_come_back_as_none(tmp_path):
    write_records(tmp_path / "none.parquet", [])
    assert read_records(tmp_path / "none.parquet", PreferencePair) == []


def test_problems_come_back_as_they_went(tmp_path):
    problems = [
        Problem("a", "How\u2028many 😀?", "3", "1 + 2\nFinal answer: 3"),
        Problem("b", "Which?", "B", None, ("one", "two")),
    ]
    write_problems(tmp_path / "deep" / "train.jsonl", problems)
    assert read_problems(tmp_path / "deep" / "train.jsonl") == problems


# --- settings ---


@pytest.mark.parametrize("preset", [p.stem for p in PRESETS.glob("*.yaml")])
def test_presets_hold_for_all_their_tasks(preset):
    values = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text(encoding="utf8"))
    assert set(values["per_task"]) <= set(TASKS)
    for task, own in values["per_task"].items():
        config = load_config(preset, task)
        assert config.task == task
        assert len(config.temperatures) == config.iterations
        for key, value in own.items():
            assert json.loads(json.dumps(asdict(config)[key])) == value
        text = (PRESETS / f"{preset}.yaml").read_text(encoding="utf8")
        assert all(f"\n{key}:" in text for key in asdict(config)), "every key stands in the preset"


def test_overrides_get_the_type_of_their_key():
    overrides = parse_overrides(
        ["learning_rate=7e-7", "iterations=4", "temperatures=[1, 0.9, 1.3, 2]", "max_steps=50.0", "train_problems=null",
         "select_checkpoint=true", "held_out=10", "checkpoint_every=5", "beta=1", "majority_iterations=[]"]
    )  # fmt: skip
    assert overrides["learning_rate"] == "7e-7", "YAML 1.1 takes it for a string"
    config = load_config("mini", **overrides)
    expected = {"learning_rate": 7e-7, "temperatures": (1.0, 0.9, 1.3, 2.0), "max_steps": 50, "train_problems": None,
                "select_checkpoint": True, "beta": 1.0, "majority_iterations": ()}  # fmt: skip
    for key, value in expected.items():
        found = getattr(config, key)
        assert (found, type(found)) == (value, type(value)), key
    assert all(type(t) is float for t in config.temperatures)


def test_later_settings_win():
    base = load_config("mini", "arc-mini")
    assert base.gold_in_winners is False, "the task has no gold solutions"
    config = load_config("mini", "arc-mini", gold_in_winners=True)
    assert config == replace(base, gold_in_winners=True)
    assert load_config("mini", task="arc-mini") == base
    assert load_config("mini", "gsm8k-mini", **parse_overrides(["task=arc-mini"])) == base
    assert load_config("mini", **asdict(config)) == config, "a config makes itself again"


def test_a_preset_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    text = (PRESETS / "mini.yaml").read_text(encoding="utf8")
    path.write_text(re.sub(r"^beta: \S+", "beta: 0.7", text, flags=re.MULTILINE), encoding="utf8")
    assert load_config(str(path)) == load_config("mini", beta=0.7)


def test_a_config_cannot_be_changed_or_made_wrong():
    config = load_config("mini")
    with pytest.raises(AttributeError):
        config.beta = 0.3
    with pytest.raises(UserError, match="beta=-1 cannot be"):
        replace(config, beta=-1)
    assert math.isclose(replace(config, beta=0.3).beta, 0.3)
    assert isinstance(config, Config)
