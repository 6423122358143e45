"""GSM8K's answers: the one number of a line, as its exact value. Linear in the length of the line."""

import re
import unicodedata
from fractions import Fraction
from itertools import pairwise

from irpo_lib.tasks.answers import BOUND, LONGEST, in_box

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+", re.ASCII)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
#: What is removed: LaTeX's spaces and commas within a number, its fractions' commands, exponents of units.
_WITHIN = ((re.compile(r"\{,\}"), ","), (re.compile(r"(?<=[\d,])(?:\\[,!;: ]|[\u00a0\u2009\u202f])(?=\d{3})"), ""),
           (re.compile(r"(?<=[A-Za-z}])\^\{?\d\}?"), ""))  # fmt: skip
#: A dash for a minus sign, where a value begins.
_DASH = re.compile(r"(?:^|(?<=[={]))(\s*)–(?=[$€£¥\\]*\d)")
_SUPERSCRIPTS = re.compile("[²³]")
#: What makes of a number a part of a formula.
_FORMULA = re.compile(
    r"\\(?:sqrt|pi|le|ge|pm|times|cdot)\b|√|π|\d\+|(?<![A-Za-z\\])[A-Za-z]\d|[a-z]\s*[+*]\s*\d", re.IGNORECASE
)
_SCALES = {"hundred": 100, "thousand": 1000, "k": 1000, "million": 10**6, "billion": 10**9}
_SCALE = re.compile(r"\s*(hundred|thousand|million|billion)\b|k\b", re.IGNORECASE)
_FRACTION = re.compile(
    r"(?:(?P<whole>\d+)\s*(?=\\)|(?P<whole2>\d+)\s+(?=\d+\s*/))?"
    r"(?:\\[dt]?frac\s*\{\s*(?P<p>\d+)\s*\}\s*\{\s*(?P<q>\d+)\s*\}|\\[dt]?frac\s*(?P<p1>\d)\s*(?P<q1>\d)"
    r"|(?P<p2>[\d,]+(?:\.\d+)?)\s*/\s*(?P<q2>[\d,]+(?:\.\d+)?))(?![\d/])",
    re.ASCII,
)
#: "the 13th day", but not "a 3rd of 12" nor "May 3rd, 2020".
_ORDINAL = re.compile(
    r"(?<![\d.,/])\d{1,3}\^?\{?(?:\\text\{)?(?:st|nd|rd|th)\b(?!,?\s+(?:of\s+)?(?:[A-Z]\w+,?\s+|the\s+)?[\d$])"
)
_EQUALS = re.compile(r"(?<![<>=!:])=(?![=>])|≈|\\approx\b")
_OPERATOR = re.compile(r"[-+*/×÷^]|\\(?:times|cdot|div|frac)\b")
#: Between two mentions of one number: "5 years. The answer is 5 years.", "5 dollars ($5)", "5 is 5".
_SAID_AGAIN = re.compile(r"\(|\.\s|\bis\b")
#: Where a number that stands twice is two of a kind: "2:2", "5 * 5", "Ann has 3 and Bob has 3".
_TWO_OF_A_KIND = re.compile(
    rf"{_OPERATOR.pattern}|:|\b(?:and|or|of|to|by|from|each|per|plus|minus|times|more|less|with|x)\b",
    re.IGNORECASE,
)
#: What parts two equations: "x = 5, y = 3" has no one value, "2 + 3 = 4 + 1 = 5" has.
_PARTED = re.compile(r"[;:]|,(?!\d{3})|\.(?!\d)|\b(?:and|or|so|but|then)\b")
#: An equation that is yet to be solved: "2x + 3 = 7", "x + 3 = 7", "3(y) = 6"; the letter of "3 h * 2" is a unit.
_UNKNOWN = re.compile(
    r"\d[a-z](?![A-Za-z])|(?<![A-Za-z\\/])(?:[xyzn]|(?<!\d\s)[a-z])\s*[-+*/^]"
    r"|(?:[-+*×({]|\d\s*/)\s*[b-hj-z](?![A-Za-z])",
    re.IGNORECASE,
)
#: What may stand between "=" and its number.
_VALUE = re.compile(r"(?:[\s$€£¥({*~-]|\\(?:[dt]?frac|text(?:bf)?|mathbf|mathrm|boxed)?|about\b|approximately\b)*[\d.]")


def number(answer: str) -> str | None:
    """A GSM8K answer as its exact value: "$1,080.00" → "1080", "−3 apples" → "-3", "3/4" → "0.75", "1/3" → "1/3".

    What stands around the number (currency, units, percent, LaTeX, markdown) is ignored. 18 = 18.00, 18.5 ≠ 18. The
    same number may be said twice ("5 years. The answer is 5 years."). Of several numbers, the one in the line's only
    box counts, else the one behind the last "=" of one equation ("3 + 4 = 7 eggs"), else the one beside ordinals ("7 on
    the 3rd day"). A bound, a denial, a range, an equation that is yet to be solved, two numbers without an equation, or
    none are no answer. A dozen is a unit and not 12, for the question may ask for dozens.
    """
    if len(answer) > LONGEST:
        return None
    text = unicodedata.normalize("NFKC", _SUPERSCRIPTS.sub("", answer)).replace("\u2212", "-")
    text = _DASH.sub(r"\1-", text)
    value = _only_number(text)
    return value if value is not None else _equations_value(in_box(text))


def _only_number(text: str) -> str | None:
    """The one number of a text; a bound, a denial and a part of a formula are none."""
    if BOUND.search(text) or _FORMULA.search(text) or ("\\boxed{" in text and "}" not in text):
        return None
    for pattern, replacement in _WITHIN:
        text = pattern.sub(replacement, text)
    fraction = _FRACTION.search(text)
    if fraction:
        value, start, end = _fraction(fraction), fraction.start(), fraction.end()
        others = bool(_NUMBER.search(text[:start]) or _NUMBER.search(text[end:]))
    else:
        found = list(_NUMBER.finditer(text))
        value, start, end = _decimal(found[0].group()) if found else None, found[0].start() if found else 0, 0
        others = len(found) > 1 and not (
            {_decimal(f.group()) for f in found} == {value}
            and _SAID_AGAIN.search(text, found[0].end(), found[-1].start())
            and not _TWO_OF_A_KIND.search(text)
        )
        scale = _SCALE.match(text, found[0].end()) if found else None
        if scale and value is not None:
            value *= _SCALES[(scale[1] or "k").lower()]
    if value is None or others:
        return None
    before = text[:start].rstrip("$€£¥({\\ *_`")
    return _plain(-value if before.endswith("-") else value)


def _equations_value(text: str) -> str | None:
    """The number behind the last "=" of one equation, or of a text without "="; ordinals do not count."""
    signs = list(_EQUALS.finditer(text))
    if not signs:
        return _only_number(_ORDINAL.sub("", text))
    first, last, result = signs[0], signs[-1], text[signs[-1].end() :]
    if _PARTED.search(text, first.end(), last.start()) or _UNKNOWN.search(text) or not _VALUE.match(result):
        return None
    so_far = text[first.end() : last.start()]
    if so_far.count("(") > so_far.count(")") or so_far.count("[") > so_far.count("]"):
        return None  # the last one stands within brackets, an aside to the first one's result
    value = None if BOUND.search(text, 0, first.start()) else _only_number(_ORDINAL.sub("", result))
    between = [text[one.end() : other.start()] for one, other in pairwise(signs) if other[0] == "="]
    values = {value, *(_only_number(part) for part in between if not _OPERATOR.search(part))} - {None}
    return value if len(values) == 1 else None


def _decimal(digits: str) -> Fraction | None:
    digits = digits.rstrip(",")
    if not digits or ("," in digits and not _GROUPED.fullmatch(digits)):
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
