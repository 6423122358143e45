"""GSM8K (Cobbe et al., 2021): rows with "question" and "answer", the answer's number behind "####"."""

import re
from pathlib import Path

from irpo_lib.records import Problem
from irpo_lib.tasks import answers
from irpo_lib.tasks.sources import Row, Source, read_rows, tell_count
from irpo_lib.terminal.errors import UserError

SOURCE = Source(
    hub="openai/gsm8k",
    revision="e53f048856ff4f594e959d75785d2c2d37b678ee",
    configs={"train": ["main"], "test": ["main"]},
    hub_splits={"train": "train", "test": "test"},
    files={
        s: [[f"{s}.jsonl"], [f"main/{s}-*.parquet"], [f"{s}-*.parquet"], [f"{s}.parquet"]] for s in ("train", "test")
    },
    counts={"train": 7473, "test": 1319},
)
_CALCULATOR = re.compile(r"<<[^<>]*>>")


def read(split: str, path: str | None) -> list[Problem]:
    """A split from files or the hub; the 1,000 held-out problems of § 3.1 are the last of "train" (key `held_out`)."""
    problems = [problem(row, split, n) for n, row in enumerate(read_rows("gsm8k", SOURCE, split, path, KEYS), start=1)]
    tell_count("gsm8k", SOURCE.counts[split], split, len(problems))
    return problems


KEYS = ("question", "answer")


def read_gsm8k(path: Path) -> list[Problem]:
    """The problems of one file, with their gold solutions in the paper's answer format; ids are "FILE-LINE"."""
    rows = read_rows("gsm8k", SOURCE, "train", str(path), KEYS)
    return [problem(row, path.stem, int(row[0].rpartition(" ")[2])) for row in rows]


def problem(row: Row, name: str, number: int) -> Problem:
    """Raises UserError when the answer has no number behind "####"."""
    where, fields = row
    solution, marker, answer = str(fields["answer"]).rpartition("####")
    gold = answers.number(answer) if marker else None
    if gold is None:
        raise UserError(f"{where}: 'answer' must end with '#### NUMBER'")
    text = f"{strip_calculator(solution).strip()}\nFinal answer: {answer.strip()}"
    return Problem(f"{name}-{number}", str(fields["question"]), gold, text)


def strip_calculator(solution: str) -> str:
    """Removes GSM8K's calculator annotations: "48/2 = <<48/2=24>>24" → "48/2 = 24"."""
    return _CALCULATOR.sub("", solution)


def prompt(problem: Problem) -> str:
    """Appendix B.1."""
    return (
        "Your task is to answer the question below. Give step by step reasoning before you answer, and when you’re "
        f'ready to answer, please use the format "Final answer: ..."\nQuestion: {problem.question}\nSolution:'
    )
