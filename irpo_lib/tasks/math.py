r"""MATH (Hendrycks et al., 2021): competition problems, the answer in the last \boxed{} of the written solution."""

from functools import lru_cache

from irpo_lib.records import Problem
from irpo_lib.tasks.jsonl import Row
from irpo_lib.tasks.math_answers import last_boxed, normalise
from irpo_lib.tasks.sources import read_source
from irpo_lib.terminal.errors import UserError

SHOTS = 4
#: The longest example, in characters of problem and solution: the four stand before every question.
SHORT = 700


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


SOURCE = read_source("math", problem)


def read(split: str, path: str | None) -> list[Problem]:
    """A split; the in-context examples stand in none."""
    found = SOURCE.read(split, path)
    shots = examples(path) if split == "train" else ()
    return [p for p in found if p not in shots]


@lru_cache(maxsize=4)
def examples(path: str | None) -> tuple[Problem, ...]:
    """The four in-context examples: of the training problems short enough (`SHORT`), every quarter's first, in order.

    The paper takes "four fixed in-context examples chosen from the training set" and does not say which. The training
    set stands in the order of subjects, so that four quarters are four subjects. `path` as in `read`, and a folder if
    it is given.
    """
    found = [p for p in SOURCE.of_rows("train", path) if p is not None]
    short = [p for p in found if len(p.question) + len(p.gold_solution or "") <= SHORT and "[asy]" not in p.question]
    if len(short) < SHOTS:
        raise UserError(f"task math: {len(short)} training problems are short enough for the {SHOTS} examples needed")
    return tuple(short[i * len(short) // SHOTS] for i in range(SHOTS))


def prompt(problem: Problem, shots: tuple[Problem, ...]) -> str:
    """Appendix B.1."""
    return SOURCE.prompt(problem, [(p.question, p.gold_solution or "") for p in shots])
