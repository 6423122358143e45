"""`irpo run` killed -9 at five random moments and continued, beside an undisturbed one: the same results.

    python tests/kill_whole_run.py FOLDER local|slurm [kills]

A small run of mini with vLLM and FSDP2 over two processes; on Slurm (of `start-slurm`, with its `SLURM_CONF` exported)
generation is an array and training spans both nodes. It takes a quarter of an hour on two cores, so it is a program and
no test.
"""

import os
import random
import signal
import subprocess
import sys
import time
from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from irpo_lib.stages.store import hash_folder, read_json, read_log

#: Nearly all of the time goes into the start of engines and launchers, so there are few iterations and steps.
SMALL = {
    "engine": "vllm", "parallel": "{fsdp: 2}", "micro_batch_size": 8, "train_problems": 48, "samples": 6,
    "problems_per_shard": 8, "test_problems": 24, "majority_problems": 8, "majority_samples": 8, "max_steps": 20,
    "checkpoint_every": 5, "probe_pairs": 8, "iterations": 2, "temperatures": "[0.8, 1.0]",
    "majority_iterations": "[2]",
}  # fmt: skip


def command(run_dir: Path, launcher: str) -> list[str]:
    settings = SMALL | ({"launcher": "slurm", "nodes": 2} if launcher == "slurm" else {})
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return [sys.executable, "-m", "irpo_lib.terminal.cli", "run", *words, "--run-dir", str(run_dir)]


def to_the_end(run_dir: Path, launcher: str) -> None:
    began = time.monotonic()
    subprocess.run(command(run_dir, launcher), check=True, stdout=subprocess.DEVNULL)
    print(f"{run_dir.name}: to the end in {time.monotonic() - began:.0f} s", flush=True)


def random_moments(whole: Path, kills: int) -> list[tuple[int, float]]:
    """(finished stages, seconds after that) of each kill: one anywhere in each part of the time that stages took."""
    manifests = sorted(whole.rglob("stage.json"), key=lambda path: path.stat().st_mtime)
    seconds = [read_json(path)["seconds"] for path in manifests]
    begins = [0.0, *accumulate(seconds)]
    chance = random.Random(1)
    moments = [begins[-1] * (number + chance.random()) / kills for number in range(kills)]
    return [(done := bisect_right(begins, at) - 1, at - begins[done]) for at in moments]


def killed(run_dir: Path, launcher: str, moments: list[tuple[int, float]]) -> None:
    """Each start is killed at its moment; the next goes on, and the last to the end."""
    for stages, wait in moments:
        began = time.monotonic()
        with subprocess.Popen(command(run_dir, launcher), stdout=subprocess.DEVNULL) as process:
            while progress(run_dir)[0] < stages and process.poll() is None:
                time.sleep(0.1)
            time.sleep(wait)
            if process.poll() is not None:
                raise SystemExit(f"the run ended before it could be killed: {process.returncode}")
            done, under_way = progress(run_dir)
            process.send_signal(signal.SIGKILL)
        at = time.monotonic()
        while left := children(run_dir):
            if time.monotonic() - at > 60:
                raise SystemExit(f"still there a minute after the kill: {left}")
            time.sleep(0.2)
        print(f"killed after {at - began:.0f} s, {done} stages done, under way: {under_way or 'none'}; its processes "
              f"were gone {time.monotonic() - at:.1f} s later", flush=True)  # fmt: skip
    to_the_end(run_dir, launcher)


def progress(run_dir: Path) -> tuple[int, str]:
    """The number of finished stages, and the one under way with its shards and checkpoints."""
    partial = list(run_dir.rglob("*.partial"))
    pieces = [p.name for kind in ("shard-*.parquet", "checkpoint-*") for folder in partial for p in folder.rglob(kind)]
    names = [str(folder.relative_to(run_dir)) for folder in partial]
    return len(list(run_dir.rglob("stage.json"))), " ".join(names + sorted(pieces))


def children(run_dir: Path) -> list[str]:
    """Processes that work for a run."""
    found = subprocess.run(["ps", "-eo", "pid,stat,args"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in found if f"{run_dir}/" in line and "kill_whole_run" not in line and "Z" not in line[:14]]


def compare(whole: Path, other: Path) -> None:
    """Samples, pairs, outcomes: the same bytes. Losses: within 1e-5 of each other."""
    same = [compared(run, "*.parquet", "greedy.csv", "majority.csv") for run in (whole, other)]
    different = sorted(str(n) for n in same[0] | same[1] if content(whole / n) != content(other / n))
    print(f"{len(same[0])} files of samples, pairs and outcomes: {len(different)} differ {different}")
    worst, steps = 0.0, 0
    for name in sorted(compared(whole, "log.csv")):
        for a, b in zip(read_log(whole / name), read_log(other / name), strict=True):
            steps += 1
            worst = max(worst, *(abs(a[key] - b[key]) for key in a.keys() & {"loss", "dpo", "nll"}))
    print(f"{steps} steps: losses differ by at most {worst:.2e}")
    models = sorted(p.relative_to(whole) for p in whole.rglob("train/model"))
    equal = sum(hash_folder(whole / name) == hash_folder(other / name) for name in models)
    print(f"{len(models)} models: {equal} have the same bytes")
    if different or not steps or worst > 1e-5:
        raise SystemExit(1)


def compared(run_dir: Path, *patterns: str) -> set[Path]:
    found = (p.relative_to(run_dir) for pattern in patterns for p in run_dir.rglob(pattern))
    return {name for name in found if name.parts[0] in ("iteration-0", "iteration-1", "iteration-2", "arms")}


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


if __name__ == "__main__":
    folder, launcher = Path(sys.argv[1]).resolve(), sys.argv[2]
    os.environ["OMP_NUM_THREADS"] = "1"
    to_the_end(folder / "undisturbed", launcher)
    kills = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    killed(folder / "killed", launcher, random_moments(folder / "undisturbed", kills))
    compare(folder / "undisturbed", folder / "killed")
