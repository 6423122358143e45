"""Slurm's commands and scripts: generation as an array of nodes, training over all nodes at once.

Outside of a job, generation is `sbatch --array` and training `sbatch`, both waited for by `submit_and_wait`, which
cancels the job when it is told to end. Within a job (`SLURM_JOB_ID`) both are steps of it, started by `srun`.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from irpo_lib.config import Config

#: Seconds between two looks at a job.
EVERY = 2.0
#: Where the ranks of a training find each other: the address that Slurm has for the first node, and a port of the job.
RENDEZVOUS = r"""first=$(scontrol show hostnames "$SLURM_STEP_NODELIST" | head -n 1)
address=$(scontrol show node --oneliner "$first" | sed -n 's/.* NodeAddr=\([^ ]*\).*/\1/p')
port=$((20000 + SLURM_JOB_ID % 20000))
is_host=$([ "$SLURM_PROCID" = 0 ] && echo true || echo false)"""


def start(work: str, config: Config, job: Path) -> tuple[list[str], dict[Path, str]]:
    """A step of the job that this process runs in, or a job that is submitted and waited for; and their scripts.

    One is what each task does, and outside of a job another is what is submitted.
    """
    scripts = {_task_script(job): task_script(work, config, job)}
    if "SLURM_JOB_ID" in os.environ:
        return step(config, job), scripts
    submitted = job.with_name("job.sbatch")
    scripts[submitted] = batch_script(work, config, job)
    return [sys.executable, "-m", "irpo_lib.cluster.slurm", str(submitted)], scripts


def step(config: Config, job: Path) -> list[str]:
    """One task a node; without --exact's share of cores, as each task has its node for itself."""
    return ["srun", f"--nodes={config.nodes}", f"--ntasks={config.nodes}", "--ntasks-per-node=1",
            "--kill-on-bad-exit=1", "bash", str(_task_script(job))]  # fmt: skip


def task_script(work: str, config: Config, job: Path) -> str:
    """What runs on each node: an engine with its part of the shards, or the node's ranks of a training."""
    python = f"{config.container} python" if config.container else shlex.quote(sys.executable)
    where = shlex.quote(str(job))
    if work == "sample":
        part = "${SLURM_ARRAY_TASK_ID:-$SLURM_PROCID}"
        lines = [f"exec {python} -m irpo_lib.cluster.job {where} {part} {config.nodes}"]
    else:
        lines = [
            RENDEZVOUS,
            f"exec {python} -m torch.distributed.run --nnodes={config.nodes} "
            f"--nproc-per-node={config.parallel.processes // config.nodes} --rdzv-backend=c10d "
            f'--rdzv-id="$SLURM_JOB_ID-$SLURM_STEP_ID" --rdzv-endpoint="$address:$port" '
            f'--rdzv-conf="is_host=$is_host" -m irpo_lib.cluster.job {where}',
        ]
    return _script([], ["set -e", *config.setup, *lines])


def batch_script(work: str, config: Config, job: Path) -> str:
    """A job: an array with a node for each engine, or all nodes for one training."""
    log = job.parent / "slurm-%A_%a.log" if work == "sample" else job.parent / "slurm-%j.log"
    options = [f"--job-name=irpo-{work}", f"--output={log}", "--open-mode=append", *config.slurm_options]
    if work == "sample":
        options += [f"--array=0-{config.nodes - 1}", "--nodes=1", "--ntasks=1"]
        run = f"exec bash {shlex.quote(str(_task_script(job)))}"
    else:
        options += [f"--nodes={config.nodes}", "--ntasks-per-node=1"]
        run = f"exec {shlex.join(step(config, job))}"
    return _script(options, [run])


def whole_script(config: Config, arguments: list[str]) -> str:
    """One job for a whole run: `irpo run …` on its first node, whose stages are steps over all of them."""
    options = ["--job-name=irpo", "--output=irpo-%j.log", "--open-mode=append", "--requeue", f"--nodes={config.nodes}",
               "--ntasks-per-node=1", *config.slurm_options]  # fmt: skip
    run = shlex.join([sys.executable, "-m", "irpo_lib.terminal.cli", *arguments])
    return _script(options, ["set -e", *config.setup, f"exec {run}"])


def _script(options: list[str], lines: list[str]) -> str:
    return "\n".join(["#!/bin/bash", *(f"#SBATCH {option}" for option in options), *lines, ""])


def _task_script(job: Path) -> Path:
    return job.with_name("task.sh")


def submit_and_wait(script: Path) -> int:
    """Submits a job, passes on what it writes, and returns 0 when all of it has succeeded.

    The job is cancelled when this process is told to end, or when nobody is left who reads what it passes on.
    """
    before, ends = set(_logs(script)), (signal.SIGTERM, signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # a job whose number is not known yet could not be cancelled
    job = subprocess.run(["sbatch", "--parsable", str(script)], capture_output=True, text=True)
    if job.returncode:
        print(f"irpo: sbatch refused {script}: {' '.join(job.stderr.split())}", flush=True)
        return 1
    number = job.stdout.strip().partition(";")[0]

    def cancel(*_) -> NoReturn:
        signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # each thread of a notebook that dies may send one
        subprocess.run(["scancel", number])
        sys.exit(143)

    for end in ends:
        signal.signal(end, cancel)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
    try:
        print(f"job {number} submitted", flush=True)
        return _follow(script, number, before)
    except BrokenPipeError:
        cancel()


def _follow(script: Path, number: str, before: set[Path]) -> int:
    """Passes on what a job writes into logs that were not there `before`, until it has ended."""
    read: dict[Path, int] = {}
    while True:
        ended = not _waiting(number)
        for log in sorted(set(_logs(script)) - before):
            with log.open(encoding="utf8", errors="replace") as file:
                file.seek(read.get(log, 0))
                sys.stdout.write(file.read())
                read[log] = file.tell()
        sys.stdout.flush()
        if ended:
            return _exit_code(number)
        time.sleep(EVERY)


def _logs(script: Path) -> list[Path]:
    return list(script.parent.glob("slurm-*.log"))


def _waiting(number: str) -> bool:
    """Whether some task of a job is still to end; a controller that does not answer is asked again."""
    found = subprocess.run(["squeue", "--noheader", "--jobs", number], capture_output=True, text=True)
    return bool(found.stdout.strip()) or (found.returncode != 0 and "Invalid job id" not in found.stderr)


def _exit_code(number: str) -> int:
    """1 if a task of the job has failed, as the controller remembers it for some minutes."""
    shown = subprocess.run(["scontrol", "show", "job", "--oneliner", number], capture_output=True, text=True).stdout
    states = [word.partition("=")[2] for line in shown.splitlines() for word in line.split() if "JobState=" in word]
    print(f"job {number}: {', '.join(states) or 'no state'}", flush=True)
    return 0 if states and all(state == "COMPLETED" for state in states) else 1


if __name__ == "__main__":
    sys.exit(submit_and_wait(Path(sys.argv[1])))
