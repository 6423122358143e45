"""Notebook 08's methods: what each trains on, at which cost, and that it learns what it is rewarded for."""

import math
from dataclasses import dataclass, replace

import irpo_beyond as beyond
import pytest
import torch

from irpo_lib.arms import evaluate_trained
from irpo_lib.cluster.layout import Parallel
from irpo_lib.config import load_config
from irpo_lib.iteration import Experiment
from irpo_lib.models.load import load_model
from irpo_lib.records import Completion, PreferencePair
from irpo_lib.stages.store import read_json, read_log, read_records
from irpo_lib.tasks import Task
from irpo_lib.terminal.errors import UserError

#: Not in `make check`: TRL's trainers, and that a reward is learnt.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def main(tmp_path_factory):
    """A small run with mini-llama, which has right and wrong samples."""
    config = load_config(
        "mini", "gsm8k-mini", train_problems=12, samples=6, test_problems=4, max_new_tokens=160, max_steps=3,
        checkpoint_every=3, batch_size=4, micro_batch_size=4, probe_every=3, probe_pairs=4, warmup_steps=0,
    )  # fmt: skip
    return Experiment(config, tmp_path_factory.mktemp("beyond"))


def completion(problem: str, ids: list[int], reward: float, finish: str = "stop") -> Completion:
    return Completion(problem, 0, [1, 2], ids, "", finish, None, reward)


def test_distinct_right_keeps_each_right_response_once_a_problem():
    drawn = [
        completion("p", [5, 2], 1), completion("p", [6, 2], 0), completion("p", [5, 2], 1), completion("q", [5, 2], 1),
        completion("q", [7, 7], 1, "length"), completion("p", [8, 2], 1),
    ]  # fmt: skip
    found = [(p.problem_id, p.chosen_ids, p.rejected_ids) for p in beyond.distinct_right(drawn)]
    assert found == [("p", [5, 2], []), ("q", [5, 2], []), ("p", [8, 2], [])]


def test_rejection_sampling_trains_on_what_is_right_for_equal_compute(main):
    folder = beyond.rejection_sampling(main)
    pairs = read_records(main.run_dir / "arms" / "rejection-sampling" / "pairs" / "pairs.parquet", PreferencePair)
    samples = read_records(main.reward(1) / "completions.parquet", Completion)
    right = {(c.problem_id, tuple(c.token_ids)) for c in samples if c.reward == 1 and c.finish_reason == "stop"}
    assert {(p.problem_id, tuple(p.chosen_ids)) for p in pairs} == right
    assert len(pairs) == len(right) > 0
    log = read_log(folder / "log.csv")
    assert len(log) == 8  # 3 steps of DPO+NLL at 8 passes a pair are 24 passes, and SFT takes 3
    assert all(row["loss"] == pytest.approx(row["nll"]) and "dpo" not in row for row in log)


@pytest.mark.parametrize(("loss", "at_the_start"), [("ipo", 25.0), ("apo_zero", 1.0), ("sigmoid", math.log(2))])
def test_a_preference_loss_is_what_it_is_called(main, loss, at_the_start):
    """At the reference both log-ratios are 0: IPO is (1 / 2β)², APO-zero 1 − ½ + ½, DPO ln 2."""
    folder = beyond.preference_loss(main, loss)
    assert read_log(folder / "log.csv")[0]["loss"] == pytest.approx(at_the_start, abs=1e-3)
    assert len(read_log(folder / "log.csv")) == 3
    assert (folder / "probe.parquet").is_file()
    before = (folder / "stage.json").stat().st_mtime_ns
    assert beyond.preference_loss(main, loss) == folder
    assert (folder / "stage.json").stat().st_mtime_ns == before


def test_grpo_draws_what_an_iteration_draws_and_is_evaluated(main):
    folder = beyond.grpo(main)
    counts = read_json(folder / "stage.json")["counts"]
    assert counts == {"steps": 3, "samples": 72}  # 12 problems with 6 samples, 4 problems a step
    rewards = [row["reward"] for row in read_log(folder / "log.csv")]
    assert all(0 <= r <= 1 and (24 * r) == pytest.approx(round(24 * r), abs=1e-3) for r in rewards)
    new, old = (dict(load_model(m, "float32").named_parameters()) for m in (str(folder / "model"), main.model(0)))
    assert any(not torch.equal(new[name], old[name]) for name in old)
    summary = read_json(evaluate_trained(main, folder) / "summary.json")
    assert summary["greedy"]["problems"] == 4


@dataclass(frozen=True)
class Short(Task):
    """Rewards responses of few characters, whatever they say."""

    def extract(self, response, problem):
        return "short" if len(response) < 305 else None

    def is_correct(self, answer, problem):
        return answer == "short"


def test_grpo_learns_what_it_is_rewarded_for(main, tmp_path):
    task = Short(**vars(main.task))
    config = replace(
        main.config, samples=8, batch_size=4, micro_batch_size=4, learning_rate=1e-3, learning_rate_schedule="constant"
    )
    problems = Experiment(replace(config, train_problems=64), tmp_path).train_problems()
    trainer = beyond.grpo_trainer(main.model(0), problems, task, config, tmp_path)
    trainer.train()
    rewards = [row["reward"] for row in trainer.state.log_history if "reward" in row]
    assert len(rewards) == 16
    assert sum(rewards[-4:]) / 4 > sum(rewards[:2]) / 2 + 0.2


def test_what_cannot_be_is_one_sentence(main):
    split = Experiment(replace(main.config, parallel=Parallel(ddp=2), micro_batch_size=2), main.run_dir)
    for method in (beyond.grpo, lambda e: beyond.preference_loss(e, "ipo")):
        with pytest.raises(UserError, match="TRL trains in one process here, not in 2"):
            method(split)
    few = Experiment(replace(main.config, batch_size=16, micro_batch_size=16), main.run_dir)
    with pytest.raises(UserError, match="GRPO takes batch_size=16 problems a step, and there are 12"):
        beyond.grpo(few)
