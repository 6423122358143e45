"""Sampled responses on disk: asked for, read again shard by shard or problem by problem, and what became of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from irpo_lib.config import Config
from irpo_lib.evaluation import Outcome
from irpo_lib.records import Completion, Problem
from irpo_lib.rewards import rewarded
from irpo_lib.stages.parquet import stream
from irpo_lib.stages.store import replace_file, write_records
from irpo_lib.tasks import get_task

#: What does a piece of work ("sample", "reference", "train") for a stage: (work, config, folder, **arguments).
Launch = Callable[..., None]


def sample(launch: Launch, folder: Path, config: Config, problems: list[Problem], **asked: Any) -> None:
    """Responses to each problem, shard by shard; `asked` are the other arguments of `generation.sample`."""
    folder.mkdir(exist_ok=True)
    listed = folder / "problems.parquet"
    write_records(listed, problems)
    try:
        launch("sample", config, folder, problems=listed, **asked)
    finally:
        listed.unlink()


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("shard-*.parquet"))


def by_problem(reward: Path) -> Iterator[list[Completion]]:
    """The completions of a `reward` stage, problem after problem: those of one stand together, as they were sampled."""
    completions = stream(reward / "completions.parquet", Completion)
    return (list(group) for _, group in groupby(completions, key=attrgetter("problem_id")))


def answers(launch: Launch, folder: Path, config: Config, problems: list[Problem], **asked: Any) -> list[Completion]:
    """What `sample` draws, rewarded, without tokens and text, which nobody counts."""
    sample(launch, folder, config, problems, **asked)
    completions = rewarded(stream(shards(folder), Completion), problems, get_task(config.task, config.task_path))
    return [replace(c, prompt_ids=[], token_ids=[], text="") for c in completions]


def write_outcomes(path: Path, outcomes: Sequence[Outcome]) -> None:
    """What became of each problem → a CSV."""
    import pandas as pd  # takes time, which `irpo run --dry-run` has no use for

    table = pd.DataFrame(outcomes, columns=["problem_id", "answer", "right"]).astype({"right": float})
    replace_file(path, partial(table.to_csv, index=False, float_format="%g", lineterminator="\r\n"))
