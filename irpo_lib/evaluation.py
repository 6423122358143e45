"""Test accuracy (§ 3): greedy and maj@32, each with a 95 % interval and what it was counted on."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import pstdev

from irpo_lib.config import Config
from irpo_lib.records import Completion, Problem
from irpo_lib.rewards import majority_vote
from irpo_lib.tasks import Task

#: (problem id, answer, reward)
Outcome = tuple[str, str | None, float]


@dataclass(frozen=True)
class Accuracy:
    """Mean rewards (shares in [0, 1] where those are 0 or 1), with the 95 % interval over problems; see `interval`.

    `without_answer` is the share of samples without a final answer.
    """

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


def interval(rewards: Sequence[float]) -> tuple[float, float]:
    """The 95 % interval of a mean over problems: Wilson's where each is 0 or 1, else mean ± 1.96 s / √n."""
    n, total = len(rewards), sum(rewards)
    if set(rewards) <= {0, 1}:
        return wilson(int(total), n)
    half = 1.96 * pstdev(rewards) / sqrt(max(1, n - 1))
    return total / n - half, total / n + half


def models_with_votes(config: Config, task: Task) -> tuple[int, ...]:
    """The t whose M_t gets maj@32: those that the config names; none where a task's answers cannot be compared."""
    return config.majority_iterations if task.normalise is not None else ()


def greedy_accuracy(completions: Sequence[Completion]) -> Accuracy:
    """The mean reward of rewarded greedy completions, one a problem."""
    return _accuracy([c.reward or 0.0 for c in completions], completions)


def votes(completions: Sequence[Completion], problems: Sequence[Problem], task: Task) -> list[Outcome]:
    """Of each problem, the answer that most of its samples gave; see `rewards.majority_vote` for ties."""
    answers: dict[str, list[str | None]] = {p.id: [] for p in problems}
    for completion in sorted(completions, key=lambda c: c.index):
        answers[completion.problem_id].append(completion.answer)
    voted = {i: majority_vote(given) for i, given in answers.items()}
    return [(p.id, voted[p.id], task.is_correct(voted[p.id], p)) for p in problems]


def majority_accuracy(completions: Sequence[Completion], problems: Sequence[Problem], task: Task) -> Accuracy:
    """Of rewarded samples, the same number for each problem."""
    return _accuracy([r for _, _, r in votes(completions, problems, task)], completions)


def sampled_accuracy(completions: Sequence[Completion]) -> float:
    """The mean reward of samples: what a single draw gets right."""
    return sum(c.reward or 0.0 for c in completions) / len(completions)


def _accuracy(rewards: Sequence[float], completions: Sequence[Completion]) -> Accuracy:
    low, high = interval(rewards)
    missing = sum(c.answer is None for c in completions) / len(completions)
    return Accuracy(sum(rewards) / len(rewards), low, high, len(rewards), len(completions), missing)
