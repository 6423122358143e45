r"""MATH (Hendrycks et al., 2021): competition problems, the answer in the last \boxed{} of the written solution."""

from functools import lru_cache

from irpo_lib.records import Problem
from irpo_lib.tasks.jsonl import Row
from irpo_lib.tasks.math_answers import last_boxed, normalise
from irpo_lib.tasks.prompts import ask
from irpo_lib.tasks.sources import read_rows, read_source, tell_count
from irpo_lib.terminal.errors import UserError

SOURCE = read_source("math")
SHOTS = 4
#: The longest example, in characters of problem and solution: the four stand before every question.
SHORT = 700


def read(split: str, path: str | None) -> list[Problem]:
    """A split; problems with an empty answer are left out and counted, the in-context examples stand in no split."""
    found = _read(split, path)
    tell_count(SOURCE, split, len(found))
    if empty := found.count(None):
        print(f"task math, split '{split}': {empty} problems with an empty answer are left out")
    shots = examples(path) if split == "train" else ()
    return [p for p in found if p is not None and p not in shots]


def _read(split: str, path: str | None) -> list[Problem | None]:
    """A problem for each row; None where its answer is empty."""
    return [problem(row, f"{split}-{n}") for n, row in enumerate(read_rows(SOURCE, split, path), start=1)]


def problem(row: Row, name: str) -> Problem | None:
    r"""One problem; None where its box is empty. Raises UserError when the solution has no \boxed{}."""
    where, fields = row
    solution = str(fields["solution"])
    if "\\boxed" not in solution and "\\fbox" not in solution:
        raise UserError(f"{where}: 'solution' must hold its answer in \\boxed{{}}")
    answer = last_boxed(solution)
    if answer is None or normalise(answer) is None:
        return None
    gold = f"{solution}\nFinal answer: \\boxed{{{answer}}}"
    return Problem(str(fields.get("unique_id", name)), str(fields["problem"]), answer, gold)


@lru_cache(maxsize=4)
def examples(path: str | None) -> tuple[Problem, ...]:
    """The four in-context examples: of the training problems short enough (`SHORT`), every quarter's first, in order.

    The paper takes "four fixed in-context examples chosen from the training set" and does not say which. The training
    set stands in the order of subjects, so that four quarters are four subjects. `path` as in `read`, and a folder if
    it is given.
    """
    found = [p for p in _read("train", path) if p is not None]
    short = [p for p in found if len(p.question) + len(p.gold_solution or "") <= SHORT and "[asy]" not in p.question]
    if len(short) < SHOTS:
        raise UserError(f"task math: {len(short)} training problems are short enough for the {SHOTS} examples needed")
    return tuple(short[i * len(short) // SHOTS] for i in range(SHOTS))


def prompt(problem: Problem, shots: tuple[Problem, ...]) -> str:
    """Appendix B.1."""
    solved = [(p.question, p.gold_solution or "") for p in shots]
    return (
        "Your task is to answer the last question below. Give step by step reasoning before you answer, and when "
        "you’re ready to answer, please wrap your answer in \\boxed, and conclude using the format "
        f'"Final answer: ..."\n{ask(problem.question, solved=solved)}'
    )
