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
from typing import Any, NoReturn

from jinja2 import StrictUndefined, Template

from irpo_lib.config import Config

#: Seconds between two looks at a job.
EVERY = 2.0


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
    return _script("task.sh", work=work, config=config, python=python, job=shlex.quote(str(job)))


def batch_script(work: str, config: Config, job: Path) -> str:
    """A job: an array with a node for each engine, or all nodes for one training."""
    command = ["bash", str(_task_script(job))] if work == "sample" else step(config, job)
    return _script("job.sbatch", work=work, config=config, command=shlex.join(command), folder=job.parent)


def whole_script(config: Config, arguments: list[str]) -> str:
    """One job for a whole run: `irpo run …` on its first node, whose stages are steps over all of them."""
    command = [sys.executable, "-m", "irpo_lib.terminal.cli", *arguments]
    return _script("run.sbatch", config=config, command=shlex.join(command))


def _script(template: str, **values: Any) -> str:
    """One of the templates beside this file, filled in."""
    text = Path(__file__).with_name(template).read_text(encoding="utf8")
    return Template(text, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True).render(values)


def _task_script(job: Path) -> Path:
    return job.with_name("task.sh")


def submit_and_wait(script: Path) -> int:
    """Submits a job, passes on what it writes, and returns 0 when all of it has succeeded.

    The job is cancelled when this process is told to end, or when nobody is left who reads what it passes on.
    """
    ends = (signal.SIGTERM, signal.SIGINT)
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
        return _follow(script.parent, number)
    except BrokenPipeError:
        cancel()


def _follow(folder: Path, number: str) -> int:
    """Passes on what a job, or each task of its array, writes into its log, until it has ended."""
    read: dict[Path, int] = {}
    while True:
        ended = not _waiting(number)
        for log in sorted(folder.glob(f"slurm-{number}[._]*")):
            with log.open(encoding="utf8", errors="replace") as file:
                file.seek(read.get(log, 0))
                sys.stdout.write(file.read())
                read[log] = file.tell()
        sys.stdout.flush()
        if ended:
            return _exit_code(number)
        time.sleep(EVERY)


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
