r"""MATH's answers: a string normalisation in which equal answers become equal strings.

The public Hendrycks rules and some more, each with an example in `RULES` (run as doctests). It is not algebra: what
needs algebra to be seen as equal (x+1 and 1+x) counts as different, about 2 % of right answers in real text. In
return it is fast, cannot hang, and never calls different things equal. Plain numbers are compared by exact value.
"""

import re
from fractions import Fraction
from functools import lru_cache
from math import gcd
from typing import Any

#: Longer answers are none; the limit keeps hostile text from costing time.
LONGEST = 1000
_UNICODE = str.maketrans({
    "−": "-", "–": "-", "π": r"\pi ", "∞": r"\infty ", "√": r"\sqrt", "×": r"\times ", "·": r"\cdot ", "°": r"^\circ ",
    "≤": r"\le ", "≥": r"\ge ", "≠": r"\neq ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "θ": r"\theta ",
    "²": "^2", "³": "^3", "½": r"\frac{1}{2}", "¼": r"\frac{1}{4}", "¾": r"\frac{3}{4}", "\u00a0": " ", "\u202f": " ",
    "±": r"\pm ", "∅": r"\emptyset ", "ℝ": r"\mathbb{R}", "（": "(", "）": ")", "，": ",", "\x00": " ",
})  # fmt: skip
_ATOM = r"(?:\{[^{}]*\}|\d|[a-zA-Z]|\\pi)"
_TEXT = r"\\(?:text|textrm|textbf|textit|textnormal|mbox|mathrm|mathbf|mathit|rm|hbox|operatorname)"
_NOT_UNITS = (
    r"(?!(?:hundred|thousand|million|billion|and|or|to|mod|pi|sqrt|times|base|in|if|for|is|with|plus|minus|where)\b)"
)
_TERM, _BRACKETED = r"[^/+\-,()=<>\[\]]+", r"(?<=\()[^/,()]+(?=\))"
_WORD_OF_A_UNIT = rf"{_NOT_UNITS}[a-zA-Z]{{2,}}\.?"
#: (what the rule does, before, after, pattern, replacement), in the order in which they are applied.
RULES: tuple[tuple[str, str, str, str, Any], ...] = (
    ("words in front", "The final answer is $5$", "$5$",
     r"(?i:^(?:(?:so|thus|hence|therefore),?\s+)?the\s+(?:final\s+|correct\s+)?answer\s+is\b:?\s*)", ""),
    ("a hope behind", "$5$. I hope it is correct.", "$5$",
     r"(?i:[.,;]?\s{0,9}\bI hope (?:it|this) is correct[.!]?$)", ""),
    ("mathematics' delimiters", r"\(5\)", "5", r"\\[()\[\]](?=.)|\\[\])]$", ""),
    ("dollar signs", r"\$5", "5", r"\\?\$", ""),
    ("a doubled backslash before a word", r"\\frac12", r"\frac12", r"\\\\(?=[a-zA-Z]{2})", r"\\"),
    ("sizes of brackets", r"\left(1,2\right)", "(1,2)", r"\\(?:left|right|[bB]igg?[lrm]?)(?![a-zA-Z])\s*\.?", ""),
    ("styles", r"\displaystyle 5", "5", r"\\(?:displaystyle|textstyle|limits|boldsymbol)(?![a-zA-Z])", ""),
    ("display and text fractions", r"\dfrac12", r"\frac12", r"\\[dtc]frac", r"\\frac"),
    ("spacing commands", r"1\,000", "1000", r"\\[,;:!]|\\q?quad(?![a-zA-Z])|(?<!\\)\\ |~|\\(?:thin|thick)space", ""),
    ("a comma in braces", "1{,}000", "1,000", r"\{,\}", ","),
    ("degrees", r"90^\circ", "90", r"\s*\^?\s*\{?\\(?:circ|degree)(?![a-zA-Z])\}?|\\text\{\s*degrees?\s*\}", ""),
    ("percent", r"50\%", "50", r"\\?%|\s*\bpercent\b", ""),
    ("a unit in text", r"5\text{ cm}^2", "5", rf"(?<=[\d}}a-z)])\s*{_TEXT}\s*\{{[^{{}}]*\}}(?:\^\{{?\d\}}?)?$", ""),
    ("a unit in words", "10 square units", "10",
     rf"(?<=[\d}}])\s+{_WORD_OF_A_UNIT}(?:\s+{_WORD_OF_A_UNIT}|\s*/\s*[a-zA-Z]+){{0,3}}(?:\s*\^\s*\{{?\d\}}?)?$", ""),
    ("a unit of one or two letters", "5 cm^2", "5", r"(?<=\d)\s+(?:[mkc]?m|k?g|s|h|L|ml|ft|in)(?:\^\{?\d\}?)?$", ""),
    ("and, or between answers", r"3\text{ and }5", "3,5",
     rf"\s*,?\s*(?:{_TEXT}\{{\s*(?:and|or)\s*\}}|\b(?:and|or)\b)\s*,?\s*", ","),
    ("words in text", r"\text{even}", "even", rf"{_TEXT}\s*\{{([^{{}}]*)\}}", r"\1"),
    ("a mixed number", "1 1/2", r"1\frac{1}{2}", r"^(-?\d+)\s+(\d+)/(\d+)$", r"\1\\frac{\2}{\3}"),
    ("membership", r"x \in [0,1]", "[0,1]", r"^[a-zA-Z]\s*\\in(?![a-zA-Z])", ""),
    ("names of comparisons", r"x \leq 2", r"x \le 2", r"\\(le|ge|ne)q(?:slant)?(?![a-zA-Z])", r"\\\1"),
    ("names of braces", r"\lbrace 1\rbrace", r"\{ 1\}", r"\\([lr])brace(?![a-zA-Z])",
     lambda m: r"\{" if m[1] == "l" else r"\}"),
    ("names of sets", r"\varnothing", r"\emptyset", r"\\varnothing(?![a-zA-Z])", r"\\emptyset"),
    ("blackboard letters", r"\Bbb R", r"\mathbb{R}", r"\\(?:Bbb|mathbb)\s*\{?([A-Z])\}?", r"\\mathbb{\1}"),
    ("infinity in letters", "infinity", r"\infty", r"(?<![a-zA-Z\\])infinity(?![a-zA-Z])", r"\\infty"),
    ("brackets of matrices", r"\begin{bmatrix}", r"\begin{pmatrix}", r"(\\(?:begin|end)\{)bmatrix\}", r"\1pmatrix}"),
    ("unequal", r"x \not= 2", r"x \ne 2", r"\\not\s*=", r"\\ne"),
    ("products", r"6 \times 10", r"6 \cdot 10", r"\\times(?![a-zA-Z])|(?<!\*)\*(?!\*)", r"\\cdot"),
    ("pi and roots in letters", "2 pi", r"2 \pi", r"(?<![a-zA-Z\\])(pi|sqrt)(?![a-zA-Z])", r"\\\1"),
    ("a root's brackets", r"\sqrt(3)", r"\sqrt{3}", r"\\sqrt\s*\(([^()]*)\)", r"\\sqrt{\1}"),
    ("a product's dot before a symbol", r"2 \cdot x", "2 x",
     r"(?<=\d)\s*\\cdot\s*(?=(?:[a-zA-Z]|\\(?!d?frac|cdot))(?!\w*\d*\\cdot))", " "),
    ("TeX's own fractions", r"{1 \over 2}", r"\frac{1 }{ 2}",
     r"\{([^{}]*)\\over(?![a-zA-Z])([^{}]*)\}", r"\\frac{\1}{\2}"),
    ("spaces", r"\frac{ 1 } {2}", r"\frac{1}{2}", r"\s+", ""),
    ("the last period", "5.", "5", r"(?<!\\)[.,;:]+$", ""),
    ("a root without braces", r"\sqrt3", r"\sqrt{3}", r"\\sqrt(\d|[a-zA-Z])", r"\\sqrt{\1}"),
    ("a higher root without braces", r"\sqrt[3]4", r"\sqrt[3]{4}", r"(\\sqrt\[\d+\])(\d|[a-zA-Z])", r"\1{\2}"),
    ("a repeating digit without braces", r"0.\overline3", r"0.\overline{3}", r"\\overline(\d)", r"\\overline{\1}"),
    ("a numerator without braces", r"\frac1{2}", r"\frac{1}{2}", r"\\frac(?!\{)(\d|[a-zA-Z]|\\pi)", r"\\frac{\1}"),
    ("a denominator without braces", r"\frac{\sqrt{3}}2", r"\frac{\sqrt{3}}{2}",
     r"(\\frac\{(?:[^{}]|\{[^{}]*\})*\})(?!\{)(\d|[a-zA-Z]|\\pi)", r"\1{\2}"),
    ("an exponent's or index's braces", "x^{2}", "x^2", r"([\^_])\{(\w|(?<=_\{)\d+)\}", r"\1\2"),
    ("zero before a point", ".5", "0.5", r"(?<!\d)\.(?=\d|\\overline)", "0."),
    ("a plus sign in front", "(-1,+5)", "(-1,5)", r"(^|[(\[,{])\+", r"\1"),
    ("a minus sign in a numerator", r"\frac{-x}{2}", r"-\frac{x}{2}", r"^\\frac\{-([^{}+\-]*)\}", r"-\\frac{\1}"),
    ("a fraction in front of a root or letter", r"\frac{1}{2}\sqrt{3}", r"\frac{\sqrt{3}}{2}",
     r"^(-?)\\frac\{(?:1|(\d+))\}\{(\d+)\}(\\sqrt\{[^{}]*\}|\\pi|[a-zA-Z])$", r"\1\\frac{\2\4}{\3}"),
    ("thousands", "1,234,567", "1234567", r"^(-?\d{1,3}(?:,\d{3})+)(?=\.\d+$|$)", ""),
    ("a quotient of two terms", r"3\pi/4", r"\frac{3\pi}{4}",
     rf"^(-?)\(?({_TERM}|{_BRACKETED})\)?/\(?({_TERM}|{_BRACKETED})\)?$", r"\1\\frac{\2}{\3}"),
    ("braces around it all", "{5}", "5", r"^\{([^{},]*)\}$", r"\1"),
    ("brackets around one thing", "(A)", "A", r"^\(([^(),]*)\)$", r"\1"),
)  # fmt: skip
_COMPILED = [(re.compile(pattern), replacement) for _, _, _, pattern, replacement in RULES]
_THOUSANDS = next(i for i, rule in enumerate(RULES) if rule[0] == "thousands")
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
    text = answer.translate(_UNICODE).strip()
    for number, (pattern, replacement) in enumerate(_COMPILED):
        if number == _THOUSANDS:
            text = pattern.sub(lambda m: m[0].replace(",", ""), text)
        else:
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
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts


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
    starts = list(re.finditer(r"\\(?:boxed|fbox)\s*", text))
    if not starts:
        return None
    begin = starts[-1].end()
    if text[begin : begin + 1] != "{":
        return text[begin:].partition("$")[0].split(" ")[0] or None
    depth = 0
    for i in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return text[begin + 1 : i]
    return None
