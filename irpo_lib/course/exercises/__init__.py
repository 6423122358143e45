"""The exercises, a module a notebook."""

from irpo_lib.course.check import Exercise
from irpo_lib.course.exercises import (
    beyond,
    diagnostics,
    generation,
    iterations,
    loss,
    preference_pairs,
    rewards,
    scaling_up,
)

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
