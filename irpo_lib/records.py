"""What travels between the stages: plain records, token ids end to end."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """x and its gold answer y; `choices` are the options of a multiple-choice question, in order."""

    id: str
    question: str
    answer: str
    gold_solution: str | None = None
    choices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Sample:
    """Token ids of one response; with EOS when `finish_reason` is "stop", cut at the limit when it is "length"."""

    token_ids: list[int]
    finish_reason: str


@dataclass(frozen=True)
class Completion:
    """One sampled (c, y) ~ M_t(x), the paper's (c_i^n, y_i^n, r_i^n).

    `prompt_ids` starts with BOS; `token_ids` ends with EOS when `finish_reason` is "stop" and has none when it is
    "length". `text` is for people and for answer extraction and is never tokenised again. `answer` and `reward`
    are None until the reward stage; afterwards `answer` is None where none could be extracted.
    """

    problem_id: str
    index: int
    prompt_ids: list[int]
    token_ids: list[int]
    text: str
    finish_reason: str
    answer: str | None = None
    reward: float | None = None


@dataclass(frozen=True)
class PreferencePair:
    """(c^w, y^w), (c^l, y^l) of one problem; `chosen_source` is "model" or "gold"."""

    problem_id: str
    k: int
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_source: str
