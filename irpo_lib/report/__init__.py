"""A run as one HTML file (`irpo report`), and a problem's samples as a table for a notebook. Reads files only.

`folder` reads a run, `browser` prepares its samples, `ratios` asks its models, `images` draws, and `page` puts the
file together. What HTML there is stands in `page.html`, `macros.html` and `table.html`; `page.js` makes the sample
browser.
"""

from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from irpo_lib.records import Completion, Problem
from irpo_lib.results.templates import TEMPLATES
from irpo_lib.tasks.answers import LETTERS
from irpo_lib.terminal.errors import UserError


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
    html = TEMPLATES.get_template("report/table.html").render(
        problem=problem, choices=list(zip(LETTERS, problem.choices or (), strict=False)), most=most,
        right=right, others=others, rows=list(zip_longest(right, others))[:most],
    )  # fmt: skip
    return HTML(html.strip())
