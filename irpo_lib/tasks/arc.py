"""ARC (Clark et al., 2018): multiple choice without solutions; trained on easy + challenge, tested on challenge."""

from typing import Any

from irpo_lib.records import Problem
from irpo_lib.tasks.answers import LETTERS
from irpo_lib.tasks.jsonl import Row
from irpo_lib.tasks.sources import read_source
from irpo_lib.terminal.errors import UserError


def problem(row: Row, name: str = "") -> Problem:
    """One item, by its own id; labels 1, 2, … become letters, in the options and in the answer.

    Raises:
        UserError: options are missing, or the answer is none of their labels.
    """
    where, fields = row
    question: Any = fields["question"]
    choices: Any = fields.get("choices")
    if isinstance(question, dict):  # the original form; the hub's has the choices beside the question
        question, choices = question.get("stem"), question.get("choices")
    labels, texts = _options(choices)
    if not question or not 2 <= len(texts) <= len(LETTERS):
        raise UserError(f"{where}: a question and two to five choices with 'text' and 'label' are expected")
    if fields["answerKey"] not in labels:
        raise UserError(f"{where}: 'answerKey' is {fields['answerKey']!r}, none of the labels {', '.join(labels)}")
    return Problem(str(fields["id"]), str(question), LETTERS[labels.index(fields["answerKey"])], None, tuple(texts))


def _options(choices: Any) -> tuple[list[str], list[str]]:
    """(labels, texts) of the original form, a list of objects, or of the hub's, an object of lists."""
    if isinstance(choices, dict):
        return list(choices.get("label", ())), list(choices.get("text", ()))
    if not isinstance(choices, list) or not all(isinstance(c, dict) and {"label", "text"} <= set(c) for c in choices):
        return [], []
    return [c["label"] for c in choices], [c["text"] for c in choices]


SOURCE = read_source("arc", problem)
read, prompt = SOURCE.read, SOURCE.prompt
