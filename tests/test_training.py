"""Training: the two engines against each other, the check before step 1, resuming, and the choice of a checkpoint."""

import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers import kill_stage, random_pairs, with_reference

from irpo_lib import training
from irpo_lib.arms import ARMS, train_arm
from irpo_lib.cluster.launch import run_work
from irpo_lib.engines import trl
from irpo_lib.iteration import Experiment
from irpo_lib.logprobs import sequence_logps
from irpo_lib.models import checkpoints
from irpo_lib.models.checkpoints import newest_complete_checkpoint
from irpo_lib.models.load import load_model, load_tokenizer
from irpo_lib.models.weights import computing
from irpo_lib.pairs import scored_pairs
from irpo_lib.records import Completion, Problem
from irpo_lib.results.tables import status_table
from irpo_lib.rewards import reward
from irpo_lib.stages import samples
from irpo_lib.stages.store import read_json, read_log, read_records
from irpo_lib.terminal.errors import UserError
from irpo_lib.training import check_step_zero, training_order

pytestmark = pytest.mark.usefixtures("one_thread")

ENGINES = {"irpo": training, "trl": trl}


@pytest.fixture
def config(small_config):
    return replace(small_config, learning_rate=1e-3, warmup_steps=0, batch_size=4, micro_batch_size=1, max_steps=20)


@pytest.fixture
def pairs(tiny_model):
    return with_reference(load_model(tiny_model, "float32"), random_pairs(30))


def train(engine: str, config, pairs, folder: Path, **options) -> list[dict[str, float]]:
    """Trains the tiny model and returns the log."""
    model, tokenizer = load_model(config.model, config.dtype), load_tokenizer(config.model)
    counts = ENGINES[engine].Trainer(model, tokenizer, pairs, config, config.max_steps, 7, folder, **options).fit()
    assert counts["pairs"] == len(pairs)
    assert counts["steps"] == config.max_steps
    return read_log(folder / "log.csv")


def weights(folder: Path) -> bytes:
    return (folder / "model" / "model.safetensors").read_bytes()


def mark(checkpoint: Path) -> None:
    """Writes a loss of 1234 for step 1 into a checkpoint: a log that shows it was taken over from this checkpoint."""
    for name in ("log.json", "trainer_state.json"):
        path = checkpoint / name
        if path.is_file():
            state = read_json(path)
            (state if isinstance(state, list) else state["log_history"])[0]["loss"] = 1234.0
            path.write_text(json.dumps(state))


def column(log, name: str) -> list[float]:
    return [row[name] for row in log]


# --- the two engines ---


@pytest.mark.parametrize(("alpha", "dpo_weight"), [(1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.5, 2.0)])
def test_engines_agree_at_micro_batches_of_one(config, pairs, tmp_path, alpha, dpo_weight):
    config = replace(config, alpha=alpha, dpo_weight=dpo_weight)
    ours, theirs = (train(e, config, pairs, tmp_path / e) for e in ENGINES)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(1, 21))
    assert column(ours, "loss") == pytest.approx(column(theirs, "loss"), abs=1e-4)
    assert column(ours, "chosen_rewards") == pytest.approx(column(theirs, "chosen_rewards"), abs=1e-3)
    if dpo_weight:
        assert column(ours, "margins") == pytest.approx(column(theirs, "margins"), abs=1e-3)
        assert column(ours, "rejected_rewards") == pytest.approx(column(theirs, "rejected_rewards"), abs=1e-3)
    losses = column(ours, "loss")
    assert sum(losses[-5:]) < sum(losses[:5])


@pytest.mark.parametrize("schedule", trl.SCHEDULES)
@pytest.mark.parametrize("warmup_steps", [0, 5])
def test_schedules_are_those_of_transformers(config, pairs, tmp_path, schedule, warmup_steps):
    """The rate of each step, and what it trains: both engines, one of which asks transformers for its rates."""
    config = replace(config, learning_rate_schedule=schedule, warmup_steps=warmup_steps)
    ours, theirs = (train(e, config, pairs, tmp_path / e) for e in ENGINES)
    assert column(ours, "learning_rate") == pytest.approx(column(theirs, "learning_rate"), abs=1e-9)
    assert column(ours, "loss") == pytest.approx(column(theirs, "loss"), abs=1e-4)
    assert (ours[-1]["learning_rate"] < 0.1 * config.learning_rate) == (schedule != "constant")


def test_trl_takes_the_mean_over_tokens_in_larger_micro_batches(config, pairs, tmp_path):
    """The first step's loss is that of the untrained model: ours is the same as before, TRL's is not."""
    single = train("irpo", config, pairs, tmp_path / "single")
    ours, theirs = (train(e, replace(config, micro_batch_size=4), pairs, tmp_path / e) for e in ENGINES)
    assert column(ours, "loss") == pytest.approx(column(single, "loss"), abs=1e-4)
    assert abs(theirs[0]["loss"] - single[0]["loss"]) > 1e-3
    first = [pairs[i].pair for i in training_order(30, 4, 7)]
    model = load_model(config.model, "float32")
    nlls = [-s.reference_chosen_logps for s in with_reference(model, [pairs[i] for i in training_order(30, 4, 7)])]
    assert theirs[0]["loss"] == pytest.approx(math.log(2) + sum(nlls) / sum(len(p.chosen_ids) for p in first), abs=1e-4)
    assert ours[0]["loss"] == pytest.approx(
        math.log(2) + sum(n / len(p.chosen_ids) for n, p in zip(nlls, first, strict=True)) / 4, abs=1e-4
    )


def test_trl_gets_the_same_tokens(config, pairs, tmp_path):
    """Every row of the batches that TRL trains on is prompt + response, with nothing added or cut."""
    long = replace(config, max_length=8)
    model, tokenizer = load_model(config.model, "float32"), load_tokenizer(config.model)
    trainer = trl.dpo_trainer(model, tokenizer, pairs[:20], long, trl.trainer_settings(long, 5, 7, tmp_path))
    assert trainer.ref_model is None
    seen = []
    for batch in trainer.get_train_dataloader():
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            seen.append(ids[mask.bool()].tolist())
    expected = [s.pair.prompt_ids + r for s in pairs[:20] for r in (s.pair.chosen_ids, s.pair.rejected_ids)]
    assert seen == expected


# --- before step 1 ---


@pytest.mark.parametrize("engine", ENGINES)
def test_a_reference_of_another_model_is_refused(config, pairs, tmp_path, engine):
    wrong = [replace(p, reference_chosen_logps=p.reference_chosen_logps - 1) for p in pairs]
    with pytest.raises(UserError, match=r"margin is 1 nats instead of 0.*reference log-probs were not made with this"):
        train(engine, config, wrong, tmp_path)
    assert not (tmp_path / "model").exists()


def test_a_reference_that_is_no_number_is_refused(config, pairs):
    wrong = [replace(p, reference_rejected_logps=math.nan) for p in pairs]
    with pytest.raises(UserError, match="reference"):
        check_step_zero(load_model(config.model, "float32"), wrong, config)


def test_what_rounding_adds_up_to_in_a_long_response_is_no_other_reference(config, pairs):
    """Live bfloat16 sums were up to 0.13 nats times the root of their tokens apart: 2.2 nats at 286 tokens."""
    model, bfloat16 = load_model(config.model, "float32"), replace(config, dtype="bfloat16")
    one, token = pairs[0], pairs[0].pair.chosen_ids[:1]
    long = replace(one.pair, chosen_ids=token * 280, rejected_ids=token * 150)
    with torch.no_grad(), computing(bfloat16, model.device):
        chosen, rejected = sequence_logps(model, [(long.prompt_ids, r) for r in (long.chosen_ids, long.rejected_ids)])

    def example(off: float):
        return replace(one, pair=long, reference_chosen_logps=chosen.item() + off,
                       reference_rejected_logps=rejected.item())  # fmt: skip

    check_step_zero(model, [example(2.7)], bfloat16)
    with pytest.raises(UserError, match="margin is"):
        check_step_zero(model, [example(2.7), example(8)], bfloat16)


def test_the_first_line_of_the_log_has_margin_0_and_ln_2(config, pairs, tmp_path):
    first = train("irpo", config, pairs, tmp_path)[0]
    assert first["margins"] == pytest.approx(0, abs=1e-5)
    assert first["dpo"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["loss"] == pytest.approx(first["dpo"] + first["nll"], abs=1e-5)


# --- resuming ---


@pytest.mark.slow  # a process that is killed
def test_a_killed_training_resumes_bit_by_bit(small_config, tmp_path):
    config = replace(small_config, max_steps=150, checkpoint_every=10, learning_rate=1e-3)
    whole = Experiment(config, tmp_path / "whole")
    whole.reference(1)
    shutil.copytree(whole.run_dir, tmp_path / "killed")
    killed = Experiment(config, tmp_path / "killed")
    checkpoints = tmp_path / "killed/iteration-1/train.partial/checkpoints"

    kill_stage("train", config, killed.run_dir, lambda: any(checkpoints.glob("*/log.json")))
    newest = newest_complete_checkpoint(checkpoints)
    assert 10 <= int(newest.name.rpartition("-")[2]) < 150
    assert f"kept: a checkpoint of step {newest.name.rpartition('-')[2]}" in status_table(killed.run_dir)
    mark(newest)
    assert not killed.folder(1, "train").exists()

    assert weights(killed.train(1)) == weights(whole.train(1))
    log, whole_log = (read_log(e.folder(1, "train") / "log.csv") for e in (killed, whole))
    assert log[0]["loss"] == 1234.0
    assert log[1:] == whole_log[1:]
    assert len(log) == 150
    assert not (killed.folder(1, "train") / "checkpoints").exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_checkpoint_that_was_cut_off_is_ignored(config, pairs, tmp_path, engine, monkeypatch):
    monkeypatch.setattr(checkpoints, "PART_SIZE", 2**14)  # so that there are several files
    config = replace(config, checkpoint_every=5)
    log = train(engine, config, pairs, tmp_path / "whole", keep_checkpoints=True)
    made, left = tmp_path / "whole/checkpoints", tmp_path / "cut/checkpoints"
    assert newest_complete_checkpoint(made).name == "checkpoint-20"
    for step in (10, 15):
        shutil.copytree(made / f"checkpoint-{step}", left / f"checkpoint-{step}")
    (left / "checkpoint-15/log.json").unlink()
    for half in (left / "checkpoint-15").glob("*.safetensors"):
        half.write_bytes(b"")
    assert newest_complete_checkpoint(left).name == "checkpoint-10"
    mark(left / "checkpoint-10")
    resumed = train(engine, config, pairs, tmp_path / "cut")
    assert resumed[0]["loss"] == 1234.0
    assert resumed[1:] == log[1:]
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert not left.exists()


def test_a_run_killed_after_its_last_step_writes_the_model(config, pairs, tmp_path):
    log = train("irpo", config, pairs, tmp_path / "whole", keep_checkpoints=True)
    shutil.copytree(tmp_path / "whole/checkpoints/checkpoint-20", tmp_path / "last/checkpoints/checkpoint-20")
    assert train("irpo", config, pairs, tmp_path / "last") == log
    assert weights(tmp_path / "last") == weights(tmp_path / "whole")


def test_the_last_step_is_written_as_the_model_alone(config, pairs, tmp_path, monkeypatch):
    saved, save = [], checkpoints.save
    monkeypatch.setattr(checkpoints, "save", lambda *a, **b: (saved.append(len(a[3])), save(*a, **b)))
    train("irpo", replace(config, checkpoint_every=5), pairs, tmp_path)
    assert saved == [5, 10, 15]
    assert (tmp_path / "model" / "model.safetensors").is_file()


#: Saves a checkpoint of 26 million parameters in files of 8 MB, and prints how much of what it holds that took.
SAVE = """
import sys
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, LlamaConfig
from irpo_lib.models import checkpoints
from irpo_lib.models.parallel import Parallel, Ranks

def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024

checkpoints.PART_SIZE = 2**23
shape = LlamaConfig(vocab_size=1000, hidden_size=512, intermediate_size=1376, num_hidden_layers=8)
model = AutoModelForCausalLM.from_config(shape)
optimizer = torch.optim.AdamW(model.parameters())
Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
before = peak()
checkpoints.save(Path(sys.argv[1]), model, optimizer, [], Ranks(Parallel()))
held = 12 * model.num_parameters()
print((peak() - before - 8 * model.num_parameters()) / held)
"""


@pytest.mark.slow  # memory of a process of its own
@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how much memory a process takes")
def test_saving_a_checkpoint_takes_no_more_than_a_part_of_it(tmp_path):
    """All at once, safetensors holds what it writes twice: 12 GB with half a billion parameters."""
    done = subprocess.run([sys.executable, "-c", SAVE, str(tmp_path)], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 0.5
    assert len(list((tmp_path / "checkpoint-0").glob("*.safetensors"))) > 10


def test_without_checkpoints_there_is_nothing_to_resume(tmp_path):
    assert newest_complete_checkpoint(tmp_path) is None


def test_a_trained_model_loads_and_has_changed(config, pairs, tmp_path):
    train("irpo", config, pairs, tmp_path)
    trained, seed_model = load_model(str(tmp_path / "model"), "float32"), load_model(config.model, "float32")
    assert trained.config.use_cache
    for (name, after), before in zip(trained.named_parameters(), seed_model.parameters(), strict=True):
        assert not torch.equal(after, before), name


# --- the order of pairs ---


def test_every_pair_comes_once_a_pass():
    order = training_order(7, 24, seed=1)
    assert len(order) == 24
    for start in (0, 7, 14):
        assert sorted(order[start : start + 7]) == list(range(7))
    assert set(Counter(order).values()) <= {3, 4}
    assert order[:7] != order[7:14]


def test_the_order_depends_on_the_seed_alone():
    assert training_order(50, 80, seed=1) == training_order(50, 80, seed=1)
    assert training_order(50, 80, seed=1)[:20] == training_order(50, 20, seed=1)
    assert training_order(50, 80, seed=1) != training_order(50, 80, seed=2)


def test_no_pair_is_an_error():
    with pytest.raises(UserError, match="no preference pair"):
        training_order(0, 4, seed=1)


# --- the choice of a checkpoint (§ 3.1) ---


class OneAnswer(Experiment):
    """All problems have the same short solution, which even the tiny model learns within some steps."""

    def train_problems(self):
        solution = "It is 3.\nFinal answer: 3"
        return [Problem(f"p{i}", f"What is {i}?", "3", solution) for i in range(self.config.train_problems)]


@pytest.fixture(scope="module")
def make_selection(tmp_path_factory):
    found = {}

    def make(small_config):
        if not found:
            config = replace(
                small_config, select_checkpoint=True, held_out=4, checkpoint_every=10, max_steps=60,
                learning_rate=3e-3, alpha=3.0,
            )  # fmt: skip
            found["it"] = OneAnswer(config, tmp_path_factory.mktemp("selection"))
            found["it"].trained_on = []

            def noted(work, config, folder, **arguments):
                if work == "train":
                    names = ("pairs", "reference", "without")
                    seen = scored_pairs(**{n: arguments[n] for n in names if n in arguments})
                    found["it"].trained_on.append({p.pair.problem_id for p in seen})
                return run_work(work, config, folder, **arguments)

            found["it"].launch = noted
            found["it"].train(1)
        return found["it"]

    return make


def test_the_chosen_step_has_the_best_held_out_accuracy(small_config, make_selection):
    experiment = make_selection(small_config)
    folder = experiment.folder(1, "select")
    problems = {p.id: p for p in experiment.train_problems()}
    accuracies = {}
    for step in (10, 20, 30, 40, 50, 60):
        answers = read_records(samples.shards(folder / f"greedy-{step}"), Completion)
        assert [a.problem_id for a in answers] == ["p8", "p9", "p10", "p11"]
        rewards = [reward(a, problems[a.problem_id], experiment.task).reward for a in answers]
        accuracies[step] = sum(rewards) / len(rewards)
    assert len(set(accuracies.values())) > 1, "a model that never learns would make this test pass for any choice"
    best = min(step for step, accuracy in accuracies.items() if accuracy == max(accuracies.values()))
    selection = read_json(folder / "selection.json")
    assert selection["steps"] == best
    assert selection["accuracies"] == {str(k): v for k, v in accuracies.items()}
    manifest = json.loads((experiment.folder(1, "train") / "stage.json").read_text())
    assert manifest["settings"]["steps"] == manifest["counts"]["steps"] == best


def test_held_out_problems_are_trained_on_only_after_the_choice(small_config, make_selection):
    choosing, final = make_selection(small_config).trained_on
    assert choosing == {f"p{i}" for i in range(8)}
    assert final == {f"p{i}" for i in range(12)}


def test_holding_out_everything_is_an_error(small_config, tmp_path):
    config = replace(small_config, select_checkpoint=True, held_out=12)
    experiment = Experiment(config, tmp_path)
    for train in (lambda: experiment.train(1), lambda: train_arm(experiment, ARMS["dpo"])):
        with pytest.raises(UserError, match="held_out=12 leaves none of the 12 training problems"):
            train()
