"""A stage's work becomes a call in this process, processes on this machine, or jobs of Slurm: 8 nodes × 8 GPUs (§ 3).

The notebook that asks for a stage waits for it, shows its progress, and fails with its last lines if it fails. What it
starts dies with it, however it ends; run again, it goes on from the last shard or checkpoint. Slurm's scripts are in
`slurm`.
"""

import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from irpo_lib.cluster import job as jobs
from irpo_lib.cluster import slurm
from irpo_lib.cluster.children import die_with_parent
from irpo_lib.config import Config
from irpo_lib.terminal.errors import UserError
from irpo_lib.terminal.progress import LEFT, shows_progress

#: Lines of a failed command that its error repeats.
LAST_LINES = 12
#: Lines that are looked through for what went wrong.
KEPT_LINES = 2000


def run_work(work: str, config: Config, folder: Path, **arguments: Any) -> None:
    """Does a piece of `work` for the stage in `folder`, wherever the config wants it done.

    Raises:
        UserError: it failed, with its last lines.
    """
    job = folder / "job.json"
    command, files = start(work, config, job)
    if not command:
        jobs.work(work)(config, folder=folder, **arguments)
        return
    jobs.write_job(job, work, config, {"folder": folder, **arguments})
    try:
        for path, text in files.items():
            path.write_text(text, encoding="utf8")
        execute(command, folder)
    finally:
        for path in (job, *files):
            path.unlink(missing_ok=True)


def start(work: str, config: Config, job: Path) -> tuple[list[str], dict[Path, str]]:
    """The command that does a job, as it would be typed, and the files that it needs beside it: path → text.

    An empty command stands for this process; vLLM has one of its own, so that its memory is free again before training
    starts.
    """
    if config.launcher == "slurm":
        return slurm.start(work, config, job)
    module = ["-m", "irpo_lib.cluster.job", str(job)]
    if work == "sample":
        return [sys.executable, *module] if config.engine == "vllm" else [], {}
    processes = config.parallel.processes
    return [*torchrun(processes), "--standalone", *module] if processes > 1 else [], {}


def torchrun(processes: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}"]


def execute(arguments: list[str], folder: Path) -> None:
    """Runs a command to its end; its progress is shown, all of its output is in `folder/work.log`.

    Raises:
        UserError: it ended with an error: with the sentence it said of it, or its last lines.
    """
    log = folder / "work.log"
    lines: deque[str] = deque(maxlen=KEPT_LINES)
    with (
        log.open("a", encoding="utf8") as file,
        subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True,
            errors="replace", preexec_fn=die_with_parent, start_new_session=True,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        ) as process,
    ):  # fmt: skip
        try:
            for line in process.stdout:  # type: ignore[union-attr]
                file.write(line)
                file.flush()
                if line.rstrip().endswith(LEFT):
                    shows_progress(line.rstrip())
                else:
                    lines.append(line.rstrip())
        except BaseException:  # an interrupt, too, ends what was started
            process.terminate()
            raise
    if process.returncode:
        raise UserError(f"{_reason(lines)} ({' '.join(arguments)} ended with {process.returncode}; see {log})")


def _reason(lines: Iterable[str]) -> str:
    """The sentence that a process said for its user; else its errors and signals; else its last lines."""
    said = [line.partition("irpo: ")[2] for line in lines if "irpo: " in line]
    errors = [line for line in lines if re.search(r"^(\[rank\d+\]: ?)?[\w.]+(Error|Exception|Exit)\b|\(SIG", line)]
    return next(iter(said), None) or "\n".join(list(dict.fromkeys(errors or lines))[-LAST_LINES:])
