r"""MATH's answers: a string normalisation in which equal answers become equal strings.

The public Hendrycks rules and some more stand in `math_rules.yaml`, each with an example that is tested. It is not
algebra: what needs algebra to be seen as equal (x+1 and 1+x) counts as different, about 2 % of right answers in real
text. In return it is fast, cannot hang, and never calls different things equal. Plain numbers are compared by exact
value.
"""

import re
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, pairwise
from math import gcd
from pathlib import Path
from typing import Any

import yaml

from irpo_lib.tasks.answers import LONGEST

_DATA = yaml.safe_load(Path(__file__).with_name("math_rules.yaml").read_text(encoding="utf8"))
_CHARACTERS = str.maketrans(_DATA["characters"])
#: Replacements that no template can say.
_FUNCTIONS = {
    "names of braces": lambda m: r"\{" if m[1] == "l" else r"\}",
    "thousands": lambda m: m[0].replace(",", ""),
}


def _with_parts(pattern: str) -> str:
    for name, part in _DATA["parts"].items():
        pattern = pattern.replace(f"«{name}»", part)
    return pattern


#: (what the rule does, before, after, pattern, replacement), in the order in which they are applied.
RULES: list[tuple[str, str, str, re.Pattern, Any]] = [
    (name, before, after, re.compile(_with_parts(pattern)), _FUNCTIONS.get(name, replacement))
    for name, before, after, pattern, replacement in _DATA["rules"]
]
_MIXED = re.compile(r"(-?)(?:(\d+)(?=\\))?\\frac\{(-?\d+)\}\{(-?\d+)\}", re.ASCII)
#: Of these brackets the inside is looked at; what is not enclosed as a whole counts as inside.
_ENCLOSED = re.compile(r"((?:[(\[]|\\\{)?)([^()\[\]]*?)((?:[)\]]|\\\})?)")
_MATRIX = re.compile(r"\\begin\{pmatrix\}(.*?)(?:\\\\)?\\end\{pmatrix\}")
#: The "x=" of "x=5", also in a list.
_VALUE = re.compile(r"(?:(?<=^)|(?<=,))[a-zA-Z]=(?=(?:-?[\d.]+|-?\d+/\d+|-?\\frac\{-?\d+\}\{\d+\})(?:,|$))")
_WORD = re.compile(r"[A-Za-z][a-z]+")
_DECIMAL = re.compile(r"-?\d+(?:\.\d*)?", re.ASCII)


@lru_cache(maxsize=4096)  # a gold answer is compared with all samples of its problem
def normalise(answer: str) -> str | None:
    r"""The canonical form of an answer without its box; None where nothing is left.

    >>> [normalise(a) for a in (r"\dfrac{3}{4}", "0.75", "3/4", r"\frac34", "1,000", r"[0, 1)", "28_{9}", " ")]
    ['3/4', '3/4', '3/4', '3/4', '1000', '[0,1)', '28_9', None]
    """
    if len(answer) > LONGEST:
        return None
    text = answer.translate(_CHARACTERS).strip()
    for _, _, _, pattern, replacement in RULES:
        text = pattern.sub(replacement, text)
    if _WORD.fullmatch(text):
        text = text.lower()
    return _exact(text) if text else None


def _exact(text: str) -> str:
    """Plain numbers by their exact value, "p/q" in lowest terms; within tuples, intervals and lists too.

    A fraction that could be reduced stays as it is written: MATH asks for the reduced one.
    """
    matrix = _MATRIX.fullmatch(text)
    if matrix:
        rows = ["&".join(map(_number, row.split("&"))) for row in matrix[1].split(r"\\")]
        return r"\begin{pmatrix}" + r"\\".join(rows) + r"\end{pmatrix}"
    enclosed = _ENCLOSED.fullmatch(text)
    opening, inside, closing = enclosed.groups() if enclosed else ("", text, "")
    return opening + ",".join(_number(part) for part in _split(inside)) + closing


def _number(text: str) -> str:
    if _DECIMAL.fullmatch(text):
        return str(Fraction(text))
    found = _MIXED.fullmatch(text)
    if found is None:
        return text
    p, q = int(found[3]), int(found[4])
    if abs(q) < 2 or gcd(p, q) > 1:
        return text
    value = Fraction(p, q) + int(found[2] or 0)
    return str(-value if found[1] else value)


def _split(text: str) -> list[str]:
    """At the commas that stand in no bracket."""
    depths = _depths(text, "([{", ")]}")
    commas = [i for i, (c, depth) in enumerate(zip(text, depths, strict=True)) if c == "," and depth == 0]
    return [text[before + 1 : comma] for before, comma in pairwise([-1, *commas, len(text)])]


def _depths(text: str, opening: str, closing: str) -> Iterator[int]:
    """How many brackets are open behind each character."""
    return accumulate((c in opening) - (c in closing) for c in text)


def boxed(answer: str, gold: str = "") -> str | None:
    r"""The content of the last `\boxed{…}` of the line, else the line; canonical. A box that does not end is none.

    "x=5" counts as 5, unless the gold answer is an equation of another variable; nothing else is cut at "=".
    """
    content = last_boxed(answer) if "\\boxed" in answer or "\\fbox" in answer else answer
    found = None if content is None else normalise(content)
    if found is None or "=" not in found:
        return found
    variable = _VALUE.match(normalise(gold) or "")
    if "=" in gold and not (variable and found.startswith(variable[0])):
        return found
    return normalise(_VALUE.sub("", found))


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}`, braces inside it balanced; None where there is none or it does not end."""
    last = deque(re.finditer(r"\\(?:boxed|fbox)\s*", text), maxlen=1)
    if not last:
        return None
    begin = last[0].end()
    if text[begin : begin + 1] != "{":
        return text[begin:].partition("$")[0].split(" ")[0] or None
    end = next((i for i, depth in enumerate(_depths(text[begin:], "{", "}"), begin) if depth == 0), None)
    return None if end is None else text[begin + 1 : end]
