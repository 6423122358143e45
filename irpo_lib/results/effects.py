"""Effects with intervals: a mean over problems, and over seeds where there are several; and those that claims need."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import pandas as pd

from irpo_lib.results.runs import Run

#: "Do not seem to deviate": within so many points of accuracy.
SAME = 3.0


@dataclass(frozen=True)
class Effect:
    """A mean with its 95 % interval, and what it was counted on."""

    mean: float
    low: float
    high: float
    seeds: int
    problems: int

    def __str__(self) -> str:
        return f"{self.mean:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def effect(values: Sequence[pd.Series]) -> Effect:
    """The mean of a quantity that each problem has under each seed, usually a difference between two models.

    Two things make it uncertain: the choice of problems, which all seeds share, and the chance of training, which all
    problems of a seed share. So the variance is s²_problems / P (of the means over seeds) + s²_seeds / S (of the means
    over problems), with Student's t at Welch and Satterthwaite's degrees of freedom. With one seed only the first is
    known, and the interval says nothing about another training run.

    Args:
        values: One series a seed: problem id → value. Problems that not all seeds have are averaged over those that do.
    """
    from scipy.stats import t

    table = pd.concat(values, axis=1)
    seed_means, problem_means = table.mean(axis=0), table.mean(axis=1)
    parts = [(means.var() / len(means), len(means) - 1) for means in (seed_means, problem_means) if len(means) > 1]
    mean, variance = float(seed_means.mean()), sum(v for v, _ in parts)
    if not parts:
        return Effect(mean, -inf, inf, len(values), len(problem_means))
    freedom = variance**2 / sum(v**2 / df for v, df in parts) if variance else 1.0
    half = float(t.ppf(0.975, freedom)) * sqrt(variance)
    return Effect(mean, mean - half, mean + half, len(values), len(problem_means))


# --- effects of runs ---


def gain(runs: Sequence[Run], better: str, worse: str, measure: str = "greedy", than: str = "greedy") -> Effect:
    """Points of test accuracy that one model ("last": M_T) has more than another, on the same problems."""
    last = f"M{iterations(runs)}"
    better, worse = (last if m == "last" else m for m in (better, worse))
    return effect([100 * (r.outcomes(better, measure) - r.outcomes(worse, than)).dropna() for r in runs])


def change(run: Run, model: str, kind: str, since: float = 0.0) -> pd.Series:
    """problem → change of the log-prob of its chosen, rejected or gold response, in nats, over training.

    `since` is the share of the training that is left out at its beginning.
    """
    rows = run.probe(model)
    steps = sorted(rows.step.unique())
    first = steps[round(since * (len(steps) - 1))]
    at = {step: rows[rows.step == step].set_index("problem_id")[f"{kind}_logps"] for step in (first, steps[-1])}
    return at[steps[-1]] - at[first]


def changes(runs: Sequence[Run], *terms: tuple[float, str, str]) -> Effect:
    """A sum of weighted changes: (weight, model, kind) each."""
    return effect([sum(w * change(r, model, kind) for w, model, kind in terms) for r in runs])  # type: ignore[misc]


def margin_growth(runs: Sequence[Run], model: str, since: float) -> Effect:
    return effect([change(r, model, "chosen", since) - change(r, model, "rejected", since) for r in runs])


def iterations(runs: Sequence[Run]) -> int:
    return min(r.iterations for r in runs)


def gains(runs: Sequence[Run]) -> list[Effect]:
    """M1 − M0, M2 − M1, …"""
    return [gain(runs, f"M{t}", f"M{t - 1}") for t in range(1, iterations(runs) + 1)]


def shrinking_gains(runs: Sequence[Run]) -> list[Effect]:
    """(M1 − M0) − (M2 − M1), …"""
    found = []
    for t in range(1, iterations(runs)):
        steps = [100 * (2 * r.outcomes(f"M{t}") - r.outcomes(f"M{t - 1}") - r.outcomes(f"M{t + 1}")) for r in runs]
        found.append(effect(steps))
    return found


def same(runs: Sequence[Run], a: str, b: str) -> list[Effect]:
    """Two one-sided effects: the difference is above −SAME, and below SAME."""
    return [effect([SAME + sign * 100 * (r.outcomes(a) - r.outcomes(b)) for r in runs]) for sign in (1, -1)]


def fewer_pairs(runs: Sequence[Run]) -> list[Effect]:
    """By how many pairs each iteration has fewer than the one before, in per cent of iteration 1's."""

    def pairs(run: Run, t: int) -> int:
        return run.counts(f"M{t}", "pairs")["pairs"]

    return [
        effect([pd.Series([100 * (pairs(r, t) - pairs(r, t + 1)) / pairs(r, 1)]) for r in runs])
        for t in range(1, iterations(runs))
    ]
