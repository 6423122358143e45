"""Run folders: a stage is there whole, with a manifest, or not at all.

A stage works in `NAME.partial` and is renamed to `NAME` when it is complete, so that an error, a kill or a second
run never leaves half a result under its final name. What a killed stage had finished (shards, checkpoints) is still
in `NAME.partial`, and the next run goes on from there.
"""

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from irpo_lib.stages import parquet
from irpo_lib.terminal.errors import UserError

MANIFEST = "stage.json"
#: A run's config, for its readers: where M0 and the task's files are stands in no stage.
CONFIG = "config.json"
#: Of a stage under way: its settings and inputs, and locks of the process that asks for it and of the one that works.
BEGUN, LOCK, WORK_LOCK = "begun.json", ".lock", ".work.lock"
#: What a stage under way has beside its output.
WORKING = (BEGUN, LOCK, WORK_LOCK, "job.json", "counts.json")
#: Of a training's checkpoint: its log, written last; a checkpoint without it was cut off while it was being written.
COMPLETE = "log.json"
LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "vllm")
R = TypeVar("R")


def run_stage(
    folder: Path, settings: dict[str, Any], inputs: dict[str, str], work: Callable[[Path], dict[str, Any]]
) -> Path:
    """Runs `work` once for these settings and inputs and returns the stage's folder.

    Args:
        folder: Where the stage's files are to be.
        settings: The part of the config that the result depends on.
        inputs: What it is made from: a name → a hash of its content.
        work: Called with the folder to write into, which may hold what an earlier, killed run had finished; returns
            the counts that are worth a line in `irpo status`.

    Raises:
        UserError: the folder holds the result of other settings or inputs, or another process works on it.
    """
    wanted = _plain({"settings": settings, "inputs": inputs})
    if _recorded(folder / MANIFEST, wanted):
        return folder
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    with _locked(partial):
        if _recorded(folder / MANIFEST, wanted):  # another process finished it while this one waited for the disk
            remove(partial)
            return folder
        if not _recorded(partial / BEGUN, wanted):
            write_json(partial / BEGUN, wanted)
        started = time.time()
        try:
            with full_disk_named(partial):
                counts = work(partial)
        except UserError:
            if not _files(partial):  # nothing is lost, and other settings may follow at once
                remove(partial)
            raise
        manifest = wanted | {
            "status": "complete",
            "counts": counts,
            "seconds": round(time.time() - started, 1),
            "outputs": {str(p.relative_to(partial)): hash_file(p) for p in _files(partial)},
            "versions": library_versions(),
            "device": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        write_json(partial / MANIFEST, manifest)
        _sync(*_files(partial), partial)
        partial.rename(folder)
        _sync(folder.parent)
        for name in WORKING:
            (folder / name).unlink(missing_ok=True)
    return folder


def stage_hash(folder: Path) -> str:
    """A hash of what a finished stage holds: equal for equal files."""
    return hash_json(read_json(folder / MANIFEST)["outputs"])


def hash_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()[:16]


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def hash_folder(folder: Path) -> str:
    """A hash of the names and contents of all files in a folder."""
    return hash_json({str(p.relative_to(folder)): hash_file(p) for p in _files(folder)})


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error


def write_json(path: Path, value: Any) -> None:
    replace_file(path, lambda p: p.write_text(json.dumps(_plain(value), indent=2) + "\n", encoding="utf8"))


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file under a temporary name, then renames it: it is there whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    write(temporary)
    _sync(temporary)
    os.replace(temporary, path)


def write_records(path: Path, records: Iterable[Any]) -> None:
    """Records (dataclasses of one kind) → one Parquet file, as they come."""
    replace_file(path, lambda p: parquet.write(p, records))


def read_records(paths: Path | Sequence[Path], kind: type[R]) -> list[R]:
    """Parquet files → all of their records at once; a damaged one is a UserError."""
    return list(parquet.stream(paths, kind))


@contextmanager
def full_disk_named(folder: Path) -> Iterator[None]:
    """safetensors and torch.save report a full disk as errors of their own: makes them the OSError that it is."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, RuntimeError) as error:
        if re.search("No space left|PytorchStreamWriter|inline_container", str(error)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise


def read_log(path: Path) -> list[dict[str, float]]:
    """A CSV of numbers → one dictionary a line."""
    import csv

    with path.open(encoding="utf8", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file)]


def remove(folder: Path) -> None:
    """Deletes a folder of intermediate files; its absence is no error."""
    if folder.exists():
        shutil.rmtree(folder)


def _recorded(record: Path, wanted: dict[str, Any]) -> bool:
    """Whether a stage is there, or was begun; a UserError where it was with other settings or inputs."""
    if not record.is_file():
        return False
    there = read_json(record)
    differing = [
        f"{key} ({there[part].get(key)!r} there, {wanted[part].get(key)!r} now)"
        for part in ("settings", "inputs")
        for key in sorted(there[part].keys() | wanted[part].keys())
        if there[part].get(key) != wanted[part].get(key)
    ]
    if differing:
        raise UserError(
            f"{record.parent} was made with other settings: {'; '.join(differing)}. "
            f"Choose another run folder, or delete this one if it is no longer wanted"
        )
    return True


def sole_writer(folder: Path, wanted: bool = True) -> AbstractContextManager:
    """For the process that does a stage's work: one that was left over from a run that died keeps a second one out."""
    return _locked(folder, WORK_LOCK) if wanted else nullcontext()


@contextmanager
def _locked(folder: Path, name: str = LOCK) -> Iterator[None]:
    """Keeps a second process out; the lock ends with the process, however it ends."""
    path = folder / name
    try:
        file = path.open("w")
    except FileNotFoundError:  # renamed since this process looked
        raise UserError(f"another process has just finished {folder}: run the same command again") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is working on {folder}: wait until it ends") from None
        yield


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.name not in (MANIFEST, *WORKING))


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists, keys are strings."""
    return json.loads(json.dumps(value))


def library_versions() -> dict[str, str]:
    """Of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _sync(*paths: Path) -> None:
    """Makes sure that files and the names in folders reach the disk before what they are counts as done."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
