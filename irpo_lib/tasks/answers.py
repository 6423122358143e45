r"""From a response to its final answer, and to a form in which equal answers are equal strings.

The paper's format is required: the *last* "Final answer:" counts, its line or the next line that is not empty. There
is no falling back to the last number of the text. Every function here is linear in the length of its input.
"""

import re
import unicodedata
from fractions import Fraction
from itertools import pairwise

LETTERS = "ABCDE"
#: Longer lines are no answers; the limit keeps hostile text from costing time.
LONGEST = 1000
_MARKER = re.compile(r"final answer[*_ ]{0,4}:", re.IGNORECASE)


#: A model that runs on puts a new problem to itself: what it answers there is no answer to this one. Behind another
#: line's colon ("Let us look at it:") the question is this one, quoted.
_NEXT_QUESTION = re.compile(
    r"(?:(?<![:\s*_])|(?<=(?i:answer):)|(?<=(?i:answer)\*\*:))[\s*_]*\n[ \t*_#>]{0,8}Question[*_ ]{0,4}:"
)


def final_answer(response: str) -> str | None:
    """The text behind the last "Final answer:" (any case, markdown around it allowed), or None.

    What follows a new "Question:" is another problem's and is not looked at.

    >>> final_answer("2 + 2 = 4.\\nFinal answer: 4")
    '4'
    """
    own, end = _NEXT_QUESTION.split(response.lstrip(), maxsplit=1)[0], None
    for marker in _MARKER.finditer(own):
        end = marker.end()
    return None if end is None else _first_line(own[end:])


#: The text of a special token, where it was decoded with the rest.
_TOKENS = re.compile(r"(?:<(?:[|｜][\w▁]{1,40}[|｜]|/?s|eos|pad|end_of_turn)>[\s*_`]*)+$")
#: "The total is:" announces the next line; "(B), which is:" has its answer.
_ANNOUNCES = re.compile(r"(?<!which )(?<!, that )\b(?:is|are|was|were|be)\s*:\s*(?:\\\[|\$\$)?$")
_LIST = re.compile(r"(?:[-*+•–]|1[.)])\s")


def _first_line(text: str) -> str | None:
    """The first line that is not empty, or the one that it announces ("The total is:"); none where a list follows.

    Markdown around the line and special tokens at its end are left out.
    """
    announced = False
    for line in text.split("\n", 20)[:20]:
        stripped = line.strip().strip("*_` \t\r")
        if not stripped or stripped in ("$$", "\\[", "$"):
            continue
        if len(stripped) > LONGEST or (announced and _LIST.match(line.lstrip())):
            return None
        if announced or not _ANNOUNCES.search(stripped):
            return _TOKENS.sub("", stripped).strip("*_` \t\r") or None
        announced = True
    return None


_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+", re.ASCII)
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)
#: What is removed: LaTeX's spaces and commas within a number, its fractions' commands, exponents of units.
_WITHIN = ((re.compile(r"\{,\}"), ","), (re.compile(r"(?<=[\d,])(?:\\[,!;: ]|[\u00a0\u2009\u202f])(?=\d{3})"), ""),
           (re.compile(r"(?<=[A-Za-z}])\^\{?\d\}?"), ""))  # fmt: skip
#: A dash for a minus sign, where a value begins.
_DASH = re.compile(r"(?:^|(?<=[={]))(\s*)–(?=[$€£¥\\]*\d)")
_SUPERSCRIPTS = re.compile("[²³]")
#: "more than 5" and "more than half" are bounds, "2 more than x" is a formula, and "$5 more than Ann" a value.
_MORE_THAN = (
    r"\bno\s+(?:more|less|fewer)\s+than\b|\b(?:more|less|fewer)\s+than\b(?:.*\d|\W*(?:$|(?:[b-hj-z]|half|twice|double|"
    r"(?:an?\s+)?(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|dozen|hundred|thousand))\b))"
)
#: What makes of a number a bound or a denial.
_BOUND = re.compile(
    rf"[<>≤≥±]|\b(?:at\s+(?:least|most)|not|or\s+(?:more|less))\b|n['’]t\b|{_MORE_THAN}", re.IGNORECASE | re.DOTALL
)
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
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
#: Behind a box: what makes a bound of its content, or takes it back.
_TAKEN_BACK = re.compile(r"\bor\s+(?:more|less|fewer)\b|^\W*(?:is|was|are)(?:n['’]t|\s+(?:not|wrong|incorrect))\b")
_CLAUSE_ENDS = re.compile(r"[;:]|[,.](?!\d)|\b(?:so|but|then)\b")
#: "the 13th day", but not "a 3rd of 12" nor "May 3rd, 2020".
_ORDINAL = re.compile(
    r"(?<![\d.,/])\d{1,3}\^?\{?(?:\\text\{)?(?:st|nd|rd|th)\b(?!,?\s+(?:of\s+)?(?:[A-Z]\w+,?\s+|the\s+)?[\d$])"
)
_EQUALS = re.compile(r"(?<![<>=!:])=(?![=>])|≈|\\approx\b")
_OPERATOR = re.compile(r"[-+*/×÷^]|\\(?:times|cdot|div|frac)\b")
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

    What stands around the number (currency, units, percent, LaTeX, markdown) is ignored. 18 = 18.00, 18.5 ≠ 18. Of
    several numbers, the one in the line's only box counts, else the one behind the last "=" of one equation ("3 + 4 =
    7 eggs"), else the one beside ordinals ("7 on the 3rd day"). A bound, a denial, a range, an equation that is yet
    to be solved, two numbers without an equation, or none are no answer. A dozen is a unit and not 12, for the
    question may ask for dozens.
    """
    if len(answer) > LONGEST:
        return None
    text = unicodedata.normalize("NFKC", _SUPERSCRIPTS.sub("", answer)).replace("\u2212", "-")
    text = _DASH.sub(r"\1-", text)
    value = _only_number(text)
    return value if value is not None else _equations_value(_in_box(text))


def _only_number(text: str) -> str | None:
    """The one number of a text; a bound, a denial and a part of a formula are none."""
    if _BOUND.search(text) or _FORMULA.search(text) or ("\\boxed{" in text and "}" not in text):
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


def _in_box(text: str) -> str:
    """The content of the text's one box; the text itself where it has none, different ones, or denies it."""
    boxes = list(_BOX.finditer(text))
    if len({box[1].strip() for box in boxes}) != 1:
        return text
    before, behind = text[: boxes[0].start()], text[boxes[-1].end() :]
    denied = _BOUND.search(_CLAUSE_ENDS.split(before)[-1]) or _TAKEN_BACK.search(behind)
    return text if denied else boxes[0][1]


def _equations_value(text: str) -> str | None:
    """The number behind the last "=" of one equation, or of a text without "="; ordinals do not count."""
    signs = list(_EQUALS.finditer(text))
    if not signs:
        return _only_number(_ORDINAL.sub("", text))
    first, last, result = signs[0], signs[-1], text[signs[-1].end() :]
    if _PARTED.search(text, first.end(), last.start()) or _UNKNOWN.search(text) or not _VALUE.match(result):
        return None
    value = None if _BOUND.search(text, 0, first.start()) else _only_number(_ORDINAL.sub("", result))
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


#: A label with its mark: "(B)", "( B )", "[b]", "B)", "B.", "B:" or markdown's and LaTeX's "**B**", "\boxed{B}".
_MARKED = re.compile(
    r"(?<![A-Za-z0-9'])(?:(?:[(\[{*]+|[(\[{]\s+)([A-Ea-e])(?:[)\]}*.:]+|\s+[)\]}])"
    r"|(?<![^\s*])([A-Ea-e])(?:[)\]]|[.:](?=\s|$)))(?![A-Za-z0-9])"
)
#: A capital that stands alone.
_CAPITAL = re.compile(r"(?<![A-Za-z0-9'])([A-E])(?![A-Za-z0-9'_^])")
#: Where a label without a mark may stand: first, or behind words that announce it.
_ANNOUNCED = re.compile(
    r"[(\[{*$\\\s]*(?:(?i:the|my|final|correct|right|best|answer|option|choice|is|letter|text|textbf|mathrm|boxed|"
    r"it|it['’]s|that['’]s|so|thus|hence|therefore|i|think|choose|pick)\b[\s:,{(*\\]*)*[A-E](?![A-Za-z0-9'_^])"
)
#: A small letter as a second label: "B or c".
_SECOND = re.compile(r"\b(?:or|and)\s+\(?([a-e])\)?(?=[\s.,;]*$)")
#: A label that is named in order to be rejected.
_REJECTED = re.compile(r"\b[A-E]\)?\s+(?:is|was)(?:n['’]t|\s+(?:not|incorrect|wrong|false))\b")
#: "A stone": an article, not a label; "A and B", "A is right" are labels.
_ARTICLE = re.compile(r"(?<![A-Za-z0-9'])A\s+(?!(?:and|or|is|because|since|but|nor|would|as|seems|for)\b)[a-z]")


#: The C of 37 °C is no label.
_DEGREES = re.compile(r"(?:[°º˚]|\bdegrees?\b|\\circ\b\}?\$?)\s*(?:\\(?:text|mathrm)\{)?[CF]\b")


def letter(answer: str, choices: tuple[str, ...]) -> str | None:
    """An ARC answer as one offered label: "B", "(B)", "b)", "(B) converging of plates" → "B"; None otherwise.

    Two labels are none unless one of them stands in a box, and a letter within a word or of a temperature (37 °C) is
    no label. The chosen option's own text behind its label does not count: "(B) A stone" is B where the second option
    is "A stone", and "A stone" alone is a word with its article. Without `choices`, the labels A to E are offered.
    """
    text = _without_marks(answer)
    if len(text) > LONGEST:
        return None
    text, options = _DEGREES.sub("°", text), tuple(_DEGREES.sub("°", choice) for choice in choices)
    return _only_label(text, options) or _only_label(_in_box(text), options)


def _without_marks(text: str) -> str:
    return text.strip("*_`$. \t\"'“”‘’")


def _only_label(answer: str, choices: tuple[str, ...]) -> str | None:
    """The one offered label of a text; None for an option's bare text."""
    text = _without_marks(answer)
    if len(text) > 1 and text.lower() in (choice.strip("*_`$. \t").lower() for choice in choices):
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
