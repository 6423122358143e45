"""Appendix B.1's layout of a question, which the real tasks put below their instruction."""

from collections.abc import Iterable, Sequence

from irpo_lib.tasks.answers import LETTERS


def ask(
    question: str, choices: Sequence[str] | None = None, solved: Iterable[tuple[str, str]] = (), behind: str = "\n"
) -> str:
    """A question that waits for its solution.

    Args:
        question: Its text.
        choices: The options of a multiple-choice question.
        solved: Examples that stand before it: (question, solution with its final answer).
        behind: What ends each example.
    """
    shown = "".join(f"{ask(example)} {solution}{behind}" for example, solution in solved)
    options = "".join(f"\n({letter}) {x}" for letter, x in zip(LETTERS, choices or (), strict=False))
    return f"{shown}Question: {question}{options}\nSolution:"
