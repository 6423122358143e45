"""Records ↔ Parquet, a few at a time: a file of 225,000 completions takes no more memory than one of a thousand.

On disk and in Arrow's tables a token id is 4 bytes, in a Python list about ten times that. So records are made when
they are needed, and are not kept.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from itertools import chain, islice
from pathlib import Path
from types import NoneType
from typing import Any, Generic, TypeVar, get_args, get_origin, get_type_hints, overload

from irpo_lib.terminal.errors import UserError

#: Records that are Python objects at once, and the row group of a file.
ROWS = 1024
R = TypeVar("R")


def write(path: Path, records: Iterable[Any]) -> None:
    """Records (dataclasses of one kind) → a Parquet file, as they come. Where there is none, it has no columns."""
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    rest = iter(records)
    first = next(rest, None)
    schema = pyarrow.schema([] if first is None else _schema(type(first)))
    with ParquetWriter(path, schema) as writer:
        rest = rest if first is None else chain([first], rest)
        while some := list(islice(rest, ROWS)):
            columns = {name: [getattr(record, name) for record in some] for name in schema.names}
            writer.write_table(pyarrow.table(columns, schema))


def stream(paths: Path | Sequence[Path], kind: type[R]) -> Iterator[R]:
    """The records of Parquet files, in the order of the files; a damaged one is a UserError."""
    from pyarrow.parquet import ParquetFile

    for path in [paths] if isinstance(paths, Path) else paths:
        with damage_named(path), ParquetFile(path) as file:
            for batch in file.iter_batches(ROWS):
                yield from _records(batch, kind)


def count(path: Path) -> int:
    """How many records a file has."""
    from pyarrow.parquet import read_metadata

    with damage_named(path):
        return read_metadata(path).num_rows


def of_problems(path: Path, kind: type[R], ids: Collection[str]) -> list[R]:
    """The records of some problems; the others are left out before they become Python objects."""
    from pyarrow.parquet import read_table

    if not count(path):  # then it has no columns
        return []
    with damage_named(path):
        table = read_table(path, filters=[("problem_id", "in", sorted(ids))])
    return list(_records(table, kind))


def column(path: Path, name: str) -> list[Any]:
    """One field of all records of a file."""
    from pyarrow.parquet import read_table

    with damage_named(path):
        return read_table(path, columns=[name]).column(name).to_pylist()


def lengths(path: Path, name: str) -> list[int]:
    """How long a field of all records is, which holds lists."""
    from pyarrow.compute import list_value_length
    from pyarrow.parquet import read_table

    with damage_named(path):
        return list_value_length(read_table(path, columns=[name]).column(name)).to_pylist()


class Records(Sequence[R], Generic[R]):
    """The records of a Parquet file, which stay in Arrow's form; one that is asked for is made anew."""

    def __init__(self, path: Path, kind: type[R]):
        from pyarrow.parquet import read_table

        self.kind = kind
        with damage_named(path):
            self.table = read_table(path)

    def __len__(self) -> int:
        return self.table.num_rows

    @overload
    def __getitem__(self, index: int) -> R: ...
    @overload
    def __getitem__(self, index: slice) -> list[R]: ...
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


def _records(rows: Any, kind: type[R]) -> Iterator[R]:
    """A piece of a table → its records."""
    names = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    columns = [rows.column(name).to_pylist() for name in names if rows.num_rows]
    for values in zip(*columns, strict=True):
        yield kind(*values)


def _schema(kind: type) -> list[tuple[str, Any]]:
    return [(name, _arrow(hint)) for name, hint in get_type_hints(kind).items()]


def _arrow(hint: Any) -> Any:
    """A field's type as Arrow has it; whole numbers in lists are token ids."""
    import pyarrow

    (plain,) = [a for a in get_args(hint) if a is not NoneType] if NoneType in get_args(hint) else [hint]
    if get_origin(plain) in (list, tuple):
        return pyarrow.list_(pyarrow.int32() if get_args(plain)[0] is int else _arrow(get_args(plain)[0]))
    return {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}[plain]


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Arrow reports a damaged file as ArrowInvalid, or as an OSError without a number: makes them a UserError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowInvalid, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"{path} is damaged ({error}): delete this file, and its stage if that is finished, and run again"
        ) from error
