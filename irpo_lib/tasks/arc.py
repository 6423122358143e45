"""ARC (Clark et al., 2018): multiple choice without solutions; trained on easy + challenge, tested on challenge."""

from typing import Any

from irpo_lib.records import Problem
from irpo_lib.tasks.answers import LETTERS
from irpo_lib.tasks.sources import Row, Source, read_rows, tell_count
from irpo_lib.terminal.errors import UserError

_BOTH, _CHALLENGE = ["ARC-Easy", "ARC-Challenge"], ["ARC-Challenge"]


def _layouts(configs: list[str], split: str, hub_split: str) -> list[list[str]]:
    """The original archive's, plain files', and the hub's."""
    short = [c.lower().replace("-", "_") for c in configs]
    return [
        [f"{c}/{c}-{split.capitalize()}.jsonl" for c in configs],
        [f"{c}.{split}.jsonl" for c in short],
        [f"{c}/{hub_split}-*.parquet" for c in configs],
    ]


SOURCE = Source(
    hub="allenai/ai2_arc",
    revision="210d026faf9955653af8916fad021475a3f00453",
    configs={"train": _BOTH, "dev": _BOTH, "test": _CHALLENGE},
    hub_splits={"train": "train", "dev": "validation", "test": "test"},
    files={"train": _layouts(_BOTH, "train", "train"), "dev": _layouts(_BOTH, "dev", "validation"),
           "test": _layouts(_CHALLENGE, "test", "test")},
    counts={"train": 3370, "dev": 869, "test": 1172},
)  # fmt: skip


def read(split: str, path: str | None) -> list[Problem]:
    rows = read_rows("arc", SOURCE, split, path, ("id", "question", "answerKey"))
    problems = [problem(row) for row in rows]
    tell_count("arc", SOURCE.counts[split], split, len(problems))
    return problems


def problem(row: Row) -> Problem:
    """One item; labels 1, 2, … become letters, in the options and in the answer.

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


def prompt(problem: Problem) -> str:
    """Appendix B.1."""
    options = "\n".join(f"({letter}) {x}" for letter, x in zip(LETTERS, problem.choices or (), strict=False))
    return (
        "Your task is to answer the question below. Give step by step reasoning before you answer, and when you’re "
        'ready to answer, conclude using the format "Final answer: (insert letter here)"\n'
        f"Question: {problem.question}\n{options}\nSolution:"
    )
