"""One progress bar in a terminal; a line now and then in a notebook or a log."""

import sys
import time
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


class Progress:
    """Counts work that is done: `with Progress(total, "generate") as p: p.add(3)`."""

    def __init__(self, total: int, what: str, unit: str = "problems"):
        self.total, self.what, self.unit = total, what, unit
        self.done = 0
        self.quiet = _quiet
        hidden = self.quiet or not sys.stderr.isatty()
        self.bar = tqdm(total=total, desc=what, unit=" " + unit, leave=False, disable=hidden)
        self.started = self.said = time.monotonic()
        self.resumed = 0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *exc) -> None:
        self.close()

    def close(self) -> None:
        self.bar.close()

    def skip(self, n: int) -> None:
        """Work that an earlier run had done: it counts as done but not for the estimate of the time left."""
        self.resumed += n
        self.add(n)

    def add(self, n: int = 1) -> None:
        self.done += n
        self.bar.update(n)
        now = time.monotonic()
        fresh = self.done - self.resumed
        if self.bar.disable and not self.quiet and now - self.said >= EVERY and fresh > 0 and self.done < self.total:
            left = (now - self.started) / fresh * (self.total - self.done)
            print(f"{self.what}: {self.done} of {self.total} {self.unit}, about {left:.0f}{LEFT}", flush=True)
            self.said = now
