"""r = R(y, y*): 1 where the final answer equals the gold answer, else 0, or the task's own (§ 2); majority votes."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from irpo_lib.records import Completion, Problem
from irpo_lib.tasks import Task, get_task


def grade(task: str, gold: str, response: str, choices: Sequence[str] | None = None) -> bool:
    """Whether a response's final answer is right.

    Args:
        task: A task's name.
        gold: The gold answer.
        response: The model's whole text; its last "Final answer:" counts.
        choices: The options, for a multiple-choice task.
    """
    problem = Problem("", "", gold, None, tuple(choices) if choices else None)
    return get_task(task).score(response, problem) == 1


def reward(completion: Completion, problem: Problem, task: Task) -> Completion:
    """The completion with its answer and reward; see `Task.judge` for a response cut at the length limit."""
    answer, r = task.judge(completion.text, problem, finished=completion.finish_reason == "stop")
    return replace(completion, answer=answer, reward=r)


def rewarded(completions: Iterable[Completion], problems: Sequence[Problem], task: Task) -> Iterator[Completion]:
    """Each completion with its answer and reward, as they come."""
    by_id = {p.id: p for p in problems}
    return (reward(c, by_id[c.problem_id], task) for c in completions)


def majority_vote(answers: Sequence[str | None]) -> str | None:
    """The answer that most samples gave (maj@32, § 3.1).

    Missing answers do not vote; of several answers with the same number of votes, the one that was sampled first
    wins; None when nobody voted.
    """
    votes = Counter(a for a in answers if a is not None)
    return max(votes, key=votes.__getitem__) if votes else None
