r"""From a response to its final answer, and to a form in which equal answers are equal strings.

The paper's format is required: the *last* "Final answer:" counts, its line or the next line that is not empty. There
is no falling back to the last number of the text. Every function here is linear in the length of its input.
"""

import re
from decimal import Decimal

LETTERS = "ABCDE"
#: Longer lines are no answers; the limit keeps hostile text from costing time.
LONGEST = 1000
_MARKER = re.compile(r"final answer[*_ ]{0,4}:", re.IGNORECASE)


def final_answer(response: str) -> str | None:
    """The text behind the last "Final answer:" (any case, markdown around it allowed), or None.

    >>> final_answer("2 + 2 = 4.\\nFinal answer: 4")
    '4'
    """
    end = None
    for marker in _MARKER.finditer(response):
        end = marker.end()
    return None if end is None else _first_line(response[end:])


def _first_line(text: str) -> str | None:
    for line in text.split("\n", 20)[:20]:
        line = line[: LONGEST + 1].strip().strip("*_` \t\r")
        if line:
            return line if len(line) <= LONGEST else None
    return None


_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+", re.ASCII)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)


def number(answer: str) -> str | None:
    """A GSM8K answer as a canonical decimal: "$1,080.00" → "1080", "−3 apples" → "-3"; None unless it has one number.

    What stands around the number (currency, units, percent, markdown) is ignored. 18 = 18.00, 18.5 ≠ 18; a range or
    two numbers are no answer.
    """
    text = answer[:LONGEST].replace("\u2212", "-")
    found = list(_NUMBER.finditer(text))
    if len(found) != 1:
        return None
    digits = found[0].group().rstrip(",")
    if "," in digits and not _GROUPED.fullmatch(digits):
        return None
    before = text[: found[0].start()].rstrip("$€£¥({\\ *_`")
    value = Decimal(digits.replace(",", "")) * (-1 if before.endswith("-") else 1)
    plain = format(value, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain


_LETTER = re.compile(r"(?<![A-Za-z0-9])\(?([A-Ea-e])\)?(?![A-Za-z0-9])")


def letter(answer: str, choices: tuple[str, ...]) -> str | None:
    """An ARC answer as one offered label: "B", "(B)", "b)", "(B) converging of plates" → "B"; None otherwise."""
    offered = LETTERS[: len(choices)]
    match = re.match(r"\(?([A-Ea-e])(?:[).:,]|\s|$)", answer.strip())
    if match is None or match.group(1).upper() not in offered:
        return None
    label = match.group(1).upper()
    if answer.strip()[:1].islower() and not re.match(r"\(?[a-e](?:[).:]|$)", answer.strip()):
        return None  # "a stone" begins with a word, not with a label
    others = {
        m.upper() for m in _LETTER.findall(answer) if m.upper() in offered and (m.isupper() or f"({m})" in answer)
    }
    return label if others <= {label} else None


def boxed(answer: str) -> str | None:
    r"""A MATH answer: the content of the last `\boxed{…}` of the line, else the line; spaces and end marks removed."""
    content = last_boxed(answer)
    text = (answer if content is None else content).strip().strip("$").rstrip(".")
    text = re.sub(r"\s+", "", text.replace("\\left", "").replace("\\right", "").replace("\\!", ""))
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return text or None


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{…}`, braces inside it balanced; None where there is none."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for i in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin:i]
    return None
