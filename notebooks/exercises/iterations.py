"""Exercises of notebook 06."""

from math import sqrt

from irpo_exercises.checker import Exercise


def iterate(seed_model, iterations, sample, pair, train):
    """The models M_0 … M_T of Iterative RPO, the seed model first.

    `sample(model)` gives its graded samples, `pair(samples)` their pairs, `train(model, pairs)` the next
    model.
    """
    models = [seed_model]
    for _ in range(iterations):
        pairs = pair(sample(models[-1]))
        models.append(train(models[-1], pairs))
    return models


def _from_seed(seed_model, iterations, sample, pair, train):
    models = [seed_model]
    for _ in range(iterations):
        models.append(train(seed_model, pair(sample(models[-1]))))
    return models


def _seed_samples(seed_model, iterations, sample, pair, train):
    models, pairs = [seed_model], pair(sample(seed_model))
    for _ in range(iterations):
        models.append(train(models[-1], pairs))
    return models


def _accumulated(seed_model, iterations, sample, pair, train):
    models, pairs = [seed_model], ""
    for _ in range(iterations):
        pairs += pair(sample(models[-1]))
        models.append(train(models[-1], pairs))
    return models


def _last_only(seed_model, iterations, sample, pair, train):
    return iterate(seed_model, iterations, sample, pair, train)[-1]


# Toy boxes: models and samples are texts that say what they were made from.
def sample(model: str) -> str:
    return f"samples({model})"


def pair(samples: str) -> str:
    return f"pairs({samples})"


def train(model: str, pairs: str) -> str:
    return f"train({model},{pairs})"


def gain(before: list[bool], after: list[bool]) -> tuple[int, int, float]:
    """Of the same problems under two models: how many are repaired and broken, the gain in points (0 to 100)."""
    repaired = sum(b and not a for a, b in zip(before, after, strict=True))
    broken = sum(a and not b for a, b in zip(before, after, strict=True))
    return repaired, broken, 100 * (repaired - broken) / len(before)


def _gain_in_shares(before, after):
    repaired, broken, points = gain(before, after)
    return repaired, broken, points / 100


def _gain_of_changed(before, after):
    repaired, broken, _ = gain(before, after)
    return repaired, broken, 100 * (repaired - broken) / max(1, repaired + broken)


def _exchanged(before, after):
    return gain(after, before)


def _relative(before, after):
    repaired, broken, _ = gain(before, after)
    return repaired, broken, 100 * (repaired - broken) / max(1, sum(before))


def spread(accuracies: list[float]) -> tuple[float, float]:
    """The mean over seeds, and the standard deviation that is estimated from them (divided by n − 1)."""
    mean = sum(accuracies) / len(accuracies)
    return mean, sqrt(sum((a - mean) ** 2 for a in accuracies) / (len(accuracies) - 1))


def _population(accuracies):
    mean, sd = spread(accuracies)
    return mean, sd * sqrt((len(accuracies) - 1) / len(accuracies))


def _error_of_mean(accuracies):
    mean, sd = spread(accuracies)
    return mean, sd / sqrt(len(accuracies))


def _variance(accuracies):
    mean, sd = spread(accuracies)
    return mean, sd**2


def _range(accuracies):
    return sum(accuracies) / len(accuracies), max(accuracies) - min(accuracies)


EXERCISES = [
    Exercise(
        iterate,
        "Figure 1 as a loop. The checker hands in toy boxes that only write down what they were given, so that it sees "
        "which model sampled, and from which one training started.",
        2,
        10,
        "Everything in an iteration is done with the newest model: it samples, and it is what training starts from. "
        "Pairs of earlier iterations are not used again.",
        [("M0", 1, sample, pair, train), ("M0", 3, sample, pair, train), ("M0", 0, sample, pair, train)],
        {
            "training starts from the seed model each time; the paper starts from the newest one": _from_seed,
            "all iterations train on the seed model's samples": _seed_samples,
            "pairs of earlier iterations are kept; that is replay, a study beyond the paper": _accumulated,
            "only the last model is returned": _last_only,
        },
    ),
    Exercise(
        gain,
        "Two models, the same test problems. What has changed between them, problem by problem?",
        1,
        5,
        "Repaired: wrong before, right after. The problems that did not change cancel out of the gain.",
        [
            ([True, False, False, True], [True, True, True, False]),
            ([False] * 5, [True, False, False, False, False]),
            ([True, True, False], [False, False, False]),
        ],
        {
            "points are percent: the share has to be multiplied by 100": _gain_in_shares,
            "the gain is divided by the changed problems, not by all": _gain_of_changed,
            "before and after are exchanged": _exchanged,
            "this is the gain relative to the accuracy before; points are of all problems": _relative,
        },
    ),
    Exercise(
        spread,
        "Say three seeds give 62, 70 and 66 % for the same training (these numbers are made up). How large is their "
        "spread? It is what stands behind ± in the tables of `irpo table`.",
        1,
        5,
        "The mean was estimated from the same numbers, which costs one degree of freedom: divide by $n - 1$.",
        [([62.0, 70.0, 66.0],), ([50.0, 50.0],), ([1.0, 2.0, 3.0, 6.0],)],
        {
            "divided by n, the spread of few seeds comes out too small": _population,
            "this is the standard error of the mean; it shrinks with more seeds, the spread does not": _error_of_mean,
            "this is the variance; take its root": _variance,
            "this is the range, which grows with the number of seeds": _range,
        },
        needs="from math import sqrt",
    ),
]
