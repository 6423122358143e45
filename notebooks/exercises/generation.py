"""Exercises of notebook 01."""

from irpo_exercises.checker import Exercise


def top_p_set(probabilities: list[float], p: float) -> list[int]:
    """Indices, best first, of the fewest most likely tokens whose probabilities sum to at least p."""
    order = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    kept, total = [], 0.0
    for i in order:
        kept.append(i)
        total += probabilities[i]
        if total >= p:
            break
    return kept


def _stops_before(probabilities, p):
    kept, total = [], 0.0
    for i in sorted(range(len(probabilities)), key=lambda i: -probabilities[i]):
        if total + probabilities[i] > p:
            break
        kept.append(i)
        total += probabilities[i]
    return kept


def _not_sorted(probabilities, p):
    kept, total = [], 0.0
    for i, value in enumerate(probabilities):
        kept.append(i)
        total += value
        if total >= p:
            break
    return kept


def _threshold(probabilities, p):
    order = sorted(range(len(probabilities)), key=lambda i: -probabilities[i])
    return [i for i in order if probabilities[i] >= p]


def finish(token_ids: list[int], end_id: int, limit: int) -> tuple[list[int], str]:
    """What is kept of a drawn row of tokens: the response, with its end token, and "stop" or "length".

    A response ends with the first end token. Without one among its first `limit` tokens it is cut there.
    """
    for i, token in enumerate(token_ids[:limit]):
        if token == end_id:
            return token_ids[: i + 1], "stop"
    return token_ids[:limit], "length"


def _end_dropped(token_ids, end_id, limit):
    kept, why = finish(token_ids, end_id, limit)
    return [t for t in kept if t != end_id], why


def _end_after_limit(token_ids, end_id, limit):
    if end_id in token_ids:
        return token_ids[: token_ids.index(end_id) + 1], "stop"
    return token_ids[:limit], "length"


def _last_end(token_ids, end_id, limit):
    found = [i for i, token in enumerate(token_ids[:limit]) if token == end_id]
    return (token_ids[: found[-1] + 1], "stop") if found else (token_ids[:limit], "length")


def tokens_read(examples: int, question: int, response: int, n: int, problems: int) -> int:
    """Tokens that a model must read to draw n responses to each problem, if nothing is read twice.

    Every prompt is the same `examples` tokens and then `question` tokens of its own; a response has
    `response` tokens.
    """
    return examples + problems * (question + n * response)


EXERCISES = [
    Exercise(
        top_p_set,
        "Top-p keeps the smallest set of best tokens whose probabilities sum to **at least** $p$. Which are they? "
        "Check yourself with the table above: $p = 0.9$ keeps A, B and C.",
        1,
        5,
        "Sort the indices by probability, largest first. Walk along them and add up. The token with which the sum "
        "reaches $p$ still belongs to the set.",
        [([0.644, 0.237, 0.087, 0.032], 0.9), ([0.1, 0.2, 0.7], 0.75), ([0.5, 0.25, 0.25], 0.5), ([0.25, 0.75], 1.0)],
        {
            "the token with which the sum reaches p is left out": _stops_before,
            "the tokens are taken in the vocabulary's order, not the most likely first": _not_sorted,
            "each probability is compared with p, not their sum": _threshold,
        },
    ),
    Exercise(
        finish,
        "A row of a batch goes on being drawn until all rows have ended, so there may be rubbish behind its end. What "
        "is kept of it, and why did it end? The end token must stay: the model is to learn to stop.",
        1,
        5,
        "Look at the first `limit` tokens only. A slice up to and with position `i` is `token_ids[: i + 1]`.",
        [([5, 6, 2, 7, 2], 2, 5), ([5, 6, 7, 2], 2, 3), ([5, 6, 2], 2, 3), ([5, 6, 7], 2, 3)],
        {
            "the end token itself is thrown away, so the model would never learn to stop": _end_dropped,
            "an end token behind the limit counts": _end_after_limit,
            "the last end token is taken, and the rubbish before it with it": _last_end,
        },
    ),
    Exercise(
        tokens_read,
        "math-mini's prompts all begin with the same worked examples. How many tokens have to be read for `problems` "
        "problems, if what prompts share is read once for all of them, and a question once for its $n$ responses?",
        2,
        5,
        "Three sorts of tokens: the examples, read once; a question, once a problem; a response, once a sample.",
        [(160, 30, 40, 8, 1), (160, 30, 40, 30, 100), (0, 50, 40, 8, 3)],
        {
            "the examples are read again for each problem": lambda e, q, r, n, m: m * (e + q + n * r),
            "each question is read again for each of its samples": lambda e, q, r, n, m: e + m * n * (q + r),
            "nothing is shared": lambda e, q, r, n, m: m * n * (e + q + r),
        },
    ),
]
