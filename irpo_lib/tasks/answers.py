r"""From a response to its final answer, and to a form in which equal answers are equal strings.

The paper's format is required: the *last* "Final answer:" counts, its line or the next line that is not empty. There
is no falling back to the last number of the text. Every function here is linear in the length of its input.
"""

import re
import unicodedata
from fractions import Fraction

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
        if line and line not in ("$$", "\\[", "$"):
            return line if len(line) <= LONGEST else None
    return None


_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+", re.ASCII)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
#: What is removed: LaTeX's spaces and commas within a number, its fractions' commands, exponents of units.
_WITHIN = ((re.compile(r"\{,\}"), ","), (re.compile(r"(?<=[\d,])(?:\\[,!;: ]|[\u00a0\u2009\u202f])(?=\d{3})"), ""),
           (re.compile(r"(?<=[A-Za-z}])\^\{?\d\}?"), ""))  # fmt: skip
_SUPERSCRIPTS = re.compile("[²³]")
#: What makes of a number a bound, a part of a formula, or a denial.
_NO_VALUE = re.compile(
    r"[<>≤≥±]|\\(?:sqrt|pi|le|ge|pm|times|cdot)\b|√|π|\d\+|(?<![A-Za-z\\])[A-Za-z]\d|[a-z]\s*[+*]\s*\d|\b(?:at\s+(?:least|most)|"
    r"(?:more|less|fewer)\s+than|not|or\s+(?:more|less))\b|n['’]t\b",
    re.IGNORECASE,
)
_SCALES = {"hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "billion": 10**9}
_SCALE = re.compile(r"\s*(hundred|thousand|million|billion)\b|k\b", re.IGNORECASE)
_FRACTION = re.compile(
    r"(?:(?P<whole>\d+)\s*(?=\\)|(?P<whole2>\d+)\s+(?=\d+\s*/))?"
    r"(?:\\[dt]?frac\s*\{\s*(?P<p>\d+)\s*\}\s*\{\s*(?P<q>\d+)\s*\}|\\[dt]?frac\s*(?P<p1>\d)\s*(?P<q1>\d)"
    r"|(?P<p2>[\d,]+(?:\.\d+)?)\s*/\s*(?P<q2>[\d,]+(?:\.\d+)?))(?![\d/])",
    re.ASCII,
)


def number(answer: str) -> str | None:
    """A GSM8K answer as its exact value: "$1,080.00" → "1080", "−3 apples" → "-3", "3/4" → "0.75", "1/3" → "1/3".

    What stands around the number (currency, units, percent, LaTeX, markdown) is ignored. 18 = 18.00, 18.5 ≠ 18; a
    range, two numbers or none are no answer.
    """
    if len(answer) > LONGEST:
        return None
    text = unicodedata.normalize("NFKC", _SUPERSCRIPTS.sub("", answer)).replace("\u2212", "-")
    text = re.sub(r"^–(?=\d)", "-", text)
    if _NO_VALUE.search(text) or ("\\boxed{" in text and "}" not in text):
        return None
    for pattern, replacement in _WITHIN:
        text = pattern.sub(replacement, text)
    fraction = _FRACTION.search(text)
    if fraction:
        value, start, end = _fraction(fraction), fraction.start(), fraction.end()
        others = _NUMBER.search(text[:start]) or _NUMBER.search(text[end:])
    else:
        found = list(_NUMBER.finditer(text))
        value, start, end = _decimal(found[0].group()) if found else None, found[0].start() if found else 0, 0
        scale = _SCALE.match(text, found[0].end()) if found else None
        if scale and value is not None:
            value *= _SCALES[(scale[1] or "k").lower()]
        others = found[1] if len(found) > 1 else None
    if value is None or others:
        return None
    before = text[:start].rstrip("$€£¥({\\ *_`")
    return _plain(-value if before.endswith("-") else value)


def _decimal(digits: str) -> Fraction | None:
    digits = digits.rstrip(",")
    if "," in digits and not _GROUPED.fullmatch(digits):
        return None
    return Fraction(digits.replace(",", ""))


def _fraction(found: re.Match) -> Fraction | None:
    top, bottom = (_decimal(found[a] or found[b] or found[c]) for a, b, c in (("p", "p1", "p2"), ("q", "q1", "q2")))
    if top is None or not bottom:
        return None
    return top / bottom + int(found["whole"] or found["whole2"] or 0)


def _plain(value: Fraction) -> str:
    """A decimal where it ends, else p/q: equal values are equal strings."""
    twos_and_fives = value.denominator
    for prime in (2, 5):
        while twos_and_fives % prime == 0:
            twos_and_fives //= prime
    if twos_and_fives > 1:
        return str(value)
    places = max(value.denominator.bit_length(), 1)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    plain = f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".")
    return f"-{plain}" if value < 0 else plain


#: A label with its mark: "(B)", "[b]", "B)", "B.", "B:" or markdown's and LaTeX's "**B**", "\boxed{B}", "\text{B}".
_MARKED = re.compile(
    r"(?<![A-Za-z0-9'])(?:[(\[{*]+([A-Ea-e])[)\]}*.:]+|(?<![^\s*])([A-Ea-e])(?:[)\]]|[.:](?=\s|$)))(?![A-Za-z0-9])"
)
#: A capital that stands alone.
_CAPITAL = re.compile(r"(?<![A-Za-z0-9'])([A-E])(?![A-Za-z0-9'_^])")
#: Where a label without a mark may stand: first, or behind words that announce it.
_ANNOUNCED = re.compile(
    r"[(\[{*$\\]*(?:(?i:the|correct|right|best|answer|option|choice|is|letter|text|textbf|mathrm|boxed|it|so|i|think|choose|pick)\b[\s:{(*\\]*)*[A-E](?![A-Za-z0-9'_^])"
)
#: A small letter as a second label: "B or c".
_SECOND = re.compile(r"\b(?:or|and)\s+\(?([a-e])\)?(?=[\s.,;]*$)")
#: A label that is named in order to be rejected.
_REJECTED = re.compile(r"\b[A-E]\)?\s+(?:is|was)(?:n['’]t|\s+(?:not|incorrect|wrong|false))\b")
#: "A stone": an article, not a label; "A and B", "A is right" are labels.
_ARTICLE = re.compile(r"(?<![A-Za-z0-9'])A\s+(?!(?:and|or|is|because|since|but|nor|would|as|seems|for)\b)[a-z]")


def letter(answer: str, choices: tuple[str, ...]) -> str | None:
    """An ARC answer as one offered label: "B", "(B)", "b)", "(B) converging of plates" → "B"; None otherwise.

    Two labels are none, and a letter within a word is no label. The chosen option's own text behind its label does
    not count: "(B) A stone" is B where the second option is "A stone", and "A stone" alone is a word with its
    article. Without `choices`, the labels A to E are offered.
    """
    text = answer.strip("*_`$. \t\"'“”‘’")
    if len(text) > LONGEST or (len(text) > 1 and text.lower() in (c.strip("*_`$. \t").lower() for c in choices)):
        return None
    found = {text.upper()} & set(LETTERS) if len(text) == 1 else _labels(_without_option(text, choices))
    offered = LETTERS[: len(choices)] if choices else LETTERS
    return found.pop() if len(found) == 1 and found <= set(offered) else None


def _labels(text: str) -> set[str]:
    """All labels in a text, in capitals."""
    if _REJECTED.search(text):
        return set()
    marked = {(a or b).upper() for a, b in _MARKED.findall(text)} | {m[1].upper() for m in _SECOND.finditer(text)}
    articles = {m.start() for m in _ARTICLE.finditer(text)}
    capitals = {m[1] for m in _CAPITAL.finditer(text) if m.start() not in articles}
    return marked | capitals if marked or _ANNOUNCED.match(text) else set()


def _without_option(text: str, choices: tuple[str, ...]) -> str:
    """The text with the option's words behind its label taken out: they may hold another label."""
    label = re.match(r"\W*(?:([A-E])(?![A-Za-z0-9'_^])|([a-e])(?=[)\].:]))[)\].:,;*}\s]*", text)
    if label is None:
        return text
    number = LETTERS.index((label[1] or label[2]).upper())
    option = choices[number].strip(" .").lower() if number < len(choices) else ""
    rest = text[label.end() :]
    if option and rest.lower().startswith(option) and not rest[len(option) :][:1].isalnum():
        return f"({LETTERS[number]}) {rest[len(option) :]}"
    return text
