"""The rows of Tables 1 and 2 beside the iterations: each is one training on samples that the loop has drawn.

An arm stands in `RUN/arms/NAME/`, beside the loop's `RUN/iteration-t/`, and shares with it and with the other arms
whatever is equal: D_pairs_0, its reference log-probs, the model that was fine-tuned on chosen responses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from irpo_lib.config import Config
from irpo_lib.iteration import Experiment
from irpo_lib.stages import boxes
from irpo_lib.stages.store import read_json
from irpo_lib.tasks import read_split


@dataclass(frozen=True)
class Arm:
    """One training that differs from the loop's.

    Attributes:
        name: Of its folder.
        method: As the row is called in `data/paper/tables.csv`, or in words of this project's own.
        changes: Keys of the config.
        start: The arm whose model training starts from; empty for the loop's M_{iteration-1}.
        gold: Trained on gold solutions instead of pairs.
        twice: K doubled, and the steps with it, so that each pair is seen as often.
        iteration: Of which the samples are.
    """

    name: str
    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    start: str = ""
    gold: bool = False
    twice: bool = False
    iteration: int = 1


SFT, DPO = {"dpo_weight": 0.0, "alpha": 1.0}, {"dpo_weight": 1.0, "alpha": 0.0}

#: Table 2 has these, and Table 1 too.
BASELINES = (
    Arm("sft-chosen", "STaR", SFT),
    Arm("dpo", "DPO", DPO),
    Arm("dpo-from-sft", "DPO from SFT on chosen", DPO, start="sft-chosen"),
)
#: Table 1 only.
GSM8K_BASELINES = (
    Arm("sft-gold", "SFT on gold", SFT, gold=True),
    Arm("irpo-from-sft", "Iterative RPO from SFT on chosen", start="sft-chosen"),
    Arm("star-twice", "STaR, twice the data", SFT, twice=True),
    Arm("irpo-twice", "Iterative RPO, twice the data", twice=True),
)
#: What the paper left open.
BEYOND = (
    Arm("replay", "Iteration 2 on the pairs of both iterations", {"replay": True}, iteration=2),
    Arm("fixed-reference", "Iteration 2 with M0 as reference", {"reference_model": "seed"}, iteration=2),
    Arm("nll-batch", "NLL per token of the batch", {"nll_mean": "batch"}),
    Arm("nll-sum", "NLL summed", {"nll_mean": "sum"}),
)
#: § 3.1's grids; the other coefficient stays as the preset has it.
ALPHAS, BETAS = (0.25, 0.5, 1.0, 2.0), (0.05, 0.1, 0.5, 1.0)


def tuning_arms(config: Config) -> list[Arm]:
    """The points of § 3.1's grids that are not the loop's own."""
    alphas = [Arm(f"alpha-{a:g}", f"α = {a:g}", {"alpha": a}) for a in ALPHAS if a != config.alpha]
    return alphas + [Arm(f"beta-{b:g}", f"β = {b:g}", {"beta": b}) for b in BETAS if b != config.beta]


def arms_of(config: Config) -> list[Arm]:
    """The arms of a task: Table 2's rows for all, Table 1's and the studies beyond where gold solutions exist."""
    if not config.task.startswith("gsm8k"):
        return list(BASELINES)
    return [*BASELINES, *GSM8K_BASELINES, *(b for b in BEYOND if b.iteration <= config.iterations)]


def arm_config(config: Config, arm: Arm) -> Config:
    changes = dict(arm.changes)
    if arm.twice:
        changes |= {"pairs_per_problem": 2 * config.pairs_per_problem, "max_steps": 2 * config.max_steps}
    return replace(config, **changes)


def arm_folder(main: Experiment, name: str) -> Path:
    return main.run_dir / "arms" / name


def train_arm(main: Experiment, arm: Arm) -> Path:
    """The arm's `train` stage, and what it needs."""
    t, folder = arm.iteration, arm_folder(main, arm.name)
    config = arm_config(main.config.of_iteration(t), arm)
    start = main.model(t - 1)
    if arm.start:
        start = str(train_arm(main, _by_name(arm.start)) / "model")
    training = boxes.Training(_pairs(main, arm, config), _reference(main, arm, config, start), start, t)
    steps = config.max_steps
    if config.select_checkpoint:
        held_out = main.train_problems()[-config.held_out :]
        chosen = boxes.select_stage(folder / "select", config, main.launch, training, held_out)
        steps = read_json(chosen / "selection.json")["steps"]
    return boxes.train_stage(folder / "train", config, main.launch, training, steps, main.pair(t), main.gold)


def evaluate_arm(main: Experiment, arm: Arm) -> Path:
    """Greedy accuracy of the arm's model on the test split."""
    return evaluate_trained(main, train_arm(main, arm))


def evaluate_trained(main: Experiment, train: Path) -> Path:
    """The same of the model of a `train` stage, beside it."""
    folder, model = train.parent / "evaluate", str(train / "model")
    return boxes.evaluate_stage(folder, main.config, main.launch, model, main.test_problems(), vote=False)


def evaluate_on_dev(main: Experiment, arm: Arm | None) -> Path:
    """Greedy accuracy on the dev split, for choices: of an arm's model, or of M1 for None."""
    train = train_arm(main, arm) if arm else main.train(1)
    problems = read_split(main.task, "dev")[: main.config.test_problems]
    folder = arm_folder(main, arm.name) / "evaluate-dev" if arm else main.folder(1, "evaluate-dev")
    return boxes.evaluate_stage(folder, main.config, main.launch, str(train / "model"), problems, vote=False)


def _by_name(name: str) -> Arm:
    return next(a for a in (*BASELINES, *GSM8K_BASELINES) if a.name == name)


def _pairs(main: Experiment, arm: Arm, config: Config) -> Path:
    """The loop's pairs, unless the arm is about others."""
    t = arm.iteration
    if arm.gold:
        return boxes.gold_pair_stage(arm_folder(main, arm.name) / "pairs", config, main.reward(t), main.gold)
    if config.replay != main.config.replay:
        sources = [main.reward(i) for i in range(t, 0, -1)]
        return boxes.pair_stage(arm_folder(main, arm.name) / "pairs", config, sources, main.gold)
    if arm.twice:
        return boxes.pair_stage(arm_folder(main, "twice") / "pairs", config, [main.reward(t)], main.gold)
    return main.pair(t)


def _reference(main: Experiment, arm: Arm, config: Config, start: str) -> Path:
    """Log-probs of the arm's pairs under its reference; the loop's own where pairs and reference are the same."""
    pairs, model = _pairs(main, arm, config), start
    if config.reference_model == "seed":
        model = config.model
    if pairs == main.folder(arm.iteration, "pairs") and model == main.model(arm.iteration - 1):
        return main.reference(arm.iteration)
    owner = "twice" if arm.twice else arm.start or arm.name
    return boxes.reference_stage(arm_folder(main, owner) / "reference", config, main.launch, pairs, model)
