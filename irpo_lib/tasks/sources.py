"""Where a real task's rows come from: files in their published formats, or the hub by name and revision."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from irpo_lib.tasks.jsonl import Row, read_lines, read_object, with_keys
from irpo_lib.terminal.errors import UserError, first_sentence


@dataclass(frozen=True)
class Split:
    """A split of a published dataset: its name on the hub, its parts, and how many rows were published."""

    hub: str
    configs: list[str]
    rows: int


@dataclass(frozen=True, eq=False)
class Source:
    """A published dataset; each attribute is explained in `sources.yaml`. `task` is its task's name."""

    task: str
    hub: str
    revision: str
    keys: list[str]
    layouts: list[str]
    splits: dict[str, Split]


def read_source(task: str) -> Source:
    fields = yaml.safe_load(Path(__file__).with_name("sources.yaml").read_text(encoding="utf8"))[task]
    splits = {name: Split(**split) for name, split in fields["splits"].items()}
    return Source(task, **fields | {"splits": splits})


def read_rows(source: Source, split: str, path: str | None) -> Iterator[Row]:
    """Yields (where, row) of a split.

    Args:
        source: The published dataset.
        split: "train", "dev" or "test".
        path: A file with the split's rows, or a folder in one of the published layouts; None reads from the hub.

    Raises:
        UserError: the task has no such split, files are missing or malformed, the hub cannot be reached.
    """
    if split not in source.splits:
        raise UserError(f"task {source.task} has no split '{split}', only {', '.join(source.splits)}")
    if path is None:
        rows = _hub_rows(source, split)
    else:
        rows = (row for file in _find(source, split, Path(path)) for row in _file_rows(file))
    yield from with_keys(rows, source.keys)


def _find(source: Source, split: str, path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        wanted = f"give a file, or a folder with the files of task {source.task}"
        raise UserError(f"task_path={path} does not exist: {wanted}")
    layouts = [_patterns(source, split, layout) for layout in source.layouts]
    for patterns in layouts:
        found = [sorted(path.glob(pattern)) for pattern in patterns]
        if all(found):
            return [file for files in found for file in files]
    wanted = "; or ".join(", ".join(patterns) for patterns in layouts)
    raise UserError(f"task_path={path} holds no '{split}' split of task {source.task}: expected {wanted}")


def _patterns(source: Source, split: str, layout: str) -> list[str]:
    """The different file patterns of a layout."""
    names = {"split": split, "Split": split.capitalize(), "hub_split": source.splits[split].hub}
    configs = source.splits[split].configs
    patterns = [layout.format(config=c, name=c.lower().replace("-", "_"), **names) for c in configs]
    return list(dict.fromkeys(patterns))


def _file_rows(file: Path) -> Iterator[Row]:
    if file.suffix == ".parquet":
        import pyarrow.parquet

        for number, row in enumerate(pyarrow.parquet.read_table(file).to_pylist(), start=1):
            yield f"{file}, row {number}", row
    elif file.suffix == ".json":
        yield read_object(file.read_bytes(), str(file))
    else:
        yield from read_lines(file)


def _hub_rows(source: Source, split: str) -> Iterator[Row]:
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    published = source.splits[split]
    for config in published.configs:
        try:
            table: Any = load_dataset(source.hub, config, split=published.hub, revision=source.revision)
        except Exception as error:  # the hub's client raises many kinds
            raise UserError(
                f"task {source.task}: {source.hub} ({config}) can be read neither from the hub nor from its cache: "
                f"download it where there is a network (`hf download --repo-type dataset {source.hub}`) and set "
                f"task_path to the folder ({first_sentence(error)})"
            ) from error
        # Without a network, `datasets` takes whatever commit it has; the cached file's folder names it.
        if any(source.revision not in file["filename"] for file in table.cache_files):
            raise UserError(
                f"task {source.task}: of {source.hub} ({config}) the cache holds another commit than "
                f"{source.revision}, and the hub cannot be reached: try again where there is a network, or set "
                "task_path to a folder of files"
            )
        for number, row in enumerate(table, start=1):
            yield f"{source.hub} {config} {split}, row {number}", row


@lru_cache
def tell_count(source: Source, split: str, found: int) -> None:
    """Says so, once, when a split has not as many problems as were published."""
    published = source.splits[split].rows
    if found != published:
        print(f"task {source.task}, split '{split}': {found:,} problems where the published one has {published:,}")
