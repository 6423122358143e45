"""A piece of long work as a file: `python -m irpo_lib.cluster.job JOB.json` does it in a process of its own.

The works are functions of plain values and folders: `sample`, `reference`, `train`.
"""

import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from irpo_lib.cluster.children import die_with_parent
from irpo_lib.config import Config, config_from
from irpo_lib.stages.store import full_disk_named, write_json
from irpo_lib.terminal.errors import UserError

#: Names of works, which are those of functions → their modules; imported when they are needed.
WORKS = {"sample": "irpo_lib.generation", "reference": "irpo_lib.logprobs", "train": "irpo_lib.training"}
#: Arguments that are paths; in a job file they are text.
PATHS = ("folder", "pairs", "reference", "problems")


def work(name: str) -> Callable[..., None]:
    """The function of a work."""
    return getattr(import_module(WORKS[name]), name)


def write_job(path: Path, name: str, config: Config, arguments: dict[str, Any]) -> None:
    plain = {n: str(v) if n in PATHS else v for n, v in arguments.items()}
    write_json(path, {"work": name, "config": asdict(config), "arguments": plain})


def main(argv: Sequence[str]) -> int:
    """`python -m irpo_lib.cluster.job JOB.json [PART OF]`; one sentence on stderr for what a user can put right."""
    from irpo_lib.models.parallel import leave

    die_with_parent(signal.SIGKILL)
    job = json.loads(Path(argv[0]).read_text(encoding="utf8"))
    arguments = {n: Path(v) if n in PATHS else v for n, v in job["arguments"].items()}
    if len(argv) == 3:
        arguments |= {"part": int(argv[1]), "of": int(argv[2])}
    try:
        with full_disk_named(arguments["folder"]):
            work(job["work"])(config_from(job["config"]), **arguments)
    except UserError as error:
        print(f"irpo: {error}", file=sys.stderr, flush=True)
        return 1
    leave()
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        sys.stdout.flush()
        os._exit(0)  # a thread of gloo's may still be there, and abort a process that ends in the ordinary way
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
