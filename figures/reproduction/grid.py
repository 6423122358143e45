"""`irpo reproduce`: every row of Tables 1 and 2, every line of Figures 2–4, for several seeds.

A run folder for each task and seed, `OUT/TASK/seed-S`; in each the loop (`iteration`) and the arms (`arms`). Done
stages are kept, so that a grid that was stopped goes on, and a grid with more seeds adds to one with fewer.
"""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from irpo_lib.arms import arms_of, evaluate_arm, evaluate_on_dev, train_arm, tuning_arms
from irpo_lib.config import Config
from irpo_lib.iteration import Experiment
from irpo_lib.models.load import model_hash
from irpo_lib.stages.store import library_versions, read_json, write_json
from irpo_lib.terminal.errors import UserError
from irpo_lib.terminal.progress import Progress, quiet

PROVENANCE = "reproduction.json"


def reproduce(configs: Mapping[str, Config], seeds: Sequence[int], out: Path, models: Sequence[str] = ()) -> None:
    """Runs the grid; the tuning of § 3.1 for the first seed only, on the tasks that it was done for.

    Args:
        configs: task → what all of its runs share.
        seeds: One run for each task and seed.
        out: The folder of all runs.
        models: An M0 for each seed, so that what differs between pre-trainings is part of the spread between seeds;
            empty for the config's, the same for all.

    Raises:
        UserError: there are not as many models as seeds.
    """
    if models and len(models) != len(seeds):
        raise UserError(f"--models names {len(models)} models for {len(seeds)} seeds: give one for each seed")
    models = models or [next(iter(configs.values())).model] * len(seeds)
    plan: list[Callable[[], Any]] = []
    for task, config in configs.items():
        for seed, model in zip(seeds, models, strict=True):
            main = Experiment(replace(config, seed=seed, model=model), out / task / f"seed-{seed}")
            plan += stages_of(main, tune=seed == seeds[0])
    started = time.time()
    with Progress(len(plan), "reproduce", "stages") as progress, quiet():
        for stage in plan:
            before = time.monotonic()
            stage()
            # What an earlier run had done takes no time and says nothing about what is left.
            (progress.add if time.monotonic() - before > 0.5 else progress.skip)(1)
    note = {
        "command": "irpo " + " ".join(sys.argv[1:]),
        "seeds": list(seeds),
        "seed_models": [{"model": m, "hash": model_hash(m)} for m in models],
        "seconds": round(time.time() - started),
        "commit": _commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {os.environ.get('OMP_NUM_THREADS', 'all')} threads",
        "versions": library_versions(),
        "configs": {task: asdict(config) for task, config in configs.items()},
    }
    path = out / PROVENANCE
    write_json(path, [*(read_json(path) if path.is_file() else []), note])


def stages_of(main: Experiment, tune: bool) -> list[Callable[[], Any]]:
    """The stages of one task and seed in the order of their making; each asks for those before it."""
    config: Config = main.config
    plan: list[Callable[[], Any]] = [partial(main.evaluate, 0)]
    for t in range(1, config.iterations + 1):
        plan += [partial(stage, t) for stage in (main.generate, main.reference, main.train, main.evaluate)]
    for arm in arms_of(config):
        plan += [partial(train_arm, main, arm), partial(evaluate_arm, main, arm)]
    if tune and config.task.startswith("gsm8k"):
        plan += [partial(evaluate_on_dev, main, arm) for arm in (None, *tuning_arms(config))]
    return plan


def _commit() -> str:
    """The commit of this code, with a mark where files were changed since; 'unknown' outside a clone."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"
