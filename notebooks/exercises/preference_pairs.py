"""Exercises of notebook 03."""

from itertools import product
from math import lcm

from irpo_exercises.checker import Exercise


def walk(winners: list, losers: list, k: int) -> list[tuple]:
    """k pairs (winner, loser): both lists are walked in step, and each starts again at its own end."""
    if not winners or not losers:
        return []
    return [(winners[j % len(winners)], losers[j % len(losers)]) for j in range(k)]


def _zip(winners, losers, k):
    return list(zip(winners, losers, strict=False))[:k]


def _product(winners, losers, k):
    return list(product(winners, losers))[:k]


def _common_end(winners, losers, k):
    shorter = min(len(winners), len(losers))
    return [(winners[j % shorter], losers[j % shorter]) for j in range(k)] if shorter else []


def different_pairs(n_winners: int, n_losers: int, k: int) -> int:
    """How many different pairs the walk meets in k steps."""
    return min(k, lcm(n_winners, n_losers))


def gold_wins(own: int, k: int) -> int:
    """In how many of k pairs the gold solution wins, if it stands behind `own` winners of the model."""
    return k // (own + 1)


def _takes_the_rest(own, k):
    return max(0, k - own)


EXERCISES = [
    Exercise(
        walk,
        "Footnote 2 of the paper in code: cycle through winners and losers. A problem without one of the two gives "
        "nothing.",
        1,
        5,
        "`j % len(winners)` starts again at 0 when `j` reaches the end.",
        [("abc", "xy", 7), ("a", "xyz", 4), ("ab", "", 3), ("abc", "xyz", 2)],
        {
            "the walk ends at the end of the shorter list instead of going on to k": _zip,
            "these are all combinations, so the first winner is used up before the second has its turn": _product,
            "both lists start again when the shorter one ends": _common_end,
        },
    ),
    Exercise(
        different_pairs,
        "The walk over 3 winners and 2 losers meets 6 different pairs, over 3 and 3 only 3. Write the rule, for $k$ "
        "steps.",
        2,
        5,
        "The walk is where it began after as many steps as are a multiple of both sizes. `math.lcm`.",
        [(3, 2, 7), (3, 3, 7), (4, 6, 10), (4, 6, 30), (5, 7, 10)],
        {
            "where the sizes have a common divisor, not all combinations meet": lambda w, x, k: min(k, w * x),
            "with few steps the walk does not come round": lambda w, x, k: lcm(w, x),
        },
        needs="from math import lcm",
    ),
    Exercise(
        gold_wins,
        "The gold solution stands last in $G^w$. With `own` winners of the model before it, how many of the $k$ pairs "
        "does it win? Compare with the bars above: none from `own` $= k$ on.",
        2,
        5,
        "It has its turn at steps `own`, `own + (own + 1)`, … (counting from 0): once in each full round.",
        [(0, 4), (1, 4), (3, 4), (4, 4), (1, 5), (2, 10)],
        {
            "gold does not take all that the model's own winners leave: the walk goes round": _takes_the_rest,
            "this is right if gold stands first": lambda own, k: -(-k // (own + 1)),
            "it can have more than one turn": lambda own, k: int(own < k),
        },
    ),
]
