"""Test accuracy (§ 3): greedy and maj@32, each with a 95 % interval and what it was counted on."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from irpo_lib.records import Completion, Problem
from irpo_lib.rewards import majority_vote
from irpo_lib.tasks import Task


@dataclass(frozen=True)
class Accuracy:
    """Shares in [0, 1]; `low` and `high` are Wilson's 95 % interval over problems."""

    accuracy: float
    low: float
    high: float
    problems: int
    samples: int
    without_answer: float


def wilson(right: int, total: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval for a share of right/total; unlike the normal one it stays within [0, 1].

    >>> [round(x, 3) for x in wilson(8, 10)]
    [0.49, 0.943]
    """
    if total < 1:
        raise ValueError("an interval needs at least one problem")
    p, z2 = right / total, z * z
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = z / (1 + z2 / total) * sqrt(p * (1 - p) / total + z2 / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def greedy_accuracy(completions: Sequence[Completion]) -> Accuracy:
    """Of rewarded greedy completions, one a problem."""
    right = sum(c.reward == 1 for c in completions)
    return _accuracy(right, len(completions), completions)


def majority_answers(completions: Sequence[Completion], problems: Sequence[Problem]) -> dict[str, str | None]:
    """problem id → the answer that most of its samples gave; see `rewards.majority_vote` for ties."""
    answers: dict[str, list[str | None]] = {p.id: [] for p in problems}
    for completion in sorted(completions, key=lambda c: c.index):
        answers[completion.problem_id].append(completion.answer)
    return {i: majority_vote(given) for i, given in answers.items()}


def majority_accuracy(completions: Sequence[Completion], problems: Sequence[Problem], task: Task) -> Accuracy:
    """Of rewarded samples, the same number for each problem."""
    votes = majority_answers(completions, problems)
    return _accuracy(sum(task.is_correct(votes[p.id], p) for p in problems), len(problems), completions)


def sampled_accuracy(completions: Sequence[Completion]) -> float:
    """The mean reward of samples: what a single draw gets right."""
    return sum(c.reward or 0.0 for c in completions) / len(completions)


def _accuracy(right: int, problems: int, completions: Sequence[Completion]) -> Accuracy:
    low, high = wilson(right, problems)
    missing = sum(c.answer is None for c in completions) / len(completions)
    return Accuracy(right / problems, low, high, problems, len(completions), missing)
