r"""MATH (Hendrycks et al., 2021): competition problems, the answer in the last \boxed{} of the written solution."""

from functools import lru_cache

from irpo_lib.records import Problem
from irpo_lib.tasks.math_answers import last_boxed, normalise
from irpo_lib.tasks.sources import Row, Source, read_rows, tell_count
from irpo_lib.terminal.errors import UserError

SUBJECTS = ["algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory", "prealgebra",
            "precalculus"]  # fmt: skip
SOURCE = Source(
    hub="EleutherAI/hendrycks_math",
    revision="21a5633873b6a120296cce3e2df9d5550074f4a3",
    configs={"train": SUBJECTS, "test": SUBJECTS},
    hub_splits={"train": "train", "test": "test"},
    files={s: [[f"{s}/*/*.json"], [f"{s}.jsonl"], [f"{subject}/{s}-*.parquet" for subject in SUBJECTS],
               [f"{s}-*.parquet"]] for s in ("train", "test")},
    counts={"train": 7500, "test": 5000},
)  # fmt: skip
SHOTS = 4
#: The longest example, in characters of problem and solution: the four stand before every question.
SHORT = 700


def read(split: str, path: str | None) -> list[Problem]:
    """A split; problems with an empty answer are left out and counted, the in-context examples stand in no split."""
    rows = list(read_rows("math", SOURCE, split, path, ("problem", "solution")))
    tell_count("math", SOURCE.counts[split], split, len(rows))
    problems = [p for n, row in enumerate(rows, start=1) if (p := problem(row, f"{split}-{n}")) is not None]
    if len(problems) < len(rows):
        print(f"task math, split '{split}': {len(rows) - len(problems)} problems with an empty answer are left out")
    if split != "train":
        return problems
    examples = set(choose_examples(problems))
    return [p for p in problems if p not in examples]


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


def choose_examples(problems: list[Problem]) -> list[Problem]:
    """The four in-context examples: of the training problems short enough (`SHORT`), every quarter's first, in order.

    The paper takes "four fixed in-context examples chosen from the training set" and does not say which. The training
    set stands in the order of subjects, so that four quarters are four subjects.
    """
    short = [p for p in problems if len(p.question) + len(p.gold_solution or "") <= SHORT and "[asy]" not in p.question]
    if len(short) < SHOTS:
        raise UserError(f"task math: {len(short)} training problems are short enough for the {SHOTS} examples needed")
    return [short[i * len(short) // SHOTS] for i in range(SHOTS)]


@lru_cache(maxsize=4)
def examples(path: str | None) -> tuple[Problem, ...]:
    """The examples of the training split; `path` as in `read`, and a folder if it is given."""
    rows = read_rows("math", SOURCE, "train", path, ("problem", "solution"))
    found = [p for n, row in enumerate(rows, start=1) if (p := problem(row, f"train-{n}")) is not None]
    return tuple(choose_examples(found))


def prompt(problem: Problem, shots: tuple[Problem, ...]) -> str:
    """Appendix B.1."""
    shown = "".join(f"Question: {p.question}\nSolution: {p.gold_solution}\n" for p in shots)
    return (
        "Your task is to answer the last question below. Give step by step reasoning before you answer, and when "
        "you’re ready to answer, please wrap your answer in \\boxed, and conclude using the format "
        f'"Final answer: ..."\n{shown}Question: {problem.question}\nSolution:'
    )
