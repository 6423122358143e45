"""The rows of Tables 1 and 2: what each arm trains on, starts from and shares; and the whole grid."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import random_pairs, with_reference

from irpo_lib.arms import ARMS, arms_of, evaluate_arm, train_arm, tuning_arms
from irpo_lib.config import load_config
from irpo_lib.iteration import Experiment
from irpo_lib.models.load import load_model, load_tokenizer, model_hash
from irpo_lib.pairs import ScoredPair
from irpo_lib.records import PreferencePair
from irpo_lib.stages.store import hash_file, read_json, read_log, read_records
from irpo_lib.terminal.errors import UserError
from irpo_lib.training import Trainer

#: Not in `make check`: whole grids of small runs.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def main(tmp_path_factory):
    """A small loop of two iterations with mini-llama, which has right and wrong samples."""
    config = load_config(
        "mini", "gsm8k-mini", iterations=2, temperatures=[1.0, 1.0], train_problems=10, samples=4, test_problems=4,
        majority_problems=2, majority_samples=2, majority_iterations=[], max_new_tokens=160, max_steps=3,
        checkpoint_every=3, batch_size=4, micro_batch_size=4, probe_every=3, probe_pairs=4, pairs_per_problem=2,
        warmup_steps=0, learning_rate=1e-3, later_learning_rate=5e-4,
    )  # fmt: skip
    return Experiment(config, tmp_path_factory.mktemp("arms"))


def pairs_of(folder: Path) -> list[PreferencePair]:
    return read_records(folder / "pairs.parquet", PreferencePair)


def trained_with(folder: Path) -> dict:
    return read_json(folder / "stage.json")


def model_file(folder: Path) -> str:
    return hash_file(folder / "model" / "model.safetensors")


def test_arms_of_m0_share_pairs_and_reference_with_the_loop(main):
    loop = trained_with(main.train(1))
    for name in ("sft-chosen", "dpo", "nll-sum"):
        arm = trained_with(train_arm(main, ARMS[name]))
        assert {k: arm["inputs"][k] for k in ("pairs", "reference", "model")} == {
            k: loop["inputs"][k] for k in ("pairs", "reference", "model")
        }
        assert not (main.run_dir / "arms" / name / "reference").exists()
        differing = {k for k, v in arm["settings"].items() if v != loop["settings"][k]}
        assert differing == {"sft-chosen": {"dpo_weight"}, "dpo": {"alpha"}, "nll-sum": {"nll_mean"}}[name]


def test_later_iterations_have_a_learning_rate_of_their_own(main):
    first, second, arm = main.train(1), main.train(2), train_arm(main, ARMS["fixed-reference"])
    for folder, rate in ((first, 1e-3), (second, 5e-4), (arm, 5e-4)):
        assert trained_with(folder)["settings"]["learning_rate"] == rate
        assert read_log(folder / "log.csv")[0]["learning_rate"] == rate
    config = load_config("mini", later_learning_rate=None)
    assert config.of_iteration(4) == config
    with pytest.raises(UserError, match=r"later_learning_rate=-1\.0 cannot be"):
        load_config("mini", later_learning_rate=-1)


def test_arms_from_sft_start_from_its_model_and_have_it_as_reference(main):
    sft = train_arm(main, ARMS["sft-chosen"])
    dpo, irpo = (train_arm(main, ARMS[name]) for name in ("dpo-from-sft", "irpo-from-sft"))
    assert trained_with(dpo)["inputs"] == trained_with(irpo)["inputs"]
    assert trained_with(dpo)["inputs"]["pairs"] == trained_with(main.train(1))["inputs"]["pairs"]
    assert trained_with(dpo)["inputs"]["reference"] != trained_with(main.train(1))["inputs"]["reference"]
    first = read_log(irpo / "log.csv")[0]
    assert first["margins"] == pytest.approx(0, abs=1e-4)
    assert first["dpo"] == pytest.approx(math.log(2), abs=1e-4)
    assert (main.run_dir / "arms/sft-chosen/reference/logps.json").is_file()
    assert len({model_file(f) for f in (sft, dpo, irpo, main.train(1))}) == 4


def test_sft_on_gold_sees_the_gold_solutions_and_nothing_else(main):
    train_arm(main, ARMS["sft-gold"])
    pairs = pairs_of(main.run_dir / "arms/sft-gold/pairs")
    gold = main.gold()
    assert {p.problem_id: p.chosen_ids for p in pairs} == gold
    assert len(pairs) == 10
    assert all(p.rejected_ids == [] and p.chosen_source == "gold" for p in pairs)


def test_twice_the_data_is_twice_the_pairs_and_steps(main):
    folder = train_arm(main, ARMS["irpo-twice"])
    once, twice = pairs_of(main.pair(1)), pairs_of(main.run_dir / "arms/twice/pairs")
    assert len(twice) == 2 * len(once)
    assert [p for p in twice if p.k < 2] == once
    assert trained_with(folder)["settings"]["steps"] == 6
    assert (
        trained_with(train_arm(main, ARMS["star-twice"]))["inputs"]["pairs"] == trained_with(folder)["inputs"]["pairs"]
    )


def test_replay_adds_the_earlier_pairs(main):
    train_arm(main, ARMS["replay"])
    assert pairs_of(main.run_dir / "arms/replay/pairs") == pairs_of(main.pair(2)) + pairs_of(main.pair(1))
    in_the_loop = Experiment(replace(main.config, replay=True), main.run_dir / "loop")
    for t in (1, 2):
        in_the_loop.folder(t, "x").parent.mkdir(parents=True, exist_ok=True)
        for stage in ("generate", "reward"):
            in_the_loop.folder(t, stage).symlink_to(main.folder(t, stage))
    (in_the_loop.folder(1, "train")).symlink_to(main.folder(1, "train"))
    assert pairs_of(in_the_loop.pair(2)) == pairs_of(main.run_dir / "arms/replay/pairs")


def test_a_fixed_reference_is_m0_and_its_first_margin_is_what_was_learnt(main):
    folder = train_arm(main, ARMS["fixed-reference"])
    m0, m1 = (load_model(main.model(t), "float32") for t in (0, 1))
    pairs = pairs_of(main.pair(2))
    scored = [with_reference(m, random_pairs_like(pairs)) for m in (m0, m1)]
    margins = [
        main.config.beta * ((b.reference_chosen_logps - a.reference_chosen_logps)
                            - (b.reference_rejected_logps - a.reference_rejected_logps))
        for a, b in zip(*scored, strict=True)
    ]  # fmt: skip
    first = read_log(folder / "log.csv")[0]["margins"]
    assert min(margins) - 1e-3 <= first <= max(margins) + 1e-3
    assert abs(first) > 1e-3


def random_pairs_like(pairs):
    return [ScoredPair(p, math.nan, math.nan) for p in pairs]


def test_a_changed_tuning_grid_leaves_out_the_loops_own_point(main):
    names = {arm.name for arm in tuning_arms(main.config)}
    assert names == {"alpha-0.25", "alpha-0.5", "alpha-2", "beta-0.05", "beta-0.5", "beta-1"}


def test_tasks_without_gold_have_table_2s_arms_only():
    assert [a.name for a in arms_of(load_config("mini", "arc-mini"))] == ["sft-chosen", "dpo", "dpo-from-sft"]
    assert len(arms_of(load_config("mini", "gsm8k-mini"))) == 11


def test_an_arm_is_evaluated_on_the_test_split(main):
    folder = evaluate_arm(main, ARMS["dpo"])
    ids = [line.split(",")[0] for line in (folder / "greedy.csv").read_text().splitlines()[1:]]
    assert ids == [p.id for p in main.test_problems()]


# --- how the NLL term is normalised ---


@pytest.mark.parametrize("micro", [1, 2, 4])
@pytest.mark.parametrize("mean", ["sequence", "batch", "sum"])
def test_the_nll_term_is_normalised_as_asked(small_config, tokenizer, tmp_path, micro, mean):
    config = replace(small_config, nll_mean=mean, micro_batch_size=micro, dpo_weight=0.0, alpha=1.0, max_steps=1,
                     probe_every=0)  # fmt: skip
    model = load_model(config.model, "float32")
    pairs = with_reference(model, random_pairs(4, vocabulary=len(tokenizer)))
    logps = [p.reference_chosen_logps for p in pairs]
    lengths = [len(p.pair.chosen_ids) for p in pairs]
    expected = {
        "sequence": sum(-x / n for x, n in zip(logps, lengths, strict=True)) / 4,
        "batch": -sum(logps) / sum(lengths),
        "sum": -sum(logps) / 4,
    }
    Trainer(model, tokenizer, pairs, config, 1, 0, tmp_path).fit()
    assert read_log(tmp_path / "log.csv")[0]["loss"] == pytest.approx(expected[mean], rel=1e-4)


def test_trl_cannot_sum_the_nll():
    with pytest.raises(UserError, match="nll_mean=sum needs training_engine=irpo"):
        load_config("mini", training_engine="trl", nll_mean="sum")


def test_a_vote_of_a_model_that_is_not_made_is_an_error():
    with pytest.raises(UserError, match=r"majority_iterations=\[0, 3\] names a model that iterations=2 does not make"):
        load_config("mini", iterations=2, temperatures=[1, 1], majority_iterations=[0, 3])


# --- the grid as a command ---

SMALL = ["train_problems=32", "samples=3", "test_problems=3", "max_steps=2", "checkpoint_every=2", "probe_every=1",
         "probe_pairs=3", "iterations=1", "temperatures=[1.0]", "majority_iterations=[0]", "majority_problems=2",
         "majority_samples=2", "max_new_tokens=160"]  # fmt: skip


def irpo(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "irpo_lib.terminal.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def other_seed_model(folder: Path) -> str:
    """mini-llama with other weights."""
    model = load_model("mini-llama", "float32")
    with torch.no_grad():
        model.lm_head.weight.mul_(1.01)
    model.save_pretrained(folder)
    load_tokenizer("mini-llama").save_pretrained(folder)
    return str(folder)


def test_reproduce_writes_tables_figures_and_claims_and_adds_seeds(tmp_path):
    settings = [x for s in SMALL for x in ("--set", s)]
    command = ["reproduce", "--tasks", "math-mini", "--out", str(tmp_path), *settings]
    other = other_seed_model(tmp_path / "other")
    first = irpo(*command, "--seeds", "1")
    assert first.returncode == 0, first.stderr
    weights = tmp_path / "math-mini/seed-0/arms/dpo/train/model/model.safetensors"
    made = weights.stat().st_mtime_ns
    second = irpo(*command, "--seeds", "2", "--models", "mini-llama", other)
    assert second.returncode == 0, second.stderr
    assert weights.stat().st_mtime_ns == made, "what was there is made again"
    results = {p.name for p in (tmp_path / "results").iterdir()}
    assert {"table.csv", "table.md", "table.pdf", "claims.csv", "claims.md", "figure1.pdf", "figure4b.pdf",
            "figure4b.csv"} <= results  # fmt: skip
    assert "figure2a is not drawn: no run has the log-probs of 'sft-chosen'" in second.stdout
    table = (tmp_path / "results/table.csv").read_text()
    assert "DPO initialized from M0" in table
    notes = json.loads((tmp_path / "reproduction.json").read_text())
    assert [n["seeds"] for n in notes] == [[0], [0, 1]]
    assert [n["seed_models"] for n in notes] == [
        [{"model": "mini-llama", "hash": model_hash("mini-llama")}],
        [{"model": m, "hash": model_hash(m)} for m in ("mini-llama", other)],
    ]
    for seed, model in enumerate(("mini-llama", other)):
        made = read_json(tmp_path / f"math-mini/seed-{seed}/iteration-1/train/stage.json")
        assert made["inputs"]["model"] == model_hash(model)
    assert notes[0]["command"].startswith("irpo reproduce --tasks math-mini")
    assert notes[0]["configs"]["math-mini"]["samples"] == 3
    status = irpo("status", str(tmp_path / "math-mini/seed-0"))
    assert "arms/dpo-from-sft/train" in status.stdout


def test_a_seed_model_for_each_seed_or_none():
    found = irpo("reproduce", "--seeds", "3", "--models", "mini-llama", "mini-llama")
    assert (found.returncode, found.stderr) == (
        1, "irpo: --models names 2 models for 3 seeds: give one for each seed\n"
    )  # fmt: skip


@pytest.mark.parametrize("command", ["figures", "table", "claims"])
def test_a_folder_without_runs_is_one_sentence(command, tmp_path):
    found = irpo(command, str(tmp_path))
    assert found.returncode == 1
    assert found.stderr == f"irpo: {tmp_path} holds no run with an evaluated M0 yet\n"
    gone = irpo(command, str(tmp_path / "gone"))
    assert gone.stderr == f"irpo: {tmp_path / 'gone'} does not exist: give the folder of a run\n"
