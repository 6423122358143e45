"""The rows of Tables 1 and 2 beside the iterations: each is one training on samples that the loop has drawn.

An arm stands in `RUN/arms/NAME/`, beside the loop's `RUN/iteration-t/`, and shares with it and with the other arms
whatever is equal: D_pairs_0, its reference log-probs, the model that was fine-tuned on chosen responses.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from irpo_lib.config import Config, read_yaml
from irpo_lib.iteration import Experiment
from irpo_lib.stages import boxes


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


_ARMS = read_yaml(Path(__file__).with_suffix(".yaml").read_text(encoding="utf8"), "arms.yaml")
#: In both tables, in Table 1 only, and what the paper left open.
BASELINES, GSM8K_BASELINES, BEYOND = (
    tuple(Arm(**arm) for arm in _ARMS[group]) for group in ("baselines", "gsm8k_baselines", "beyond")
)
ARMS = {arm.name: arm for arm in (*BASELINES, *GSM8K_BASELINES, *BEYOND)}
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
    t, config = arm.iteration, arm_config(main.config.of_iteration(arm.iteration), arm)
    start = str(train_arm(main, ARMS[arm.start]) / "model") if arm.start else main.model(t - 1)
    training = boxes.Training(_pairs(main, arm, config), _reference(main, arm, config, start), start, t)
    return main.train_in(arm_folder(main, arm.name) / "train", config, training, main.pair(t))


def evaluate_arm(main: Experiment, arm: Arm) -> Path:
    """Greedy accuracy of the arm's model on the test split."""
    return evaluate_trained(main, train_arm(main, arm))


def evaluate_on_dev(main: Experiment, arm: Arm | None) -> Path:
    """Greedy accuracy on the dev split, for choices: of an arm's model, or of M1 for None."""
    return evaluate_trained(main, train_arm(main, arm) if arm else main.train(1), "dev")


def evaluate_trained(main: Experiment, train: Path, split: str = "test") -> Path:
    """Greedy accuracy of the model of a `train` stage, beside it."""
    folder = train.with_name("evaluate" if split == "test" else f"evaluate-{split}")
    model, problems = str(train / "model"), main.test_problems(split)
    return boxes.evaluate_stage(folder, main.config, main.launch, model, problems, vote=False)


def _pairs(main: Experiment, arm: Arm, config: Config) -> Path:
    """The loop's pairs, unless the arm is about others."""
    t, folder = arm.iteration, arm_folder(main, "twice" if arm.twice else arm.name) / "pairs"
    if arm.gold:
        return boxes.gold_pair_stage(folder, config, main.reward(t), main.gold)
    if arm.twice or config.replay != main.config.replay:
        return main.pair_in(folder, config, t)
    return main.pair(t)


def _reference(main: Experiment, arm: Arm, config: Config, start: str) -> Path:
    """Log-probs of the arm's pairs under its reference; the loop's own where pairs and reference are the same."""
    pairs = _pairs(main, arm, config)
    model = config.model if config.reference_model == "seed" else start
    if pairs == main.folder(arm.iteration, "pairs") and model == main.model(arm.iteration - 1):
        return main.reference(arm.iteration)
    owner = "twice" if arm.twice else arm.start or arm.name
    return boxes.reference_stage(arm_folder(main, owner) / "reference", config, main.launch, pairs, model)
