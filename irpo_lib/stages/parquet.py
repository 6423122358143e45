"""Records ↔ Parquet, a few at a time: a file of 225,000 completions takes no more memory than one of a thousand.

On disk and in Arrow's tables a token id is 4 bytes, in a Python list about ten times that. So records are made when
they are needed, and are not kept.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow
from pyarrow import parquet
from pyarrow.compute import list_value_length

from irpo_lib.terminal.errors import UserError

#: Records that are Python objects at once, and the row group of a file.
ROWS = 1024
#: The types that a record's fields may have, as Arrow has them; whole numbers in lists are token ids.
TYPES = {
    str: pyarrow.string(),
    int: pyarrow.int64(),
    float: pyarrow.float64(),
    list[int]: pyarrow.list_(pyarrow.int32()),
    tuple[str, ...]: pyarrow.list_(pyarrow.string()),
}
R = TypeVar("R")


def write(path: Path, records: Iterable[Any]) -> None:
    """Records (dataclasses of one kind) → a Parquet file, as they come. Where there is none, it has no columns."""
    rest = iter(records)
    some = list(islice(rest, ROWS))
    schema = pyarrow.schema([(f.name, _arrow(f.type)) for f in fields(some[0])] if some else [])
    with parquet.ParquetWriter(path, schema) as writer:
        while some:
            writer.write_table(pyarrow.Table.from_pylist([vars(record) for record in some], schema))
            some = list(islice(rest, ROWS))


def read(path: Path, **options: Any) -> pyarrow.Table:
    """A file as Arrow's table, with the options of `pyarrow.parquet.read_table`; a damaged one is a UserError."""
    with damage_named(path):
        return parquet.read_table(path, **options)


def stream(paths: Path | Sequence[Path], kind: type[R]) -> Iterator[R]:
    """The records of Parquet files, in the order of the files; a damaged one is a UserError."""
    for path in [paths] if isinstance(paths, Path) else paths:
        with damage_named(path), parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS):
                yield from _records(batch, kind)


def count(path: Path) -> int:
    """How many records a file has."""
    with damage_named(path):
        return parquet.read_metadata(path).num_rows


def of_problems(path: Path, kind: type[R], ids: Collection[str]) -> list[R]:
    """The records of some problems; the others are left out before they become Python objects."""
    if not count(path):  # then it has no columns
        return []
    return list(_records(read(path, filters=[("problem_id", "in", sorted(ids))]), kind))


def column(path: Path, name: str) -> list[Any]:
    """One field of all records of a file."""
    return read(path, columns=[name])[name].to_pylist()


def lengths(path: Path, name: str) -> list[int]:
    """How long a field of all records is, which holds lists."""
    return list_value_length(read(path, columns=[name])[name]).to_pylist()


class Records(Sequence[R], Generic[R]):
    """The records of a Parquet file, which stay in Arrow's form; one that is asked for is made anew."""

    def __init__(self, path: Path, kind: type[R]):
        self.kind, self.table = kind, read(path)

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        return next(_records(self.table.slice(range(len(self))[index], 1), self.kind))

    def __iter__(self) -> Iterator[R]:
        for batch in self.table.to_batches(ROWS):
            yield from _records(batch, self.kind)

    def column(self, name: str) -> list[Any]:
        """One field of all records."""
        return self.table.column(name).to_pylist() if len(self) else []


def _records(rows: pyarrow.RecordBatch | pyarrow.Table, kind: type[R]) -> Iterator[R]:
    """A piece of a table → its records."""
    return (kind(**row) for row in rows.to_pylist())


def _arrow(hint: Any) -> pyarrow.DataType:
    return next(kind for plain, kind in TYPES.items() if hint in (plain, plain | None))


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Arrow reports a damaged file as ArrowInvalid, or as an OSError without a number: makes them a UserError."""
    try:
        yield
    except (pyarrow.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"{path} is damaged ({error}): delete this file, and its stage if that is finished, and run again"
        ) from error
