"""The exercises, a module a notebook, and their checker. Installed with the project as `irpo_exercises`."""

from collections.abc import Callable

from irpo_exercises import (
    beyond,
    diagnostics,
    generation,
    iterations,
    loss,
    preference_pairs,
    rewards,
    scaling_up,
)
from irpo_exercises.checker import Exercise, verdict

from irpo_lib.terminal.errors import UserError, nearest

#: The number of a notebook → its exercises.
BY_NOTEBOOK: dict[str, list[Exercise]] = {
    "01": generation.EXERCISES,
    "02": rewards.EXERCISES,
    "03": preference_pairs.EXERCISES,
    "04": loss.EXERCISES,
    "05": diagnostics.EXERCISES,
    "06": iterations.EXERCISES,
    "07": scaling_up.EXERCISES,
    "08": beyond.EXERCISES,
}
EXERCISES: dict[str, Exercise] = {e.name: e for exercises in BY_NOTEBOOK.values() for e in exercises}


def check(attempt: Callable) -> None:
    """Prints what is to be said of an attempt at the exercise of the same name.

    Raises:
        UserError: there is no exercise of that name.
    """
    if attempt.__name__ not in EXERCISES:
        raise UserError(f"no exercise is called '{attempt.__name__}'" + nearest(attempt.__name__, EXERCISES))
    print(verdict(attempt, EXERCISES[attempt.__name__]))
