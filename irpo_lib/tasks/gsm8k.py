"""GSM8K in its published form: a JSON object a line with "question" and "answer", the answer behind "####"."""

import re
from pathlib import Path

from irpo_lib.errors import UserError
from irpo_lib.records import Problem
from irpo_lib.tasks import answers
from irpo_lib.tasks.jsonl import read_lines

_CALCULATOR = re.compile(r"<<[^<>]*>>")


def read_gsm8k(path: Path) -> list[Problem]:
    """Problems with their gold solutions in the paper's answer format; ids are "FILE-LINE".

    Raises:
        UserError: a line without question or answer, or whose answer is no number behind "####".
    """
    problems = []
    for where, row in read_lines(path, ("question", "answer")):
        solution, marker, answer = str(row["answer"]).rpartition("####")
        gold = answers.number(answer) if marker else None
        if gold is None:
            raise UserError(f"{where}: 'answer' must end with '#### NUMBER'")
        number = where.rpartition(" ")[2]
        text = f"{strip_calculator(solution).strip()}\nFinal answer: {answer.strip()}"
        problems.append(Problem(f"{path.stem}-{number}", str(row["question"]), gold, text))
    return problems


def strip_calculator(solution: str) -> str:
    """Removes GSM8K's calculator annotations: "48/2 = <<48/2=24>>24" → "48/2 = 24"."""
    return _CALCULATOR.sub("", solution)
