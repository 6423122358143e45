"""What a report takes from a run folder, which may be incomplete: stages, problems, samples and pairs."""

import random
from collections.abc import Collection, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from irpo_lib.config import load_config
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.results.runs import Run
from irpo_lib.stages import parquet
from irpo_lib.stages.store import MANIFEST, hash_json, read_json
from irpo_lib.tasks import get_task, read_split
from irpo_lib.terminal.errors import UserError

#: Tokens of samples in a report; fewer problems are shown where theirs are longer, so that the file stays small.
MOST_TOKENS = 300_000


class RunFolder(Run):
    """A run folder with what only a report asks of it: parameters, problems, samples and pairs."""

    @cached_property
    def recorded(self) -> dict[str, Any]:
        """The parameters of the notebooks that made the run: preset, task, seed, overrides; empty where none did."""
        records = sorted((self.folder / "notebooks").glob(".[0-9][0-9]_*.json"))
        return read_json(records[-1]).get("parameters", {}) if records else {}

    @cached_property
    def sampled(self) -> list[str]:
        """Ids of the training problems, in order."""
        rewards = self.loop("reward")
        first = self.of(f"M{min(rewards)}", "reward") / "completions.parquet"
        return list(dict.fromkeys(parquet.column(first, "problem_id")))

    def problems(self) -> tuple[dict[str, Problem], str]:
        """id → training problem, and, where they are not known, why not."""
        made = next(iter(self.loop("generate").values()), None)
        overrides = self.recorded.get("overrides", {})
        try:
            task = get_task(self.task, overrides.get("task_path"))
            found = read_split(task, "train")[: len(self.sampled)]
        except UserError as error:
            return {}, f"The problems cannot be read ({error}); prompts are shown in their place."
        same = [p.id for p in found] == self.sampled
        if made and "problems" in made.inputs:
            same = made.inputs["problems"] == hash_json([vars(p) for p in found])
        if not same:
            return {}, f"The problems of {self.task} are others now than in this run; prompts are shown in their place."
        return {p.id: p for p in found}, ""

    def samples(self, iteration: int, ids: Collection[str]) -> list[Completion]:
        """The rewarded completions of some problems."""
        return parquet.of_problems(self.of(f"M{iteration}", "reward") / "completions.parquet", Completion, ids)

    def pairs(self, iteration: int, ids: Collection[str]) -> list[PreferencePair]:
        """The preference pairs of some problems; none where the stage is not finished."""
        if iteration not in self.loop("pairs"):
            return []
        return parquet.of_problems(self.of(f"M{iteration}", "pairs") / "pairs.parquet", PreferencePair, ids)

    def choose(self, most: int) -> list[str]:
        """Ids of at most so many problems, at random by the run's seed, in order; fewer where theirs are long."""
        if not self.loop("reward"):
            return []
        some = random.Random(self.settings.get("seed", 0)).sample(self.sampled, len(self.sampled))[:most]
        lengths = dict.fromkeys(some, 0)
        for iteration in self.loop("reward"):
            path = self.of(f"M{iteration}", "reward") / "completions.parquet"
            each = zip(parquet.column(path, "problem_id"), parquet.lengths(path, "token_ids"), strict=True)
            for problem_id, tokens in each:
                if problem_id in lengths:
                    lengths[problem_id] += tokens
        return sorted(_within(lengths, MOST_TOKENS), key=self.sampled.index)


def open_run(folder: Path) -> RunFolder:
    """Raises UserError where the folder is missing, or is no run."""
    right = "give the folder of one run, as in runs/mini-gsm8k-mini"
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: {right}")
    run = RunFolder(folder)
    if not run.stages:
        within = sorted({p.parents[2] for d in ("*", "*/*") for p in folder.glob(f"{d}/iteration-*/*/{MANIFEST}")})
        if within:
            raise UserError(
                f"{folder} holds {len(within)} runs and is none itself: give one of them, as in {within[0]}"
            )
        raise UserError(f"{folder} is no run folder, or no stage of it is finished: {right}")
    if not any("task" in s.settings for s in run.stages):
        raise UserError(f"{folder}: none of its stages says which task it is of: {right}")
    return run


def find_seed_model(run: RunFolder) -> str | None:
    """M0: the model of the recorded overrides or preset, or of any preset, with the hash that the run has for it."""
    from irpo_lib.models.load import model_hash

    first = run.loop("train").get(1) or run.loop("generate").get(1) or run.loop("evaluate").get(0)
    wanted = first.inputs.get("model") if first else None
    return next((name for name in _known_models(run.recorded) if model_hash(name) == wanted), None)


def _known_models(recorded: dict[str, Any]) -> Iterable[str]:
    from irpo_lib.config import PRESETS

    if "model" in recorded.get("overrides", {}):
        yield recorded["overrides"]["model"]
    for preset in [recorded.get("preset", "mini"), *sorted(p.stem for p in PRESETS.glob("*.yaml"))]:
        try:
            yield load_config(preset).model
        except UserError:  # a preset file that has gone, or one that is not valid any more
            continue


def _within(lengths: dict[str, int], most: int) -> list[str]:
    """The first problems whose tokens together are at most so many, and at least one."""
    kept: list[str] = []
    total = 0
    for problem_id, tokens in lengths.items():
        total += tokens
        if kept and total > most:
            break
        kept.append(problem_id)
    return kept
