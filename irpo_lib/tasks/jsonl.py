"""JSON Lines in and out, with the file and line of whatever is wrong."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from irpo_lib.records import Problem
from irpo_lib.stages.store import replace_file
from irpo_lib.terminal.errors import UserError


def read_lines(path: Path, keys: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields ("FILE, line N", object) for each line that is not blank.

    Raises:
        UserError: the file is missing, or a line is no JSON object or lacks one of `keys`.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            where = f"{path}, line {number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise UserError(f"{where}: not valid JSON ({error.msg})") from error
            except UnicodeDecodeError as error:
                raise UserError(f"{where}: not valid UTF-8 ({error.reason})") from error
            if not isinstance(row, dict):
                raise UserError(f"{where}: a JSON object is expected, not {type(row).__name__}")
            for key in keys:
                if row.get(key) in (None, ""):
                    raise UserError(f"{where}: '{key}' is missing or empty; every problem needs one")
            yield where, row


def read_problems(path: Path) -> list[Problem]:
    """Problems in this project's own form: a JSON object a line with the fields of `Problem`."""
    problems = []
    for where, row in read_lines(path, ("id", "question", "answer")):
        choices = row.get("choices")
        if choices is not None and (not isinstance(choices, list) or not 2 <= len(choices) <= 5):
            raise UserError(f"{where}: 'choices' must be a list of two to five options")
        problems.append(
            Problem(
                str(row["id"]),
                str(row["question"]),
                str(row["answer"]),
                row.get("gold_solution"),
                tuple(choices) if choices else None,
            )
        )
    return problems


def write_problems(path: Path, problems: list[Problem]) -> None:
    lines = []
    for problem in problems:
        row = {key: value for key, value in asdict(problem).items() if value is not None}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda p: p.write_text("".join(lines), encoding="utf8"))
