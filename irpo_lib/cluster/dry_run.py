"""`irpo run --dry-run`: every stage of a run in its order, where it would run, the commands and their files."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from irpo_lib.arms import BEYOND, Arm, arms_of
from irpo_lib.cluster import launch
from irpo_lib.config import Config
from irpo_lib.tasks import get_task

#: (folder of the stage, what it does, the works it starts)
Step = tuple[str, str, tuple[str, ...]]


def steps_of(config: Config) -> Iterator[Step]:
    """The loop, then the arms: the rows of Tables 1 and 2 and the studies beyond them that the notebooks may train."""
    votes = get_task(config.task, config.task_path).normalise is not None
    c = config if votes else replace(config, majority_iterations=())
    yield "iteration-0/evaluate", _evaluation(c, 0), _evaluating(c, 0)
    for t in range(1, c.iterations + 1):
        here = f"iteration-{t}"
        how = f"{c.samples} samples a training problem at temperature {c.temperatures[t - 1]}, by M{t - 1}"
        yield f"{here}/generate", how, ("sample",)
        yield f"{here}/reward", "their final answers", ()
        yield f"{here}/pairs", f"{c.pairs_per_problem} pairs a problem, at most {c.max_pairs:,}", ()
        yield f"{here}/reference", f"log-probs of the pairs under M{t - 1}", ("reference",)
        if c.select_checkpoint:
            yield f"{here}/select", _selection(c), ("train", "sample")
        yield f"{here}/train", f"M{t} from M{t - 1}, at most {c.max_steps} steps of {c.batch_size} pairs", ("train",)
        yield f"{here}/evaluate", _evaluation(c, t), _evaluating(c, t)
    for arm in arms_of(c):
        yield from _arm(c, arm)


def _arm(config: Config, arm: Arm) -> Iterator[Step]:
    here, of = f"arms/{arm.name}", "beyond the paper" if arm in BEYOND else "Tables 1 and 2"
    yield f"{here}/reference", f"{arm.method}: where the loop's cannot be shared", ("reference",)
    if config.select_checkpoint:
        yield f"{here}/select", _selection(config), ("train", "sample")
    yield f"{here}/train", f"{arm.method} ({of})", ("train",)
    yield f"{here}/evaluate", "greedy on the test split", ("sample",)


def _selection(c: Config) -> str:
    return f"trains without {c.held_out} problems, then tries every {c.checkpoint_every}th step on them"


def _evaluation(c: Config, t: int) -> str:
    vote = f", and {c.majority_samples} votes" if t in c.majority_iterations else ""
    return f"M{t} on the test split: greedy{vote}"


def _evaluating(c: Config, t: int) -> tuple[str, ...]:
    return ("sample", "sample") if t in c.majority_iterations else ("sample",)


def dry_run(config: Config, run_dir: Path) -> str:
    """The plan as text; nothing is written and nothing is run."""
    lines = [f"{config.task} in {run_dir}; a stage that is there already is not done again", ""]
    for folder, what, works in steps_of(config):
        lines.append(f"{folder:<28}{what}")
        lines += [f"    {_command(work, config, _job(run_dir, folder))}" for work in works]
    lines += ["", "Files that stand in a stage's folder while it is under way, here of the first iteration:"]
    for work, stage in (("sample", "generate"), ("reference", "reference"), ("train", "train")):
        job = _job(run_dir, f"iteration-1/{stage}")
        if launch.in_this_process(work, config):
            continue
        lines += ["", f"{job}: what to do ({work}), with this config:", json.dumps(asdict(config))]
        for path, text in launch.files(work, config, job).items():
            lines += ["", f"{path}:", text.rstrip()]
    return "\n".join(lines)


def _job(run_dir: Path, folder: str) -> Path:
    return run_dir / f"{folder}.partial" / "job.json"


def _command(work: str, config: Config, job: Path) -> str:
    if launch.in_this_process(work, config):
        return f"{work}: in the notebook's own process"
    return shlex.join(launch.command(work, config, job))
