"""A problem's samples as a static HTML table for a notebook: right ones on the left, the others on the right."""

from collections.abc import Sequence
from html import escape
from itertools import zip_longest
from typing import Any

from irpo_lib.records import Completion, Problem
from irpo_lib.terminal.errors import UserError

CELL = "text-align:left;vertical-align:top;white-space:pre-wrap;width:50%;border:1px solid #ccc;padding:6px 8px"
#: MathJax would take what stands between two dollar signs for a formula.
NO_MATH = "tex2jax_ignore mathjax_ignore"


def sample_table(problem: Problem, samples: Sequence[Completion], most: int = 4) -> Any:
    """Right and wrong samples of a problem side by side.

    Args:
        problem: Its question, choices and gold answer stand above.
        samples: Rewarded completions, as the `reward` stage has them; those of other problems are passed over.
        most: At most so many rows; how many there are of each kind is said.

    Returns:
        An `IPython.display.HTML`, without scripts, in which all text is escaped.

    Raises:
        UserError: a sample of the problem has no reward yet.
    """
    from IPython.display import HTML

    own = [c for c in samples if c.problem_id == problem.id]
    if any(c.reward is None for c in own):
        raise UserError(f"samples of problem '{problem.id}' have no reward yet: give what the `reward` stage has made")
    right, others = ([c for c in own if (c.reward == 1) is wanted] for wanted in (True, False))
    rows = [f"<tr>{_cell(a)}{_cell(b)}</tr>" for a, b in list(zip_longest(right, others))[:most]]
    heads = (_head("right", right, most), _head("wrong or without an answer", others, most))
    return HTML(
        f'<table class="{NO_MATH}" style="width:100%;table-layout:fixed"><caption style="text-align:left">'
        f"{_question(problem)}</caption><thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _question(problem: Problem) -> str:
    from irpo_lib.tasks.answers import LETTERS

    choices = "".join(f"<br>({letter}) {escape(c)}" for letter, c in zip(LETTERS, problem.choices or (), strict=False))
    return f"<b>{escape(problem.id)}</b>: {_lines(problem.question)}{choices}<br>Gold answer: {escape(problem.answer)}"


def _head(words: str, some: Sequence[Completion], most: int) -> str:
    shown = f", {most} of them shown" if len(some) > most else ""
    return f'<th style="text-align:left">{len(some)} {words}{shown}</th>'


def _cell(sample: Completion | None) -> str:
    if sample is None:
        return f'<td style="{CELL}"></td>'
    answer = "no answer" if sample.answer is None else f"answer {escape(sample.answer)}"
    cut = ", cut at the length limit" if sample.finish_reason == "length" else ""
    return f'<td style="{CELL}"><i>sample {sample.index}: {answer}{cut}</i><br>{_lines(sample.text.strip())}</td>'


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")
