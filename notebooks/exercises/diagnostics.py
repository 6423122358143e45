"""Exercises of notebook 05."""

from math import exp, log

from irpo_exercises.checker import Exercise


def response_logp(logits: list[list[float]], prompt_ids: list[int], response_ids: list[int]) -> float:
    """log M(response | prompt) in nats: the sum of its tokens' log-probs.

    The model has read prompt + response; `logits[i]` is what it says after token i about the next one.
    """
    ids, total = prompt_ids + response_ids, 0.0
    for i in range(len(prompt_ids), len(ids)):
        row = logits[i - 1]
        total += row[ids[i]] - log(sum(exp(x) for x in row))
    return total


def _log_softmax(row, token):
    return row[token] - log(sum(exp(x) for x in row))


def _unshifted(logits, prompt_ids, response_ids):
    return sum(_log_softmax(logits[len(prompt_ids) + i], token) for i, token in enumerate(response_ids))


def _with_prompt(logits, prompt_ids, response_ids):
    ids = prompt_ids + response_ids
    return sum(_log_softmax(logits[i - 1], ids[i]) for i in range(1, len(ids)))


def _mean(logits, prompt_ids, response_ids):
    return response_logp(logits, prompt_ids, response_ids) / len(response_ids)


def _first_token_missing(logits, prompt_ids, response_ids):
    ids = prompt_ids + response_ids
    return sum(_log_softmax(logits[i - 1], ids[i]) for i in range(len(prompt_ids) + 1, len(ids)))


def _no_softmax(logits, prompt_ids, response_ids):
    return sum(logits[len(prompt_ids) + i - 1][token] for i, token in enumerate(response_ids))


def sinking(before: list[tuple[float, float]], after: list[tuple[float, float]]) -> float:
    """The share of pairs whose margin grew although the *chosen* response became less likely.

    Each list has (chosen, rejected) log-probs of the same pairs, before and after training.
    """
    found = [w1 < w0 and (w1 - l1) > (w0 - l0) for (w0, l0), (w1, l1) in zip(before, after, strict=True)]
    return sum(found) / len(found)


def _margins_only(before, after):
    return sum((w1 - l1) > (w0 - l0) for (w0, l0), (w1, l1) in zip(before, after, strict=True)) / len(before)


def _chosen_only(before, after):
    return sum(w1 < w0 for (w0, _), (w1, _) in zip(before, after, strict=True)) / len(before)


def _counted(before, after):
    return sinking(before, after) * len(before)


def change_by_kind(before: list[float], after: list[float], kinds: list[str]) -> dict[str, float]:
    """How many nats a response gained on each kind of token: kind → the sum of its tokens' changes."""
    changes: dict[str, float] = {}
    for old, new, kind in zip(before, after, kinds, strict=True):
        changes[kind] = changes.get(kind, 0.0) + new - old
    return changes


def _means(before, after, kinds):
    return {kind: total / kinds.count(kind) for kind, total in change_by_kind(before, after, kinds).items()}


def _last_of_kind(before, after, kinds):
    return {kind: new - old for old, new, kind in zip(before, after, kinds, strict=True)}


def _after_only(before, after, kinds):
    return change_by_kind([0.0] * len(after), after, kinds)


def _backwards(before, after, kinds):
    return change_by_kind(after, before, kinds)


_LOGITS = [[0.0, 1.0, 2.0], [2.0, 0.5, -1.0], [0.3, 0.2, 0.1], [1.0, -1.0, 0.0], [0.0, 3.0, 1.0]]

EXERCISES = [
    Exercise(
        response_logp,
        "The number that all figures of this notebook are made of. It is where most implementations go wrong: the "
        "logits behind token $i$ are about token $i + 1$.",
        3,
        15,
        "The first response token stands at position `len(prompt_ids)`; the logits about it are one place before. "
        "$\\log \\text{softmax}$ of a logit is the logit minus $\\log \\sum e^{\\text{logits}}$.",
        [(_LOGITS, [0, 1], [2, 0, 1]), (_LOGITS[:3], [1], [0, 2]), (_LOGITS, [2, 2, 1], [0, 1])],
        {
            "each token is looked up in the logits *behind* it, which are about the next one": _unshifted,
            "the prompt's tokens are in the sum, too": _with_prompt,
            "this is the mean over tokens; a log-prob of a sequence is a sum": _mean,
            "the first token of the response is missing": _first_token_missing,
            "logits are not log-probs: the log of the sum of their exponentials is missing": _no_softmax,
        },
        needs="from math import exp, log",
    ),
    Exercise(
        sinking,
        "DPO is content if the margin grows. Count how often it grows while the winner itself *loses*: that is what "
        "the NLL term is there against.",
        1,
        5,
        "Two conditions on each pair, joined by `and`; then a share, not a count.",
        [
            ([(-10, -10), (-10, -12), (-5, -5), (-8, -9)], [(-12, -20), (-9, -15), (-7, -6), (-9, -12)]),
            ([(-10, -10), (-3, -4)], [(-11, -10.5), (-2, -1)]),
            ([(-1, -2), (-4, -4), (-6, -5)], [(-2, -9), (-5, -9), (-1, -5)]),
        ],
        {
            "all pairs whose margin grew are counted": _margins_only,
            "all pairs whose chosen response lost are counted, whatever their margin did": _chosen_only,
            "this is the number of pairs, not their share": _counted,
        },
    ),
    Exercise(
        change_by_kind,
        "Take the change of a response's log-probability apart, as in the last figure. The parts must add up to the "
        "whole.",
        1,
        10,
        "A dictionary that starts empty; `.get(kind, 0.0)` is what was there so far.",
        [
            ([-1.0, -2.0, -0.5, -0.1], [-0.5, -3.0, -0.7, -0.1], ["first", "digit", "word", "digit"]),
            ([-1.0, -1.0, -1.0], [-2.0, -1.5, -0.5], ["word", "word", "digit"]),
        ],
        {
            "these are means; they do not add up to the change of the whole": _means,
            "each kind has only its last token": _last_of_kind,
            "this is where the response is after training, not how far it went": _after_only,
            "the sign: a gain is after − before": _backwards,
        },
    ),
]
