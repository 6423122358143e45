"""`irpo run` killed -9 at five random moments and continued, beside an undisturbed one: the same results.

    python tests/kill_whole_run.py FOLDER local|slurm [kills]

A small run of mini with vLLM and FSDP2 over two processes; on Slurm (of `start-slurm`) generation is an array and
training spans both nodes. It takes from ten minutes to half an hour, so it is a program and no test.
"""

import csv
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

SMALL = {
    "engine": "vllm", "parallel": "{fsdp: 2}", "micro_batch_size": 8, "train_problems": 48, "test_problems": 40,
    "majority_problems": 8, "majority_samples": 8, "samples": 6, "max_steps": 20, "checkpoint_every": 5,
    "problems_per_shard": 16, "probe_every": 10, "probe_pairs": 8, "iterations": 2, "temperatures": "[0.8, 1.0]",
    "majority_iterations": "[0, 2]",
}  # fmt: skip
#: Seconds between the start of a run and its end by force.
MOMENTS = (20, 70)


def command(run_dir: Path, launcher: str) -> list[str]:
    settings = SMALL | ({"launcher": "slurm", "nodes": 2} if launcher == "slurm" else {})
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return [sys.executable, "-m", "irpo_lib.cli", "run", *words, "--run-dir", str(run_dir)]


def undisturbed(run_dir: Path, launcher: str) -> None:
    began = time.monotonic()
    subprocess.run(command(run_dir, launcher), check=True, stdout=subprocess.DEVNULL)
    print(f"undisturbed: {time.monotonic() - began:.0f} s", flush=True)


def killed(run_dir: Path, launcher: str, kills: int) -> None:
    rng = random.Random(0)
    for number in range(1, kills + 1):
        wait = rng.uniform(*MOMENTS)
        with subprocess.Popen(command(run_dir, launcher), stdout=subprocess.DEVNULL) as process:
            time.sleep(wait)
            if process.poll() is not None:
                raise SystemExit(f"the run ended by itself within {wait:.0f} s: {process.returncode}")
            process.send_signal(signal.SIGKILL)
        began = time.monotonic()
        while left := children(run_dir):
            if time.monotonic() - began > 60:
                raise SystemExit(f"still there a minute after the kill: {left}")
            time.sleep(0.2)
        done = sorted(str(p.parent.relative_to(run_dir)) for p in run_dir.rglob("stage.json"))
        print(f"kill {number} after {wait:.0f} s, with {len(done)} stages done ({done[-1:]}); its processes were gone "
              f"{time.monotonic() - began:.1f} s later", flush=True)  # fmt: skip
    undisturbed(run_dir, launcher)


def children(run_dir: Path) -> list[str]:
    """Processes that work for a run."""
    found = subprocess.run(["ps", "-eo", "pid,stat,args"], capture_output=True, text=True).stdout.splitlines()
    return [line for line in found if f"{run_dir}/" in line and "kill_whole_run" not in line and "Z" not in line[:14]]


def compare(whole: Path, other: Path) -> None:
    """Samples, pairs, outcomes: the same bytes. Log-probs and losses: within 1e-5 of each other."""
    names = sorted(p.relative_to(whole) for p in whole.rglob("*.parquet") if "results" not in p.parts)
    names += sorted(p.relative_to(whole) for p in whole.rglob("greedy.csv"))
    names += sorted(p.relative_to(whole) for p in whole.rglob("majority.csv"))
    different = [str(n) for n in names if (whole / n).read_bytes() != (other / n).read_bytes()]
    print(f"{len(names)} files of samples, pairs and outcomes: {len(different)} differ {different}")
    worst, rows = 0.0, 0
    for log in sorted(whole.rglob("log.csv")):
        for a, b in zip(read(log), read(other / log.relative_to(whole)), strict=True):
            worst, rows = max(worst, *(abs(float(a[k]) - float(b[k])) for k in ("loss", "nll", "dpo"))), rows + 1
    print(f"{rows} steps: losses differ by at most {worst:.2e}")
    if different or not rows or worst > 1e-5:
        raise SystemExit(1)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf8") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    folder, launcher = Path(sys.argv[1]).resolve(), sys.argv[2]
    undisturbed(folder / "undisturbed", launcher)
    killed(folder / "killed", launcher, int(sys.argv[3]) if len(sys.argv) > 3 else 5)
    compare(folder / "undisturbed", folder / "killed")
