"""Sampled responses on disk: asked for, read again shard by shard or problem by problem, and what became of them."""

import csv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from irpo_lib.config import Config
from irpo_lib.records import Completion, Problem
from irpo_lib.rewards import rewarded
from irpo_lib.stages.parquet import stream
from irpo_lib.stages.store import write_records
from irpo_lib.tasks import Task

#: What does a piece of work ("sample", "reference", "train") for a stage: (work, config, folder, **arguments).
Launch = Callable[..., None]


def sample(
    launch: Launch, folder: Path, config: Config, model: str, weights: str, problems: list[Problem], n: int,
    temperature: float, what: str,
) -> None:  # fmt: skip
    """n responses of a model, whose files have the hash `weights`, to each problem, shard by shard."""
    folder.mkdir(exist_ok=True)
    asked = folder / "problems.parquet"
    write_records(asked, problems)
    try:
        launch("sample", config, folder, model=model, weights=weights, problems=asked, n=n,
                 temperature=temperature, what=what)  # fmt: skip
    finally:
        asked.unlink()


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.parquet"))


def by_problem(reward: Path) -> Iterator[list[Completion]]:
    """The completions of a `reward` stage, problem after problem: those of one stand together, as they were sampled."""
    completions = stream(reward / "completions.parquet", Completion)
    return (list(group) for _, group in groupby(completions, key=attrgetter("problem_id")))


def outcomes(folder: Path, problems: Sequence[Problem], task: Task) -> list[Completion]:
    """The rewarded completions of a folder of shards, without their tokens and text, which nobody counts."""
    completions = rewarded(stream(shards(folder), Completion), problems, task)
    return [replace(c, prompt_ids=[], token_ids=[], text="") for c in completions]


def write_outcomes(path: Path, outcomes: Sequence[tuple[str, str | None, float]]) -> None:
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.writer(file)
        writer.writerow(("problem_id", "answer", "right"))
        writer.writerows((i, answer or "", f"{right:g}") for i, answer, right in outcomes)
