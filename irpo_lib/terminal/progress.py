"""One progress bar in a terminal; a line now and then in a notebook or a log."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

#: Seconds between two lines where there is no terminal.
EVERY = 20.0
#: How a progress line ends.
LEFT = " s left"

_quiet = False


def shows_progress(line: str) -> None:
    """Passes on a progress line of another process."""
    if not _quiet:
        print(line, flush=True)


@contextmanager
def quiet(wanted: bool = True) -> Iterator[None]:
    """Within it, work that is a part of something larger shows no progress of its own."""
    global _quiet
    before = _quiet
    _quiet = before or wanted
    try:
        yield
    finally:
        _quiet = before


class Progress(tqdm):
    """Counts work that is done: `with Progress(total, "generate") as p: p.add(3)`."""

    initial = 0  # of a quiet one; tqdm gives it to the others

    def __init__(self, total: int, what: str, unit: str = "problems"):
        self.in_terminal = sys.stderr.isatty()
        pace = {} if self.in_terminal else {"mininterval": EVERY, "delay": EVERY, "miniters": 1}
        super().__init__(total=total, desc=what, unit=" " + unit, leave=False, disable=_quiet, **pace)

    def add(self, n: int = 1) -> None:
        self.update(n)

    def skip(self, n: int) -> None:
        """Work that an earlier run had done: it counts as done but not for the estimate of the time left."""
        self.initial += n
        self.add(n)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """What tqdm calls to show the present state, or an empty message in the end."""
        if self.in_terminal:
            return super().display(msg, pos)
        fresh = self.n - self.initial
        if msg is None and fresh > 0 and self.n < self.total:
            left = self.format_dict["elapsed"] / fresh * (self.total - self.n)
            print(f"{self.desc}: {self.n} of {self.total}{self.unit}, about {left:.0f}{LEFT}", flush=True)
        return False
