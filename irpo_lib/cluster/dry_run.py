"""`irpo run --dry-run`: every stage of a run in its order, where it would run, the commands and their files."""

import json
import shlex
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from irpo_lib.arms import BEYOND, arms_of
from irpo_lib.cluster import launch
from irpo_lib.config import Config
from irpo_lib.evaluation import models_with_votes
from irpo_lib.tasks import get_task

#: (folder of the stage, what it does, the works it starts)
Step = tuple[str, str, tuple[str, ...]]


def steps_of(config: Config) -> Iterator[Step]:
    """The loop, then the arms: the rows of Tables 1 and 2 and the studies beyond them that the notebooks may train."""
    c, voting = config, models_with_votes(config, get_task(config.task, config.task_path))
    for t in range(c.iterations + 1):
        here = f"iteration-{t}"
        if t:
            how = f"{c.samples} samples a training problem at temperature {c.temperatures[t - 1]}, by M{t - 1}"
            yield f"{here}/generate", how, ("sample",)
            yield f"{here}/reward", "their final answers", ()
            yield f"{here}/pairs", f"{c.pairs_per_problem} pairs a problem, at most {c.max_pairs:,}", ()
            what = f"M{t} from M{t - 1}, at most {c.max_steps} steps of {c.batch_size} pairs"
            yield from _training(c, here, f"log-probs of the pairs under M{t - 1}", what)
        vote = f", and {c.majority_samples} votes" if t in voting else ""
        yield f"{here}/evaluate", f"M{t} on the test split: greedy{vote}", ("sample", "sample") if vote else ("sample",)
    for arm in arms_of(c):
        here, of = f"arms/{arm.name}", "beyond the paper" if arm in BEYOND else "Tables 1 and 2"
        yield from _training(c, here, f"{arm.method}: where the loop's cannot be shared", f"{arm.method} ({of})")
        yield f"{here}/evaluate", "greedy on the test split", ("sample",)


def _training(c: Config, here: str, reference: str, train: str) -> Iterator[Step]:
    yield f"{here}/reference", reference, ("reference",)
    if c.select_checkpoint:
        how = f"trains without {c.held_out} problems, then tries every {c.checkpoint_every}th step on them"
        yield f"{here}/select", how, ("train", "sample")
    yield f"{here}/train", train, ("train",)


def dry_run(config: Config, run_dir: Path) -> str:
    """The plan as text; nothing is written and nothing is run."""
    lines = [f"{config.task} in {run_dir}; a stage that is there already is not done again", ""]
    for folder, what, works in steps_of(config):
        lines.append(f"{folder:<28}{what}")
        for work in works:
            command, _ = launch.start(work, config, _job(run_dir, folder))
            lines.append("    " + (shlex.join(command) or f"{work}: in the notebook's own process"))
    lines += ["", "Files that stand in a stage's folder while it is under way, here of the first iteration:"]
    for work, stage in (("sample", "generate"), ("reference", "reference"), ("train", "train")):
        job = _job(run_dir, f"iteration-1/{stage}")
        command, files = launch.start(work, config, job)
        if command:
            lines += ["", f"{job}: what to do ({work}), with this config:", json.dumps(asdict(config))]
        for path, text in files.items():
            lines += ["", f"{path}:", text.rstrip()]
    return "\n".join(lines)


def _job(run_dir: Path, folder: str) -> Path:
    return run_dir / f"{folder}.partial" / "job.json"
