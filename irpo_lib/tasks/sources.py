"""Where a real task's problems come from: files in their published formats, or the hub by name and revision."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from irpo_lib.records import Problem
from irpo_lib.tasks.jsonl import Row, read_lines, read_object, with_keys
from irpo_lib.tasks.prompts import ask
from irpo_lib.terminal.errors import UserError, first_sentence

#: Makes a problem of a row, and of a name for it: its split and number. None where the row has an empty answer.
OfRow = Callable[[Row, str], Problem | None]


@dataclass(frozen=True, eq=False)
class Source:
    """A published dataset: its task's name, how a row becomes a problem, and what `sources.yaml` says and explains."""

    task: str
    of_row: OfRow
    hub: str
    revision: str
    instruction: str
    keys: list[str]
    layouts: list[str]
    splits: dict[str, dict[str, Any]]

    def read(self, split: str, path: str | None) -> list[Problem]:
        """The problems of a split, `path` as in `of_rows`; those with an empty answer are left out and counted."""
        found = self.of_rows(split, path)
        tell_count(self, split, len(found))
        if empty := found.count(None):
            print(f"task {self.task}, split '{split}': {empty} problems with an empty answer are left out")
        return [p for p in found if p is not None]

    def of_rows(self, split: str, path: str | None) -> list[Problem | None]:
        """A problem for each row; None where its answer is empty.

        Args:
            split: "train", "dev" or "test".
            path: A file with the split's rows, or a folder in one of the published layouts; None reads from the hub.

        Raises:
            UserError: the task has no such split, files are missing or malformed, the hub cannot be reached.
        """
        if split not in self.splits:
            raise UserError(f"task {self.task} has no split '{split}', only {', '.join(self.splits)}")
        if path is None:
            rows = _hub_rows(self, split)
        else:
            rows = (row for file in _find(self, split, Path(path)) for row in _file_rows(file))
        return [self.of_row(row, f"{split}-{n}") for n, row in enumerate(with_keys(rows, self.keys), start=1)]

    def prompt(self, problem: Problem, solved: Iterable[tuple[str, str]] = ()) -> str:
        """Appendix B.1: the instruction, examples that are solved (question, solution), and the question."""
        return f"{self.instruction}\n{ask(problem.question, problem.choices, solved)}"


def read_source(task: str, of_row: OfRow) -> Source:
    text = Path(__file__).with_name("sources.yaml").read_text(encoding="utf8")
    return Source(task, of_row, **yaml.safe_load(text)[task])


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
    names = {"split": split, "Split": split.capitalize(), "hub_split": source.splits[split]["hub"]}
    configs = source.splits[split]["configs"]
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
    for config in published["configs"]:
        try:
            table: Any = load_dataset(source.hub, config, split=published["hub"], revision=source.revision)
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
    published = source.splits[split]["rows"]
    if found != published:
        print(f"task {source.task}, split '{split}': {found:,} problems where the published one has {published:,}")
