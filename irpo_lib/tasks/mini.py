"""The mini tasks: problems that `irpo make-data` writes to `data/`, without the instruction of Appendix B.1's prompts.

It would double a tiny model's prompt.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from irpo_lib.config import DATA
from irpo_lib.records import Problem
from irpo_lib.tasks.jsonl import read_problems
from irpo_lib.tasks.prompts import ask
from irpo_lib.terminal.errors import UserError

#: Four worked examples stand before each question of math-mini; they are the first four of the training split and
#: are left out of it.
MATH_SHOTS = 4


def read(name: str, split: str) -> list[Problem]:
    folder = DATA / name
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: the mini tasks are made by `irpo make-data`")
    problems = read_problems(folder / f"{split}.jsonl")
    return problems[MATH_SHOTS:] if (name, split) == ("math-mini", "train") else problems


def prompt(problem: Problem) -> str:
    return ask(problem.question, problem.choices)


def math_prompt(question: str, solved: Iterable[tuple[str, str]]) -> str:
    """Worked examples (question, solution with its final answer), then the question to be solved."""
    return ask(question, solved=solved, behind="\n\n")


def prompt_with_examples(problem: Problem) -> str:
    return math_prompt(problem.question, _examples(DATA / "math-mini" / "train.jsonl"))


@lru_cache(maxsize=1)  # every prompt asks for them
def _examples(path: Path) -> list[tuple[str, str]]:
    return [(p.question, p.gold_solution or "") for p in read_problems(path)[:MATH_SHOTS]]
