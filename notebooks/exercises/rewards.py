"""Exercises of notebook 02."""

import re
from collections import Counter

from irpo_exercises.checker import Exercise


def final_number(response: str) -> float | None:
    """The number behind the last "Final answer:" of a response; None where there is no such line or number.

    Thousands are separated by commas: "Final answer: $1,250." is 1250.0.
    """
    _, marker, answer = response.rpartition("Final answer:")
    found = re.search(r"-?\d[\d,]*(\.\d+)?", answer)
    return float(found[0].replace(",", "")) if marker and found else None


def _any_number(response):
    found = re.findall(r"-?\d[\d,]*(?:\.\d+)?", response)
    return float(found[-1].replace(",", "")) if found else None


def _first_marker(response):
    _, marker, answer = response.partition("Final answer:")
    found = re.search(r"-?\d[\d,]*(\.\d+)?", answer)
    return float(found[0].replace(",", "")) if marker and found else None


def _comma_ends(response):
    _, marker, answer = response.rpartition("Final answer:")
    found = re.search(r"-?\d+(\.\d+)?", answer)
    return float(found[0]) if marker and found else None


def _no_sign(response):
    value = final_number(response)
    return value and abs(value)


def vote(answers: list[str | None]) -> str | None:
    """The answer that most samples gave; of equally many, the first to come. None if there is no answer."""
    counts = Counter(a for a in answers if a is not None)
    return max(counts, key=counts.__getitem__) if counts else None


def _none_votes(answers):
    return Counter(answers).most_common(1)[0][0]


def _last_of_ties(answers):
    given = [a for a in answers if a is not None]
    return max(reversed(given), key=given.count) if given else None


def _sorted_ties(answers):
    given = [a for a in answers if a is not None]
    return max(sorted(set(given)), key=given.count) if given else None


def teaches(p: float, n: int) -> float:
    """The chance that n samples, each right with probability p, are neither all right nor all wrong."""
    return 1 - p**n - (1 - p) ** n


EXERCISES = [
    Exercise(
        final_number,
        "Write the extraction of a number yourself. A response may do anything: repeat the marker, write thousands "
        "with commas, have no answer at all. It is never evaluated, only read.",
        2,
        10,
        "`str.rpartition` gives what is behind the last marker. A regular expression for the number: an optional "
        "minus, a digit, then digits and commas, then perhaps a point and digits.",
        [
            ("15 + 7 = 22.\nFinal answer: 22",),
            ("Final answer: $1,250.",),
            ("3 + 4 = 7.",),
            ("Final answer: 3\nNo: 3 + 1 = 4.\nFinal answer: 4",),
            ("Final answer: -2.5 degrees",),
            ("Final answer: none of 5? No.\nFinal answer: unknown",),
        ],
        {
            "the last number of the response is taken, with or without a final answer": _any_number,
            "the first final answer counts, not the last": _first_marker,
            "a comma ends the number": _comma_ends,
            "the minus sign is lost": _no_sign,
        },
        needs="import re",
    ),
    Exercise(
        vote,
        "Majority voting over the answers of a problem's samples. `None` stands for a sample without an answer.",
        1,
        5,
        "`collections.Counter` keeps the order in which answers first came, and `max` takes the first of equals.",
        [(["4", "5", "5"],), ([None, None, "7"],), (["9", "3", "9", "3"],), (["3", "9", "3", "9"],), ([None, None],)],
        {
            "samples without an answer vote, too": _none_votes,
            "of equally frequent answers the last is taken": _last_of_ties,
            "of equally frequent answers the smallest is taken, which favours small numbers": _sorted_ties,
        },
        needs="from collections import Counter",
    ),
    Exercise(
        teaches,
        "A problem gives pairs only if it has a right *and* a wrong sample. If each of $n$ samples is right with "
        "probability $p$, how likely is that? (Then try: which $p$ is best, and what does $n = 30$ change at "
        "$p = 0.95$?)",
        1,
        5,
        "The two bad cases cannot happen together: all right, or all wrong.",
        [(0.5, 2), (0.9, 8), (0.05, 30), (0.0, 8), (1.0, 8)],
        {
            "only the case that all are wrong is subtracted": lambda p, n: 1 - (1 - p) ** n,
            "only the case that all are right is subtracted": lambda p, n: 1 - p**n,
            "this is the chance of exactly one right and one wrong of two": lambda p, n: 2 * p * (1 - p),
        },
    ),
]
