"""Majority votes, intervals, and accuracies on examples that can be counted by hand."""

import random
from math import sqrt

import numpy as np
import pytest

from irpo_lib.evaluation import greedy_accuracy, majority_accuracy, sampled_accuracy, wilson
from irpo_lib.records import Completion, Problem
from irpo_lib.rewards import majority_vote, reward
from irpo_lib.tasks import get_task

TASK = get_task("gsm8k-mini")


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["3", "5", "5"], "5"),
        (["3", "5", "5", "3"], "3"),  # of a tie, what was sampled first
        (["5", "3", "3", "5"], "5"),
        (["1", "2", "3"], "1"),
        ([None, None, None, "7"], "7"),  # what is missing does not vote
        ([None, "2", None, "1", "1"], "1"),
        ([None, None], None),
        ([], None),
    ],
)
def test_majority_vote(answers, winner):
    assert majority_vote(answers) == winner


def test_majority_vote_against_counting():
    rng = random.Random(0)
    for _ in range(500):
        answers = rng.choices(["1", "2", "3", None], k=rng.randrange(9))
        voted = [a for a in answers if a is not None]
        most = max((voted.count(a) for a in voted), default=0)
        assert majority_vote(answers) == next((a for a in voted if voted.count(a) == most), None)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (8, 10, 0.4902, 0.9433),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (50, 100, 0.4038, 0.5962),
        (1, 1, 0.2065, 1.0),
    ],
)
def test_wilson_against_published_values(right, total, low, high):
    assert wilson(right, total) == pytest.approx((low, high), abs=1e-4)


def test_wilson_is_where_the_score_test_turns():
    """Its ends are the shares p with |p̂ − p| = z √(p (1 − p) / n)."""
    for total in (1, 7, 200, 1319):
        for right in {0, 1, total // 3, total // 2, total - 1, total}:
            low, high = wilson(right, total)
            assert 0 <= low <= right / total <= high <= 1
            for end in (low, high):
                if 0 < end < 1:
                    assert abs(right / total - end) == pytest.approx(1.96 * sqrt(end * (1 - end) / total), abs=1e-9)
    with pytest.raises(ValueError, match="at least one"):
        wilson(0, 0)


def completions(problem: Problem, texts: list[str | None]) -> list[Completion]:
    """A rewarded completion for each answer; "9…" is one cut at the length limit, None has no answer."""
    found = []
    for i, text in enumerate(texts):
        response = "I do not know" if text is None else f"So\nFinal answer: {text.strip('…')}"
        finish = "length" if text and text.endswith("…") else "stop"
        found.append(reward(Completion(problem.id, i, [1], [2], response, finish), problem, TASK))
    return found


def test_greedy_accuracy_by_hand():
    problems = [Problem(str(i), "", "9") for i in range(5)]
    texts = ["9", "$9.00", "8", None, "9…"]
    found = greedy_accuracy([completions(p, [t])[0] for p, t in zip(problems, texts, strict=True)])
    assert found.accuracy == 2 / 5
    assert (found.low, found.high) == wilson(2, 5)
    assert (found.problems, found.samples) == (5, 5)
    assert found.without_answer == 2 / 5, "a response that was cut has no answer"


def test_majority_accuracy_by_hand():
    problems = [Problem(str(i), "", "9") for i in range(4)]
    texts = [
        ["9", "8", "9.0", "8", "9"],  # right, as 9 = 9.0
        ["8", "9", "9", "8", None],  # a tie that the wrong one wins
        ["9…", "9…", "9…", None, "8"],  # what was cut does not vote
        [None, None, "9", None, None],  # one vote is enough
    ]
    samples = [c for p, t in zip(problems, texts, strict=True) for c in completions(p, t)]
    for seed in range(10):
        random.Random(seed).shuffle(samples)
        found = majority_accuracy(samples, problems, TASK)
        assert found.accuracy == 2 / 4, "the order of sampling is that of the indices, not of the list"
    assert (found.low, found.high) == wilson(2, 4)
    assert (found.problems, found.samples) == (4, 20)
    assert found.without_answer == 9 / 20
    assert sampled_accuracy(samples) == 6 / 20


def test_rewards_that_are_no_shares_have_the_normal_interval():
    rewards = [0.2, 0.4, 0.9, -0.3]
    found = greedy_accuracy([Completion(str(i), 0, [1], [2], "", "stop", "9", r) for i, r in enumerate(rewards)])
    mean, se = np.mean(rewards), np.std(rewards, ddof=1) / 2
    assert (found.accuracy, found.low, found.high) == pytest.approx((mean, mean - 1.96 * se, mean + 1.96 * se))


def test_nobody_voted_is_wrong():
    problem = Problem("0", "", "9")
    assert majority_accuracy(completions(problem, [None, None]), [problem], TASK).accuracy == 0
