"""What runs have left on disk, as tables, figures and claims read it: outcomes, log-probs, counts. Reads files only."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from irpo_lib.config import Config, config_from
from irpo_lib.stages.store import CONFIG, MANIFEST, read_json
from irpo_lib.terminal.errors import UserError

#: The column of the paper's tables that a task is compared with.
PAPER_COLUMN = {"gsm8k": "GSM8K", "gsm8k-mini": "GSM8K", "arc": "ARC-Challenge", "arc-mini": "ARC-Challenge",
                "math": "MATH", "math-mini": "MATH"}  # fmt: skip
#: The paper's loss, as its legends call it.
IRPO = "DPO+NLL"
#: The stages of an iteration.
ORDER = ("generate", "reward", "pairs", "reference", "select", "train", "evaluate", "evaluate-dev")


@dataclass(frozen=True)
class Stage:
    """A finished stage: `home` is its folder's folder, "iteration-1" or "arms/dpo"; the rest is its manifest's."""

    home: str
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = "not recorded"

    @property
    def iteration(self) -> int | None:
        """None for an arm's."""
        return int(self.home.removeprefix("iteration-")) if self.home.startswith("iteration-") else None

    @property
    def model(self) -> str:
        """As `Run` names it: "M1" or "dpo"."""
        return self.home.removeprefix("arms/") if self.iteration is None else f"M{self.iteration}"


def _read_stage(home: str, path: Path) -> Stage:
    found = read_json(path)
    if not isinstance(found, dict):
        raise UserError(f"{path} is no manifest of a stage")
    recorded = {key: found[key] for key in Stage.__dataclass_fields__ if key in found}
    return Stage(**recorded | {"home": home, "name": path.parent.name})


@dataclass(frozen=True)
class Run:
    """The run folder of one task and seed, of which any stage may be missing.

    A model is named "M0" … "M4" or like an arm's folder ("dpo", "sft-chosen" …).
    """

    folder: Path

    @cached_property
    def stages(self) -> list[Stage]:
        """Those that are finished: the loop's in order, then the arms'."""
        paths = [p for kind in ("iteration-*", "arms/*") for p in self.folder.glob(f"{kind}/*/{MANIFEST}")]
        paths = [p for p in paths if p.parent.name in ORDER and _is_home(p.parent.parent)]
        found = [_read_stage(str(p.parent.parent.relative_to(self.folder)), p) for p in paths]
        return sorted(found, key=lambda s: (s.iteration is None, s.iteration or 0, s.home, ORDER.index(s.name)))

    def loop(self, name: str) -> dict[int, Stage]:
        """iteration → its stage of this name, where it is finished."""
        return {s.iteration: s for s in self.stages if s.name == name and s.iteration is not None}

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The loop's settings, of all its stages: what differs between iterations is as in the last one."""
        return {k: v for s in self.stages if s.iteration is not None for k, v in s.settings.items()}

    @cached_property
    def config(self) -> Config | None:
        """The loop's, as it was last run; None in a folder that holds stages only."""
        path = self.folder / CONFIG
        return config_from(read_json(path), str(path)) if path.is_file() else None

    @property
    def task(self) -> str:
        return self.settings["task"]

    @property
    def seed(self) -> int:
        return self.settings["seed"]

    def of(self, model: str, stage: str) -> Path:
        """The folder of a model's stage."""
        iteration = model[1:]
        home = f"iteration-{iteration}" if model.startswith("M") and iteration.isdigit() else f"arms/{model}"
        return self.folder / home / stage

    def has(self, model: str, stage: str = "evaluate") -> bool:
        return (self.of(model, stage) / MANIFEST).is_file()

    def outcomes(self, model: str, measure: str = "greedy", stage: str = "evaluate") -> pd.Series:
        """problem id → 1 or 0, or the task's own reward, of the greedy answer or of the majority vote.

        Raises:
            UserError: the model was not evaluated so in this run.
        """
        path = self.of(model, stage) / f"{measure}.csv"
        if not path.is_file():
            raise UserError(f"{path} does not exist: {model} was not evaluated so in this run")
        return pd.read_csv(path, index_col="problem_id", usecols=["problem_id", "right"])["right"]

    def summary(self, model: str, stage: str = "evaluate") -> dict[str, Any]:
        return read_json(self.of(model, stage) / "summary.json")

    def probe(self, model: str) -> pd.DataFrame:
        """The log-probs of the followed pairs during the training of a model; see `probe`."""
        path = self.of(model, "train") / "probe.parquet"
        if not path.is_file():
            raise UserError(
                f"{path} does not exist: {model} was not trained here, or with probe_every=0, or no winner was the "
                f"model's own, which are the ones followed: take more train_problems or samples"
            )
        return pd.read_parquet(path)

    def trained_with(self, model: str) -> dict[str, Any]:
        """The settings of a model's training, none where it is not finished."""
        path = self.of(model, "train") / MANIFEST
        return read_json(path)["settings"] if path.is_file() else {}

    def loss(self, model: str) -> str:
        """What a model was trained by, as the paper's legends call it: "DPO+NLL", "DPO" or "SFT"."""
        return loss_name(self.trained_with(model))

    @property
    def iterations(self) -> int:
        """How many iterations have been evaluated."""
        return len(self.loop("evaluate").keys() - {0})


def loss_name(settings: dict[str, Any]) -> str:
    """The method's name by the weights of Equation 1."""
    if "loss" in settings:  # another preference loss than Equation 1's (`beyond`)
        return str(settings["loss"])
    if settings.get("dpo_weight") == 0:
        return "SFT"
    return "DPO" if settings.get("alpha") == 0 else IRPO


def _is_home(folder: Path) -> bool:
    return folder.parent.name == "arms" or folder.name.removeprefix("iteration-").isdigit()


def find_runs(folders: Iterable[Path]) -> list[Run]:
    """Run folders: the given ones, or those within them (as `irpo reproduce` lays them out), by task and seed.

    Raises:
        UserError: a folder is missing, or neither is a run with an evaluated M0 nor holds one.
    """
    runs = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} does not exist: give the folder of a run")
        here = [Run(f) for f in (folder, *sorted(folder.glob("*")), *sorted(folder.glob("*/*"))) if Run(f).has("M0")]
        if not here:
            raise UserError(f"{folder} holds no run with an evaluated M0 yet")
        runs += here
    return sorted(runs, key=lambda r: (r.task, r.seed))


def by_task(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """In the order of the paper: GSM8K, ARC, MATH."""
    order = dict.fromkeys([*PAPER_COLUMN, *(r.task for r in runs)])
    found = {task: [r for r in runs if r.task == task] for task in order}
    return {task: some for task, some in found.items() if some}
