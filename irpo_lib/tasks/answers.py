r"""From a response to its final answer, and what the forms of answers (`numbers`, `letters`, `math_answers`) share.

The paper's format is required: the *last* "Final answer:" with something behind it counts, its line or the next line
that is not empty, or the sentence "The final answer is …". There is no falling back to the last number of the text.
Every function here is linear in the length of its input.
"""

import re

LETTERS = "ABCDE"
#: Longer lines are no answers; the limit keeps hostile text from costing time.
LONGEST = 1000
#: One live response in twenty of half a billion parameters says it in words only; "… is correct" is a remark. One that
#: nothing stands behind was begun and not given, and "(insert letter here)" is the prompt's. "A final answer of 4",
#: "final answer (B)", "the final answer, which is B." and a heading above "The answer is B" need no colon.
_MARKER = re.compile(
    r"final answer(?: (?:to|for|in) [^\n.:?]{1,40}?)?[*_ ]{0,4}(?:[:=]|(?<=[*_ ])(?P<said>is|(?:will|should|must) be)\b"
    r"(?! (?:not|(?:in)?correct|right|wrong)\b)[*_ ]{0,4}:?"
    r"| ?of (?=[$€£]?\d)|(?:,(?: which is)?| ?of)?[*_: ]{0,4}(?=[(\"“]{0,2}(?-i:[A-E])(?:$|[)\"”.,\n](?! (?:is|was)"
    r"(?:n['’]t| (?:not|in|wrong|false)))))|(?=\n+(?:The )?(?:correct )?answer is:? [(\"]?[A-E]\b))"
    r"(?=[\s*_`]*[^\s*_`])(?! \(insert )",
    re.IGNORECASE,
)
#: "So D is the final answer", where the words have none behind them.
_BEFORE = re.compile(
    r"(?<!step )(?<![\w.,$(])(\(?\"?(?-i:[A-E])\"?\)?|\$?\d[\d,]*(?:\.\d+)?)"
    r"(?:[.,]?\s+(?:this|that|which) is| is| as) (?:the|my|our|your) final answer\b(?! (?:is|was) )",
    re.IGNORECASE,
)
_SENTENCE_ENDS = re.compile(r"\.\s")

#: A model that runs on puts a new problem to itself: what it answers there is no answer to this one. Behind another
#: line's colon ("Let us look at it:") or a step's heading ("Step 1: Read the question.") it is this one, quoted.
_NEXT_QUESTION = re.compile(
    r"(?:(?<![:\s*_])|(?<=(?i:answer):)|(?<=(?i:answer)\*\*:))[\s*_]*\n[ \t*_#>]{0,8}Question[*_ ]{0,4}:"
)
_QUOTED = re.compile(r"(\n[ \t*_#>]{0,8}Step \d[^\n]{0,99}(?i:question)[^\n]{0,99}\n[ \t*_#>]{0,8})Question")


def final_answer(response: str) -> str | None:
    """The text behind the last "Final answer:" (any case, markdown around it allowed), or None.

    "The final answer is" counts alike, with what its sentence says, and a letter or number that "is the final answer"
    where nothing else is. What follows a new "Question:" is another problem's and is not looked at.

    >>> final_answer("2 + 2 = 4.\\nFinal answer: 4")
    '4'
    >>> final_answer("So the final answer is 4. It is even.")
    '4'
    """
    # Two of the searches are slow: `in` spares most of them.
    text = _QUOTED.sub(r"\1question", f"\n{response}").lstrip()
    own = _NEXT_QUESTION.split(text, maxsplit=1)[0] if "Question" in text else text
    markers = list(_MARKER.finditer(own))
    if not markers:
        before = _BEFORE.findall(own) if " final answer" in own.lower() else []
        return before[-1] if before else None
    line = _first_line(own[markers[-1].end() :])
    return _SENTENCE_ENDS.split(line)[0] if line and markers[-1]["said"] else line


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


#: "more than 5" and "more than half" are bounds, "2 more than x" is a formula, and "$5 more than Ann" a value.
_MORE_THAN = (
    r"\bno\s+(?:more|less|fewer)\s+than\b|\b(?:more|less|fewer)\s+than\b(?:.*\d|\W*(?:$|(?:[b-hj-z]|half|twice|double|"
    r"(?:an?\s+)?(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|dozen|hundred|thousand))\b))"
)
#: What makes of a number a bound or a denial.
BOUND = re.compile(
    rf"[<>≤≥±]|\b(?:at\s+(?:least|most)|not|no\s+(?:final\s+)?answer|or\s+(?:more|less))\b|n['’]t\b|{_MORE_THAN}",
    re.IGNORECASE | re.DOTALL,
)
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
#: Behind a box: what makes a bound of its content, or takes it back.
_TAKEN_BACK = re.compile(r"\bor\s+(?:more|less|fewer)\b|^\W*(?:is|was|are)(?:n['’]t|\s+(?:not|wrong|incorrect))\b")
_CLAUSE_ENDS = re.compile(r"[;:]|[,.](?!\d)|\b(?:so|but|then)\b")


def in_box(text: str) -> str:
    """The content of the text's one box; the text itself where it has none, different ones, or denies it."""
    boxes = list(_BOX.finditer(text))
    if len({box[1].strip() for box in boxes}) != 1:
        return text
    before, behind = text[: boxes[0].start()], text[boxes[-1].end() :]
    denied = BOUND.search(_CLAUSE_ENDS.split(before)[-1]) or _TAKEN_BACK.search(behind)
    return text if denied else boxes[0][1]
