"""The checker of the exercises: says whether a function is right, and if not, which mistake was made."""

import math
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Exercise:
    """A function to be filled in.

    Attributes:
        solution: The right function; its signature and docstring are the stub.
        task: What to do and why, in Markdown.
        stars: Difficulty, 1 to 3.
        minutes: That it takes.
        hint: Folded away in the notebook.
        inputs: Arguments on which functions are compared.
        mistakes: A sentence → a function that makes that mistake.
        needs: Imports that the solution needs.
    """

    solution: Callable
    task: str
    stars: int
    minutes: int
    hint: str
    inputs: Sequence[tuple]
    mistakes: Mapping[str, Callable]
    needs: str = ""

    @property
    def name(self) -> str:
        return self.solution.__name__


def verdict(attempt: Callable, exercise: Exercise) -> str:
    """One line: not filled in yet, right, or what is wrong and an input that shows it."""
    given = [outcome(attempt, arguments) for arguments in exercise.inputs]
    if any(isinstance(value, NotImplementedError) for value in given):
        return f"○ {exercise.name}: not filled in yet"
    wanted = [outcome(exercise.solution, arguments) for arguments in exercise.inputs]
    wrong = [i for i, value in enumerate(given) if not same(value, wanted[i])]
    if not wrong:
        return f"✓ {exercise.name}: right for {len(wanted)} of {len(wanted)} inputs"
    arguments = ", ".join(map(repr, exercise.inputs[wrong[0]]))
    example = f"{exercise.name}({arguments}) gives {_shown(given[wrong[0]])}, not {_shown(wanted[wrong[0]])}"
    for sentence, mistake in exercise.mistakes.items():
        made = [outcome(mistake, arguments) for arguments in exercise.inputs]
        if all(same(ours, theirs) for ours, theirs in zip(given, made, strict=True)):
            return f"✗ {exercise.name}: {sentence}. {example}"
    return f"✗ {exercise.name}: {example}"


def outcome(function: Callable, arguments: tuple) -> Any:
    """What a function returns for these arguments, or the exception that it raises."""
    try:
        return function(*deepcopy(arguments))
    except Exception as error:
        return error


def same(a: Any, b: Any) -> bool:
    """Equal, up to rounding; lists, tuples and tensors alike; exceptions by their kind."""
    a, b = (value.tolist() if hasattr(value, "tolist") else value for value in (a, b))
    if isinstance(a, Exception) or isinstance(b, Exception):
        return type(a) is type(b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=1e-5, abs_tol=1e-8) or (math.isnan(a) and math.isnan(b))
    return bool(a == b)


def _shown(value: Any) -> str:
    if isinstance(value, Exception):
        return f"{type(value).__name__}: {value}"
    return f"{value:.6g}" if isinstance(value, float) else repr(value)
