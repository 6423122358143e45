"""The course as a program (`program`), and its way to show the package's own code. Installed as `irpo_course`."""

import inspect
import textwrap
from collections.abc import Callable
from typing import Any


def show_source(*functions: Callable, until: str | None = None) -> Any:
    """The source of functions as a notebook shows it; `until` leaves out what comes from there on."""
    from IPython.display import Markdown

    source = "\n\n".join(inspect.getsource(f) for f in functions)
    if until:
        source = source.partition(until)[0]
    return Markdown(f"```python\n{textwrap.dedent(source).strip()}\n```")
