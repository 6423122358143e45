"""Tasks: where problems come from, how they are asked, and when two answers are equal.

A task is a small module-level object of type `Task`. The answer formats (a number, a letter, a boxed expression)
are in `answers`; the mini tasks share them with the real ones.
"""

from collections.abc import Callable
from dataclasses import dataclass

from irpo_lib.config import DATA
from irpo_lib.errors import UserError, nearest
from irpo_lib.records import Problem
from irpo_lib.tasks import answers, math_answers
from irpo_lib.tasks.jsonl import read_problems

#: Four worked examples stand before each question of math-mini; they are the first four of the training split and
#: are left out of it.
MATH_SHOTS = 4


@dataclass(frozen=True)
class Task:
    """What the pipeline needs to know of a task.

    Attributes:
        name: As in the presets.
        read: split ("train", "dev" or "test") → problems.
        prompt: problem → the user's message (the chat template comes later).
        normalise: answer as text → its canonical form, None for what is no answer. Two answers are equal when
            their canonical forms are.
    """

    name: str
    read: Callable[[str], list[Problem]]
    prompt: Callable[[Problem], str]
    normalise: Callable[[str, Problem], str | None]

    def extract(self, response: str, problem: Problem) -> str | None:
        """The canonical final answer of a response, or None where it has none."""
        answer = answers.final_answer(response)
        return None if answer is None else self.normalise(answer, problem)

    def is_correct(self, answer: str | None, problem: Problem) -> bool:
        """R(y, y*) = 1: the extracted (canonical) answer equals the gold answer."""
        return answer is not None and answer == self.normalise(problem.answer, problem)


def read_mini(name: str, split: str) -> list[Problem]:
    folder = DATA / name
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: the mini tasks are made by `irpo make-data`")
    problems = read_problems(folder / f"{split}.jsonl")
    return problems[MATH_SHOTS:] if (name, split) == ("math-mini", "train") else problems


def gsm8k_prompt(question: str) -> str:
    """Appendix B.1's layout without its instruction, which would double a tiny model's prompt."""
    return f"Question: {question}\nSolution:"


def arc_prompt(question: str, choices: tuple[str, ...]) -> str:
    options = "\n".join(f"({letter}) {x}" for letter, x in zip(answers.LETTERS, choices, strict=False))
    return f"Question: {question}\n{options}\nSolution:"


def math_prompt(examples: list[tuple[str, str]], question: str) -> str:
    """Worked examples (question, solution with its final answer), then the question to be solved."""
    shown = "".join(f"Question: {q}\nSolution: {s}\n\n" for q, s in examples)
    return f"{shown}Question: {question}\nSolution:"


def _math_mini_examples() -> list[tuple[str, str]]:
    problems = read_problems(DATA / "math-mini" / "train.jsonl")[:MATH_SHOTS]
    return [(p.question, p.gold_solution or "") for p in problems]


TASKS: dict[str, Task] = {
    "gsm8k-mini": Task(
        "gsm8k-mini",
        lambda split: read_mini("gsm8k-mini", split),
        lambda p: gsm8k_prompt(p.question),
        lambda a, p: answers.number(a),
    ),
    "arc-mini": Task(
        "arc-mini",
        lambda split: read_mini("arc-mini", split),
        lambda p: arc_prompt(p.question, p.choices or ()),
        lambda a, p: answers.letter(a, p.choices or ()),
    ),
    "math-mini": Task(
        "math-mini",
        lambda split: read_mini("math-mini", split),
        lambda p: math_prompt(_math_mini_examples(), p.question),
        lambda a, p: math_answers.boxed(a),
    ),
}


def get_task(name: str) -> Task:
    if name not in TASKS:
        raise UserError(f"unknown task '{name}'" + nearest(name, TASKS))
    return TASKS[name]


def read_split(task: Task, split: str) -> list[Problem]:
    """The problems of a split.

    Raises:
        UserError: the split has no problem, two with the same id, or one whose gold answer is none for the task.
    """
    problems = task.read(split)
    if not problems:
        raise UserError(f"task {task.name}: the split '{split}' is empty")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise UserError(f"task {task.name}, split '{split}': the id '{problem.id}' stands twice")
        seen.add(problem.id)
        if task.normalise(problem.answer, problem) is None:
            where = f"task {task.name}, split '{split}', problem '{problem.id}'"
            raise UserError(f"{where}: {problem.answer!r} is no answer of this task")
    return problems
