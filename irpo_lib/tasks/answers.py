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
        line = line.strip().strip("*_` \t\r")
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
    text = answer.replace("\u2212", "-")
    found = list(_NUMBER.finditer(text)) if len(text) <= LONGEST else []
    if len(found) != 1:
        return None
    digits = found[0].group().rstrip(",")
    if "," in digits and not _GROUPED.fullmatch(digits):
        return None
    before = text[: found[0].start()].rstrip("$€£¥({\\ *_`")
    plain = format(Decimal(digits.replace(",", "")), "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return f"-{plain}" if before.endswith("-") and plain != "0" else plain


#: A label at the beginning: a capital, or a small letter with a mark behind it or alone.
_LABEL = re.compile(r"\(?([A-E])(?=[).:,;*\s]|$)|\(?([a-e])(?=[).:]|$)")
#: A label anywhere: a capital that stands alone, or a small letter before a bracket.
_ANY_LABEL = re.compile(r"(?<![A-Za-z0-9'])(?:([A-E])(?![A-Za-z0-9'])|\(?([a-e])\))")


def letter(answer: str, choices: tuple[str, ...]) -> str | None:
    """An ARC answer as one offered label: "B", "(B)", "b)", "(B) converging of plates" → "B"; None otherwise.

    Behind the label there may be any words but another label. The option's own text does not count as one: "(B) A
    stone" is B where the second option is "A stone", and "A stone" alone is a word with its article, no label.
    """
    text = answer.strip("*_`. \t")
    match = _LABEL.match(text) if len(text) <= LONGEST else None
    if match is None:
        return None
    label, rest = (match[1] or match[2]).upper(), text[match.end() :].lstrip(").:,;* \t")
    offered = LETTERS[: len(choices)]
    if label not in offered:
        return None
    option = choices[offered.index(label)].strip(" .")
    if rest.lower().startswith(option.lower()) and not rest[len(option) :][:1].isalnum():
        rest = rest[len(option) :]
    elif re.match(r"A\s+[a-z]", text):
        return None
    others = {(upper or lower).upper() for upper, lower in _ANY_LABEL.findall(rest)} - {label}
    return None if others & set(offered) else label


def boxed(answer: str) -> str | None:
    r"""A MATH answer: the content of the last `\boxed{…}` of the line, else the line; spaces and end marks removed."""
    content = last_boxed(answer)
    text = (answer if content is None else content).lstrip(" $").rstrip(" $.")
    text = re.sub(r"\s+", "", text.replace("\\left", "").replace("\\right", "").replace("\\!", ""))
    text = text.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
    return text or None


def last_boxed(text: str) -> str | None:
    r"""The content of the last `\boxed{…}`, braces inside it balanced; None where there is none or it does not end."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 0, start + len("\\boxed{")
    for i in range(begin - 1, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin:i]
    return None
