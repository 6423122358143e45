"""Effects with intervals: a mean over problems, and over seeds where there are several."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt

import pandas as pd


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
