"""Tasks: where problems come from, how they are asked, and when two answers are equal.

A task is a small module-level object of type `Task`. The answer formats (a number, a letter, a boxed expression) are
in `numbers`, `letters` and `math_answers`; the mini tasks share them with the real ones.
"""

import runpy
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from math import isfinite
from numbers import Real
from pathlib import Path

from irpo_lib.config import task_source
from irpo_lib.records import Problem
from irpo_lib.tasks import arc, gsm8k, math, mini, reasoning_gym
from irpo_lib.tasks.answers import final_answer
from irpo_lib.tasks.letters import letter
from irpo_lib.tasks.math_answers import boxed
from irpo_lib.tasks.numbers import number
from irpo_lib.terminal.errors import UserError, nearest


@dataclass(frozen=True)
class Task:
    """What the pipeline needs to know of a task.

    Attributes:
        name: As in the presets.
        read: split ("train", "dev" or "test") → problems.
        prompt: problem → the user's message (the chat template comes later).
        normalise: answer as text → its canonical form, None for what is no answer. Two answers are equal when
            their canonical forms are. None for a task of which only `reward` judges: it has no majority votes.
        reward: (response, problem) → r, finite, the higher the better, 1 for a right one: § 2's general case. None for
            R(y, y*), which is 1 where the final answer equals the gold answer, else 0.
    """

    name: str
    read: Callable[[str], list[Problem]]
    prompt: Callable[[Problem], str]
    normalise: Callable[[str, Problem], str | None] | None = None
    reward: Callable[[str, Problem], float] | None = None

    def __post_init__(self) -> None:
        if self.normalise is None and self.reward is None:
            raise UserError(f"task {self.name} must have `normalise`, or a `reward` of its own")

    def extract(self, response: str, problem: Problem) -> str | None:
        """The canonical final answer of a response, as it stands without `normalise`; None where it has none."""
        answer = final_answer(response)
        return answer if answer is None or self.normalise is None else self.normalise(answer, problem)

    def is_correct(self, answer: str | None, problem: Problem) -> bool:
        """R(y, y*) = 1: the extracted (canonical) answer equals the gold answer."""
        if self.normalise is None:
            raise UserError(f"task {self.name} has no `normalise`, without which no answer is compared or voted for")
        return answer is not None and answer == self.normalise(problem.answer, problem)

    def judge(self, response: str, problem: Problem, finished: bool = True) -> tuple[str | None, float]:
        """The answer of a response, and its r (§ 2), by the task's own reward where it has one.

        A response that was cut at the length limit (not `finished`) has no answer: its r is 0, but a reward of the
        task's own judges it all the same.

        Raises:
            UserError: that function raises, or gives no finite number.
        """
        answer = self.extract(response, problem) if finished else None
        if self.reward is None:
            return answer, float(self.is_correct(answer, problem))
        where = f"task {self.name}, problem '{problem.id}': the reward"
        try:
            found = self.reward(response, problem)
        except Exception as error:  # whatever the user's function raises
            raise UserError(f"{where} cannot be computed: {type(error).__name__}: {error}") from error
        if not isinstance(found, Real) or not isfinite(found):
            raise UserError(f"{where} is {found!r}: it must be a finite number")
        return answer, float(found)

    def score(self, response: str, problem: Problem) -> float:
        """r of a whole response; see `judge`."""
        return self.judge(response, problem)[1]


def _number(answer: str, problem: Problem) -> str | None:
    return number(answer)


def _letter(answer: str, problem: Problem) -> str | None:
    return letter(answer, problem.choices or ())


def _boxed(answer: str, problem: Problem) -> str | None:
    return boxed(answer, problem.answer)


#: name → a function of `task_path` (files instead of the hub; None for the hub) that makes the task.
TASKS: dict[str, Callable[[str | None], Task]] = {
    "gsm8k-mini": lambda path: Task("gsm8k-mini", partial(mini.read, "gsm8k-mini"), mini.prompt, _number),
    "arc-mini": lambda path: Task("arc-mini", partial(mini.read, "arc-mini"), mini.prompt, _letter),
    "math-mini": lambda path: Task("math-mini", partial(mini.read, "math-mini"), mini.prompt_with_examples, _boxed),
    "gsm8k": lambda path: Task("gsm8k", partial(gsm8k.read, path=path), gsm8k.prompt, _number),
    "arc": lambda path: Task("arc", partial(arc.read, path=path), arc.prompt, _letter),
    "math": lambda path: Task(
        "math", partial(math.read, path=path), lambda p: math.prompt(p, math.examples(path)), _boxed
    ),
}


def get_task(name: str, path: str | None = None) -> Task:
    """A task by its name, or the `task` that a Python file of one's own defines (a name that ends in .py).

    Args:
        name: "gsm8k", "arc", "math", their mini versions, "reasoning_gym:NAME", or "path/to/my_task.py"; see
            `README.md` here.
        path: Files with the problems of a real task, in place of the hub; settings of reasoning_gym's.

    Raises:
        UserError: no such task, a file that defines none, or settings that reasoning_gym does not take.
    """
    source = task_source(name)
    if source == "reasoning_gym":
        return _reasoning_gym(name.removeprefix("reasoning_gym:"), path)
    if source == "file":
        return _task_of_file(Path(name))
    if name not in TASKS:
        raise UserError(f"unknown task '{name}'" + nearest(name, TASKS))
    return TASKS[name](path)


@lru_cache  # its problems are made once
def _reasoning_gym(generator: str, path: str | None) -> Task:
    made = reasoning_gym.Generator(generator, path)
    return Task(f"reasoning_gym:{generator}", made.read, gsm8k.prompt, reward=made.reward)


def _task_of_file(path: Path) -> Task:
    if not path.is_file():
        raise UserError(f"task file {path} does not exist")
    try:
        task = runpy.run_path(str(path)).get("task")
    except Exception as error:  # whatever the user's file raises
        raise UserError(f"task file {path} cannot be run: {type(error).__name__}: {error}") from error
    if not isinstance(task, Task):
        raise UserError(f"task file {path} must define `task`, an irpo_lib.tasks.Task")
    return task


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
        if task.normalise and task.normalise(problem.answer, problem) is None:
            where = f"task {task.name}, split '{split}', problem '{problem.id}'"
            raise UserError(f"{where}: {problem.answer!r} is no answer of this task")
    return problems
