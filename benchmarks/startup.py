"""Start-up: what is typed or imported first, against a bare Python that does nothing, or that imports torch."""

import pkgutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

import irpo_lib
from benchmarks.table import Row, less
from irpo_lib.probe import with_parts
from irpo_lib.results.figures import LOG_PROB_FIGURES
from irpo_lib.results.runs import Run
from irpo_lib.stages.store import MANIFEST, write_json

ROUNDS, SEEDS = 7, 3
NOTHING, TORCH = ("-c", "pass"), ("-c", "import torch")


def main() -> list[Row]:
    """Seconds of a new process from its start to its end, wall clock; medians of rounds in which all take turns."""
    with TemporaryDirectory() as name:
        write_runs(Path(name))
        figures = ("-m", "irpo_lib.terminal.cli", "figures", name)
        commands = {
            "python -c pass": NOTHING,
            "import torch": TORCH,
            "import irpo_lib": ("-c", "import irpo_lib"),
            "irpo --help": ("-m", "irpo_lib.terminal.cli", "--help"),
            f"irpo figures, {len(LOG_PROB_FIGURES)} panels of {SEEDS} seeds": figures,
        }
        taken: dict[str, list[float]] = {what: [] for what in commands}
        for _ in range(ROUNDS):
            for what, arguments in commands.items():
                taken[what].append(seconds(arguments))
    median = {what: statistics.median(values) for what, values in taken.items()}
    found = []
    for what, goal in zip(list(commands)[2:], (0.3, 0.3, 5.0), strict=True):
        peer = "import torch" if goal == 5.0 else "python -c pass"
        found.append(less("start-up", what, median[what], peer, median[peer], "s", f"< {goal} s"))
    with_torch, without = modules_that_import_torch()
    return [
        *found,
        less("start-up", "modules that import torch", len(with_torch), "all modules", len(with_torch + without),
            "modules", "those that compute with it"),
    ]  # fmt: skip


def seconds(arguments: tuple[str, ...]) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def modules_that_import_torch() -> tuple[list[str], list[str]]:
    """The package's modules that have torch imported when they are, and the others."""
    with_torch, without = [], []
    for module in pkgutil.walk_packages(irpo_lib.__path__, "irpo_lib."):
        code = f"import sys, {module.name}; sys.exit('torch' in sys.modules)"
        ended = subprocess.run([sys.executable, "-c", code], check=False).returncode
        (with_torch if ended else without).append(module.name)
    return with_torch, without


def write_runs(folder: Path) -> None:
    """What `irpo figures` reads of a run: here random log-probs of 64 pairs at 11 steps."""
    generator = np.random.default_rng(0)
    models = {model for figure in LOG_PROB_FIGURES.values() for _, model, _ in figure.lines}
    keys = pd.MultiIndex.from_product([range(0, 110, 10), range(64)], names=["step", "problem_id"])
    for task in sorted({f"{figure.task}-mini" for figure in LOG_PROB_FIGURES.values()}):
        for seed in range(SEEDS):
            run = Run(folder / task / f"seed-{seed}")
            evaluated = run.of("M0", "evaluate")
            evaluated.mkdir(parents=True)
            write_json(evaluated / MANIFEST, {"settings": {"task": task, "seed": seed}})
            for model in sorted(models):
                looks = keys.to_frame(index=False).assign(k=0)
                for kind in ("chosen", "rejected", "gold"):
                    looks[f"{kind}_logps"], looks[f"{kind}_length"] = generator.normal(-50, 5, len(looks)), 50
                run.of(model, "train").mkdir(parents=True)
                with_parts(looks, beta=1.0).to_parquet(run.of(model, "train") / "probe.parquet")
