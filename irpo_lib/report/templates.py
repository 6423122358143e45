"""HTML from the templates beside this file, in which all text is escaped."""

import re
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

#: A number, an interval, or the dash in place of one.
NUMBER = re.compile(r"[\d.]*–?[\d.]*")


def _escaped(value: Any) -> Any:
    """Text as HTML; what is HTML already, a macro's, stays as it is. Jinja's own escaping writes ' and " otherwise."""
    return value if hasattr(value, "__html__") else Markup(escape(str(value)))


#: Its `tojson` writes <, >, & and ' as \u003c and so on: no string can end the <script> that it stands in.
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, finalize=_escaped, undefined=StrictUndefined,
    trim_blocks=True, lstrip_blocks=True,
)  # fmt: skip
TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
TEMPLATES.tests["numeric"] = lambda cell: NUMBER.fullmatch(str(cell)) is not None
TEMPLATES.filters["one_decimal"] = lambda x: "–" if x is None or x != x else f"{x:.1f}"  # NaN is not itself
