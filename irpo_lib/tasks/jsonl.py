"""JSON Lines in and out, with the file and line of whatever is wrong."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from irpo_lib.records import Problem
from irpo_lib.stages.store import replace_file
from irpo_lib.terminal.errors import UserError

#: (where it stands, for messages; its fields).
Row = tuple[str, dict[str, Any]]


def read_object(text: bytes, where: str) -> Row:
    """Raises UserError where the text is no JSON object."""
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{where}: not valid JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not valid UTF-8 ({error.reason})") from error
    if not isinstance(row, dict):
        raise UserError(f"{where}: a JSON object is expected, not {type(row).__name__}")
    return where, row


def read_lines(path: Path) -> Iterator[Row]:
    """Yields ("FILE, line N", object) for each line that is not blank.

    Raises:
        UserError: the file is missing, or a line is no JSON object.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield read_object(line, f"{path}, line {number}")


def with_keys(rows: Iterable[Row], keys: Sequence[str]) -> Iterator[Row]:
    """Yields the rows; raises UserError at one that lacks one of `keys`."""
    for where, row in rows:
        for key in keys:
            if row.get(key) in (None, ""):
                raise UserError(f"{where}: '{key}' is missing or empty; every problem needs one")
        yield where, row


def read_problems(path: Path) -> list[Problem]:
    """Problems in this project's own form: a JSON object a line with the fields of `Problem`."""
    problems, keys = [], ("id", "question", "answer")
    for where, row in with_keys(read_lines(path), keys):
        choices = row.get("choices")
        if choices is not None and (not isinstance(choices, list) or not 2 <= len(choices) <= 5):
            raise UserError(f"{where}: 'choices' must be a list of two to five options")
        name, question, answer = (str(row[key]) for key in keys)
        problems.append(Problem(name, question, answer, row.get("gold_solution"), tuple(choices) if choices else None))
    return problems


def write_problems(path: Path, problems: list[Problem]) -> None:
    rows = [{key: value for key, value in asdict(p).items() if value is not None} for p in problems]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda p: p.write_text("".join(lines), encoding="utf8"))
