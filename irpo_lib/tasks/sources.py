"""Where a real task's rows come from: files in their published formats, or the hub by name and revision."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from irpo_lib.tasks.jsonl import read_lines
from irpo_lib.terminal.errors import UserError, first_sentence

Row = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """A published dataset.

    Attributes:
        hub: Its name on the hub.
        revision: The commit that is read.
        configs: Its parts, all of which are read: for each split of ours, a list.
        hub_splits: Our names of splits → the hub's.
        files: Split → lists of file patterns below `task_path`; the first list of which all match is read.
        counts: Split → how many rows were published.
    """

    hub: str
    revision: str
    configs: dict[str, Sequence[str]]
    hub_splits: dict[str, str]
    files: dict[str, Sequence[Sequence[str]]]
    counts: dict[str, int]


def read_rows(task: str, source: Source, split: str, path: str | None, keys: tuple[str, ...]) -> Iterator[Row]:
    """Yields (where, row) of a split.

    Args:
        task: For messages.
        source: The published dataset.
        split: "train", "dev" or "test".
        path: A file with the split's rows, or a folder in one of the published layouts; None reads from the hub.
        keys: What every row must have.

    Raises:
        UserError: the task has no such split, files are missing or malformed, the hub cannot be reached.
    """
    if split not in source.hub_splits:
        raise UserError(f"task {task} has no split '{split}', only {', '.join(source.hub_splits)}")
    if path is None:
        rows = _hub_rows(task, source, split)
    else:
        rows = (row for file in _find(task, source, split, Path(path)) for row in _file_rows(file, keys))
    for where, row in rows:
        for key in keys:
            if row.get(key) in (None, ""):
                raise UserError(f"{where}: '{key}' is missing or empty; every problem needs one")
        yield where, row


def _find(task: str, source: Source, split: str, path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UserError(f"task_path={path} does not exist: give a file, or a folder with the files of task {task}")
    for patterns in source.files[split]:
        found = [sorted(path.glob(pattern)) for pattern in patterns]
        if all(found):
            return [file for files in found for file in files]
    wanted = "; or ".join(", ".join(patterns) for patterns in source.files[split])
    raise UserError(f"task_path={path} holds no '{split}' split of task {task}: expected {wanted}")


def _file_rows(file: Path, keys: tuple[str, ...]) -> Iterator[Row]:
    if file.suffix == ".parquet":
        import pyarrow.parquet

        for number, row in enumerate(pyarrow.parquet.read_table(file).to_pylist(), start=1):
            yield f"{file}, row {number}", row
    elif file.suffix == ".json":
        try:
            row = json.loads(file.read_text(encoding="utf8"))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: not valid JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{file}: a JSON object is expected, not {type(row).__name__}")
        yield str(file), row
    else:
        yield from read_lines(file, keys)


def _hub_rows(task: str, source: Source, split: str) -> Iterator[Row]:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    for config in source.configs[split]:
        try:
            table: Any = load_dataset(source.hub, config, split=source.hub_splits[split], revision=source.revision)
        except Exception as error:  # the hub's client raises many kinds
            raise UserError(
                f"task {task}: {source.hub} ({config}) can be read neither from the hub nor from its cache: "
                f"download it where there is a network (`hf download --repo-type dataset {source.hub}`) and set "
                f"task_path to the folder ({first_sentence(error)})"
            ) from error
        # Without a network, `datasets` takes whatever commit it has; the cached file's folder names it.
        if any(source.revision not in file["filename"] for file in table.cache_files):
            raise UserError(
                f"task {task}: of {source.hub} ({config}) the cache holds another commit than {source.revision}, and "
                "the hub cannot be reached: try again where there is a network, or set task_path to a folder of files"
            )
        for number, row in enumerate(table, start=1):
            yield f"{source.hub} {config} {split}, row {number}", row


@lru_cache
def tell_count(task: str, source_count: int, split: str, found: int) -> None:
    """Says so, once, when a split has not as many problems as were published."""
    if found != source_count:
        print(f"task {task}, split '{split}': {found:,} problems where the published one has {source_count:,}")
