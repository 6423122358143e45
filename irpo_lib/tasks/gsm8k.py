"""GSM8K (Cobbe et al., 2021): rows with "question" and "answer", the answer's number behind "####"."""

import re

from irpo_lib.records import Problem
from irpo_lib.tasks.jsonl import Row
from irpo_lib.tasks.numbers import number
from irpo_lib.tasks.sources import read_source
from irpo_lib.terminal.errors import UserError

#: Its calculator annotations, which are left out: "48/2 = <<48/2=24>>24" → "48/2 = 24".
_CALCULATOR = re.compile(r"<<[^<>]*>>")


def problem(row: Row, name: str) -> Problem:
    """One problem, its gold solution in the paper's answer format. Raises UserError without a number behind "####"."""
    where, fields = row
    solution, marker, answer = str(fields["answer"]).rpartition("####")
    gold = number(answer) if marker else None
    if gold is None:
        raise UserError(f"{where}: 'answer' must end with '#### NUMBER'")
    text = f"{_CALCULATOR.sub('', solution).strip()}\nFinal answer: {answer.strip()}"
    return Problem(name, str(fields["question"]), gold, text)


#: The 1,000 held-out problems of § 3.1 are the last of "train" (key `held_out`).
SOURCE = read_source("gsm8k", problem)
read, prompt = SOURCE.read, SOURCE.prompt
