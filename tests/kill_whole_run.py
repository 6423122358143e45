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
from pathlib import Path

from irpo_lib.store import hash_folder, read_log

#: Nearly all of the time goes into the start of engines and launchers, so there are few arms: with beta 0.1 two less.
SMALL = {
    "engine": "vllm", "parallel": "{fsdp: 2}", "micro_batch_size": 8, "beta": 0.1, "train_problems": 48, "samples": 6,
    "problems_per_shard": 8, "test_problems": 24, "majority_problems": 8, "majority_samples": 8, "max_steps": 20,
    "checkpoint_every": 5, "probe_pairs": 8, "iterations": 2,
    "temperatures": "[0.8, 1.0]", "majority_iterations": "[2]",
}  # fmt: skip
#: A kill comes after so much of the time that the undisturbed run took.
SHARE = (0.08, 0.2)


def command(run_dir: Path, launcher: str) -> list[str]:
    settings = SMALL | ({"launcher": "slurm", "nodes": 2} if launcher == "slurm" else {})
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return [sys.executable, "-m", "irpo_lib.cli", "run", *words, "--run-dir", str(run_dir)]


def undisturbed(run_dir: Path, launcher: str) -> float:
    """Runs to the end; returns the seconds it took."""
    began = time.monotonic()
    subprocess.run(command(run_dir, launcher), check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    print(f"{run_dir.name}: to the end in {seconds:.0f} s", flush=True)
    return seconds


def killed(run_dir: Path, launcher: str, moments: list[float]) -> None:
    """Each start is killed after its number of seconds; the next goes on, and the last to the end."""
    for wait in moments:
        with subprocess.Popen(command(run_dir, launcher), stdout=subprocess.DEVNULL) as process:
            time.sleep(wait)
            if process.poll() is not None:
                raise SystemExit(f"the run ended by itself within {wait:.0f} s: {process.returncode}")
            done, under_way = progress(run_dir)
            process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        while left := children(run_dir):
            if time.monotonic() - began > 60:
                raise SystemExit(f"still there a minute after the kill: {left}")
            time.sleep(0.2)
        print(f"killed after {wait:.0f} s: {done} stages done, under way {under_way or 'a notebook'}; its processes "
              f"were gone {time.monotonic() - began:.1f} s later", flush=True)  # fmt: skip
    undisturbed(run_dir, launcher)


def progress(run_dir: Path) -> tuple[int, str]:
    """The number of finished stages, and the one under way with its shards and checkpoints."""
    partial = list(run_dir.rglob("*.partial"))
    pieces = [p.name for folder in partial for kind in ("shard-*.parquet", "checkpoint-*") for p in folder.rglob(kind)]
    names = ", ".join(str(p.relative_to(run_dir)) for p in partial)
    return len(list(run_dir.rglob("stage.json"))), f"{names} {sorted(pieces)}" if partial else ""


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
    seconds = undisturbed(folder / "undisturbed", launcher)
    chance = random.Random(0)
    kills = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    killed(folder / "killed", launcher, [seconds * chance.uniform(*SHARE) for _ in range(kills)])
    compare(folder / "undisturbed", folder / "killed")
