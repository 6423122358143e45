"""The diagnostics of Figures 2–4: what is measured, and that measuring changes nothing."""

import math
import shutil
from dataclasses import replace

import pandas as pd
import pytest
import torch
from helpers import kill_stage

from irpo_lib import probe
from irpo_lib.config import load_config
from irpo_lib.iteration import Experiment
from irpo_lib.models.load import load_model
from irpo_lib.probe import ProbeItem, choose_probe, look, summarise, with_parts
from irpo_lib.records import PreferencePair
from irpo_lib.stages.store import hash_file, read_log

pytestmark = pytest.mark.usefixtures("one_thread")


def pair(problem, k=0, source="model"):
    return PreferencePair(problem, k, [1, 5, 6], [7, 8, 2], [9, 2], source)


@pytest.fixture(scope="module")
def probed(tiny_model, tmp_path_factory):
    """(config, experiment) of a training with a look at every second step; gold solutions count as winners."""
    config = load_config(
        "mini", "gsm8k-mini", model=tiny_model, iterations=1, temperatures=[1.0], train_problems=12, samples=4,
        test_problems=6, majority_problems=3, majority_samples=4, majority_iterations=[0], max_new_tokens=24,
        problems_per_shard=4, max_steps=5, checkpoint_every=2, batch_size=4, micro_batch_size=2, probe_every=2,
        probe_pairs=6,
    )  # fmt: skip
    experiment = Experiment(config, tmp_path_factory.mktemp("probed"))
    return config, experiment


@pytest.fixture
def sampled_winners(monkeypatch):
    """The random model is never right, so that its gold winners are passed off as its own."""
    choose = probe.choose_probe

    def all_winners(pairs, gold, n, seed):
        return choose([replace(p, chosen_source="model") for p in pairs], gold, n, seed)

    monkeypatch.setattr(probe, "choose_probe", all_winners)


def test_looking_changes_no_weight_and_no_loss(probed, sampled_winners, tmp_path):
    config, experiment = probed
    with_probe = experiment.train(1)
    without = Experiment(replace(config, probe_every=0), tmp_path).train(1)
    weights = "model/model.safetensors"
    assert hash_file(with_probe / weights) == hash_file(without / weights)
    assert read_log(with_probe / "log.csv") == read_log(without / "log.csv")
    assert not (without / "probe.parquet").exists()


def test_the_values_are_those_of_a_naive_loop(probed, sampled_winners):
    config, experiment = probed
    folder = experiment.train(1)
    rows = pd.read_parquet(folder / "probe.parquet")
    assert sorted(rows.step.unique()) == [0, 2, 4, 5]
    assert len(rows) == 4 * 6
    models = {0: load_model(config.model, "float32"), 5: load_model(str(folder / "model"), "float32")}
    pairs = {(p.pair.problem_id, p.pair.k): p.pair for p in experiment.scored_pairs(1)}
    gold = experiment.gold()
    for row in rows[rows.step.isin(models)].itertuples():
        p = pairs[row.problem_id, row.k]
        for kind, ids in (("chosen", p.chosen_ids), ("rejected", p.rejected_ids), ("gold", gold[p.problem_id])):
            assert getattr(row, f"{kind}_logps") == pytest.approx(naive(models[row.step], p.prompt_ids, ids), abs=1e-3)
            assert getattr(row, f"{kind}_length") == len(ids)
            assert getattr(row, f"{kind}_token_logps") == pytest.approx(getattr(row, f"{kind}_logps") / len(ids))


def naive(model, prompt, response) -> float:
    """One token after the other, in float64."""
    total = 0.0
    with torch.no_grad():
        for i, token in enumerate(response):
            logits = model(torch.tensor([prompt + response[:i]])).logits[0, -1].double()
            total += torch.log_softmax(logits, -1)[token].item()
    return total


def test_margins_and_loss_parts_are_equation_1s(probed, sampled_winners):
    config, experiment = probed
    rows = pd.read_parquet(experiment.train(1) / "probe.parquet").set_index(["step", "problem_id"])
    assert (rows.loc[0].margins == 0).all()
    assert rows.loc[0].dpo.to_numpy() == pytest.approx(math.log(2))
    end, start = rows.loc[5], rows.loc[0]
    margin = config.beta * (
        (end.chosen_logps - start.chosen_logps) - (end.rejected_logps - start.rejected_logps).loc[end.index]
    )
    assert end.margins.to_numpy() == pytest.approx(margin.to_numpy())
    assert end.dpo.to_numpy() == pytest.approx([math.log(1 + math.exp(-m)) for m in margin])
    assert end.nll.to_numpy() == pytest.approx((-end.chosen_logps / end.chosen_length).to_numpy())


def test_the_csv_has_the_mean_and_the_spread(probed, sampled_winners):
    folder = probed[1].train(1)
    rows, table = pd.read_parquet(folder / "probe.parquet"), pd.read_csv(folder / "probe.csv").set_index("step")
    some = rows[rows.step == 4].rejected_logps.tolist()
    mean = sum(some) / len(some)
    assert table.rejected_logps_mean[4] == pytest.approx(mean, rel=1e-4)
    assert table.rejected_logps_sd[4] == pytest.approx(
        math.sqrt(sum((x - mean) ** 2 for x in some) / (len(some) - 1)), rel=1e-4
    )
    assert table.pairs[4] == 6


@pytest.mark.slow  # a process that is killed
def test_a_killed_training_keeps_its_looks(probed, tmp_path):
    # mini-llama is right often enough to have winners of its own
    config = replace(
        probed[0], model="mini-llama", train_problems=6, max_new_tokens=160, max_steps=40, checkpoint_every=10,
        probe_every=5,
    )  # fmt: skip
    whole = Experiment(config, tmp_path / "whole")
    whole.reference(1)
    shutil.copytree(whole.run_dir, tmp_path / "killed")
    killed = Experiment(config, tmp_path / "killed")
    checkpoints = tmp_path / "killed/iteration-1/train.partial/checkpoints"
    kill_stage("train", config, killed.run_dir, lambda: any(checkpoints.glob("*/log.json")))
    tables = [pd.read_parquet(e.train(1) / "probe.parquet") for e in (killed, whole)]
    assert sorted(tables[0].step.unique()) == list(range(0, 41, 5))
    pd.testing.assert_frame_equal(*tables)


# --- what is followed ---


def test_one_sampled_winner_a_problem_is_followed():
    pairs = [pair("a", 0, "gold"), pair("a", 1), pair("a", 2), pair("b", 0, "gold"), pair("c", 0)]
    found = choose_probe(pairs, {"a": [4, 2]}, n=10, seed=0)
    assert {(i.problem_id, i.k) for i in found} == {("a", 1), ("c", 0)}
    assert {i.problem_id: i.gold_ids for i in found} == {"a": [4, 2], "c": None}


def test_the_choice_depends_on_the_seed_alone():
    pairs = [pair(f"p{i}") for i in range(50)]
    chosen = [[i.problem_id for i in choose_probe(p, {}, 8, s)] for p, s in ((pairs, 1), (pairs[::-1], 1), (pairs, 2))]
    assert len(set(chosen[0])) == 8
    assert chosen[0] == chosen[1] != chosen[2]


def test_without_gold_its_columns_are_empty(tiny_model):
    items = [ProbeItem(f"p{i}", 0, [1, 5, 6], [7, 8, 2], [9, 2], "model") for i in range(2)]
    rows = look(load_model(tiny_model, "float32"), items, 0)
    assert rows.gold_logps.isna().all()
    assert (rows.gold_length == 0).all()
    assert (rows.chosen_logps < 0).all()
    assert pd.isna(summarise(with_parts(rows, 0.1)).gold_logps_mean[0])
