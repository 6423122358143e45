"""ARC's answers: the one label of a line, among those that are offered. Linear in the length of the line."""

import re

from irpo_lib.tasks.answers import BOUND, LETTERS, LONGEST, in_box

#: A label with its mark: "(B)", "( B )", "[b]", "B)", "B.", "B:" or markdown's and LaTeX's "**B**", "\boxed{B}".
_MARKED = re.compile(
    r"(?<![A-Za-z0-9'])(?:(?:[(\[{*]+|[(\[{]\s+)([A-Ea-e])(?:[)\]}*.:]+|\s+[)\]}])"
    r"|(?<![^\s*])([A-Ea-e])(?:[)\]]|[.:](?=\s|$)))(?![A-Za-z0-9])"
)
#: A capital that stands alone.
_CAPITAL = re.compile(r"(?<![A-Za-z0-9'])([A-E])(?![A-Za-z0-9'_^])")
#: Where a label without a mark may stand: first, behind words that announce it, or in quotes.
_ANNOUNCED = re.compile(
    r"(?:^(?:\(?\d\d?[.):]\s*)?[(\[{*$\\\s]*|\b(?i:answer|option|choice|is|letter|text|textbf|mathrm|boxed|it['’]s|"
    r"that['’]s|so|thus|hence|therefore|think|choose|pick|indeed|a(?= [A-E]\W*$))\b[\s:,{(*\"“\\]*)"
    r"[A-E](?![A-Za-z0-9'_^])|[\"“][A-E](?:[\"”.]|$)"
)
#: A small letter as a second label: "B or c".
_SECOND = re.compile(r"\b(?:or|and)\s+\(?([a-e])\)?(?=[\s.,;]*$)")
#: A label that is named in order to be rejected ("B isn't right"), and one beside the answer ("B, not C").
_REJECTED = re.compile(r"\b[A-E]\)?\s+(?:is|was)(?:n['’]t|\s+(?:not|incorrect|wrong|false))\b")
_NOT_THIS = re.compile(r"(?:,|\band|\bbut) not \(?[A-E]\b\)?")
#: An option ("|") among other things: "soil, |, and", "soil or |".
_LISTED = re.compile(r"\b(?:and|or) \||\|,? (?:and|or)\b|, \|,")
#: "A stone": an article, not a label; "A and B", "A is right" are labels.
_ARTICLE = re.compile(r"(?<![A-Za-z0-9'])A\s+(?!(?:and|or|is|because|since|but|nor|would|as|seems|for)\b)[a-z]")


#: The C of 37 °C is no label.
_DEGREES = re.compile(r"(?:[°º˚]|\bdegrees?\b|\\circ\b\}?\$?)\s*(?:\\(?:text|mathrm)\{)?[CF]\b")


def letter(answer: str, choices: tuple[str, ...]) -> str | None:
    """An ARC answer as one offered label: "B", "(B)", "b)", "(B) converging of plates" → "B"; None otherwise.

    Two labels are none unless one of them stands in a box, and a letter within a word or of a temperature (37 °C) is
    no label. The chosen option's own text behind its label does not count: "(B) A stone" is B where the second option
    is "A stone". An option named without its label, alone ("a stone") or as the one option in a sentence, gives its
    label. Without `choices`, the labels A to E are offered.
    """
    text = _without_marks(answer)
    if len(text) > LONGEST:
        return None
    text, options = _DEGREES.sub("°", text), tuple(_DEGREES.sub("°", choice) for choice in choices)
    return _only_label(text, options) or _only_label(in_box(text), options)


def _without_marks(text: str) -> str:
    return text.strip("*_`$. \t\"'“”‘’")


def _only_label(answer: str, choices: tuple[str, ...]) -> str | None:
    """The one offered label of a text, or of the one option that it names without any label."""
    text = _without_marks(answer)
    if len(text) == 1:
        found = {text.upper()} & set(LETTERS)
    else:
        options = [_without_marks(choice).lower() for choice in choices]
        found = _of(text.lower(), options) or _labels(_without_option(text, choices)) or _named(text, options)
    offered = LETTERS[: len(choices)] if choices else LETTERS
    return found.pop() if len(found) == 1 and found <= set(offered) else None


def _of(text: str, options: list[str]) -> set[str]:
    """The labels of the options that a text is: two where they differ in case alone, as "Rr" and "RR" do."""
    return {label for label, option in zip(LETTERS, options, strict=False) if option == text}


def _named(text: str, options: list[str]) -> set[str]:
    """The labels of the options whose words stand in a text; none where it denies, lists or labels anything else."""
    rest, found = text.lower(), set()
    for option in sorted({o for o in options if len(o) > 1}, key=len, reverse=True):
        if (parts := re.split(rf"(?<!\w){re.escape(option)}(?!\w)", rest))[1:]:
            rest = "|".join(parts)
            found |= _of(option, options)
    other = {m[1] for m in _CAPITAL.finditer(text)} - found - {"A"}
    return set() if other or BOUND.search(text) or _LISTED.search(rest) else found


def _labels(text: str) -> set[str]:
    """All labels in a text, in capitals."""
    if _REJECTED.search(text):
        return set()
    text = _NOT_THIS.sub("", text)
    marked = {(a or b).upper() for a, b in _MARKED.findall(text)} | {m[1].upper() for m in _SECOND.finditer(text)}
    articles = {m.start() for m in _ARTICLE.finditer(text)}
    capitals = {m[1] for m in _CAPITAL.finditer(text) if m.start() not in articles}
    return marked | capitals if marked or _ANNOUNCED.search(text) else set()


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
