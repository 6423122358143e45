"""Tables in Markdown and pages in HTML, from the templates beside what they show."""

import re
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

#: A number, an interval, or the dash in place of one.
NUMBER = re.compile(r"[\d.]*–?[\d.]*")

#: In a page all text is escaped. `tojson` writes <, >, & and ' as \u003c and so on: no string can end its <script>.
TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1]), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    autoescape=select_autoescape(["html"], default_for_string=False),
)  # fmt: skip
TEMPLATES.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
TEMPLATES.tests["numeric"] = lambda cell: NUMBER.fullmatch(str(cell)) is not None
TEMPLATES.filters["one_decimal"] = lambda x: "–" if x is None or x != x else f"{x:.1f}"  # NaN is not itself
