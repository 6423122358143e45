"""Effects with intervals: a mean over problems, and over seeds where there are several; and those that claims need."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import pandas as pd

from irpo_lib.results.runs import Run


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


def points(runs: Sequence[Run], *terms: tuple[float, str, str], plus: float = 0.0) -> Effect:
    """A sum of weighted test accuracies on the same problems, in points: (weight, model or "last", measure) each."""
    last = f"M{iterations(runs)}"
    terms = tuple((w, last if model == "last" else model, measure) for w, model, measure in terms)
    sums: list[Any] = [sum(w * r.outcomes(model, measure) for w, model, measure in terms) for r in runs]
    return effect([plus + 100 * s.dropna() for s in sums])


def change(run: Run, model: str, kind: str, since: float = 0.0) -> pd.Series:
    """problem → change of the log-prob of its chosen, rejected or gold response, in nats, over training.

    `since` is the share of the training that is left out at its beginning.
    """
    steps = run.probe(model).pivot(index="step", columns="problem_id", values=f"{kind}_logps")
    return steps.iloc[-1] - steps.iloc[round(since * (len(steps) - 1))]


def changes(runs: Sequence[Run], *terms: tuple[float, str, str]) -> Effect:
    """A sum of weighted changes: (weight, model, kind) each."""
    return effect([sum(w * change(r, model, kind) for w, model, kind in terms) for r in runs])  # type: ignore[misc]


def iterations(runs: Sequence[Run]) -> int:
    return min(r.iterations for r in runs)


# --- what a claim says is above zero ---


def gain(runs: Sequence[Run], better: str, worse: str) -> list[Effect]:
    """How much more test accuracy one model has than another."""
    return [points(runs, (1, better, "greedy"), (-1, worse, "greedy"))]


def votes(runs: Sequence[Run], model: str) -> list[Effect]:
    """How much more test accuracy a model has with majority voting."""
    return [points(runs, (1, model, "majority"), (-1, model, "greedy"))]


def gains(runs: Sequence[Run]) -> list[Effect]:
    """M1 − M0, M2 − M1, …"""
    return [e for t in range(1, iterations(runs) + 1) for e in gain(runs, f"M{t}", f"M{t - 1}")]


def shrinking_gains(runs: Sequence[Run]) -> list[Effect]:
    """(M1 − M0) − (M2 − M1), …"""
    return [
        points(runs, (2, f"M{t}", "greedy"), (-1, f"M{t - 1}", "greedy"), (-1, f"M{t + 1}", "greedy"))
        for t in range(1, iterations(runs))
    ]


def same(runs: Sequence[Run], a: str, b: str, within: float) -> list[Effect]:
    """Two one-sided effects: the difference in points is above −within, and below within."""
    return [points(runs, (sign, a, "greedy"), (-sign, b, "greedy"), plus=within) for sign in (1, -1)]


def moves(runs: Sequence[Run], *terms: tuple[float, str, str]) -> list[Effect]:
    return [changes(runs, *terms)]


def margin_growth(runs: Sequence[Run], since: float, *models: str) -> list[Effect]:
    """The change of chosen less that of rejected, for each model."""
    return [effect([change(r, m, "chosen", since) - change(r, m, "rejected", since) for r in runs]) for m in models]


def fewer_pairs(runs: Sequence[Run]) -> list[Effect]:
    """By how many pairs each iteration has fewer than the one before, in per cent of iteration 1's."""
    pairs = [{t: stage.counts["pairs"] for t, stage in r.loop("pairs").items()} for r in runs]
    return [effect([pd.Series([100 * (p[t] - p[t + 1]) / p[1]]) for p in pairs]) for t in range(1, iterations(runs))]


#: As a claim names them.
KINDS = {f.__name__: f for f in (gain, votes, gains, shrinking_gains, same, moves, margin_growth, fewer_pairs)}
