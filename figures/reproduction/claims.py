"""Claims: a sentence as a function from the files of runs to a verdict. The paper's are in `data/paper/claims.yaml`.

A claim is one or several effects that it says are above zero. It *holds* where all their 95 % intervals lie above
zero, *does not hold* where one lies below, and is *undecided* otherwise, or where there are fewer seeds than it needs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import pandas as pd

from irpo_lib.config import DATA, read_yaml
from irpo_lib.results.effects import KINDS, Effect
from irpo_lib.results.runs import IRPO, Run, by_task
from irpo_lib.results.tables import write_table, write_text
from irpo_lib.results.templates import TEMPLATES
from irpo_lib.terminal.errors import UserError

#: Differences between trained models are judged on no fewer training runs.
SEEDS = 3
#: The keys of a claim in a file; one more is its kind of effect.
WORDS = ("name", "task", "sentence", "place", "paper", "unit")


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper and the effects that have to be above zero for it to be true.

    Attributes:
        name: For the table.
        task: On which the paper claims it: "gsm8k", "arc" or "math".
        sentence: The paper's words.
        place: Where they stand.
        paper: The paper's effect.
        unit: Of our effects: "points" of accuracy, or "nats" a sequence.
        effects: Runs of that task (one a seed) → effects.
        seeds: How many training runs it needs.
    """

    name: str
    task: str
    sentence: str
    place: str
    paper: str
    unit: str
    effects: Callable[[Sequence[Run]], list[Effect]]
    seeds: int = SEEDS


@dataclass(frozen=True)
class Verdict:
    claim: Claim
    verdict: str
    effects: tuple[Effect, ...]

    @property
    def decisive(self) -> Effect:
        """The smallest effect: the one that a claim of several stands or falls with."""
        return min(self.effects, key=lambda e: e.low)


def read_claims(path: Path = DATA / "paper" / "claims.yaml") -> list[Claim]:
    """The claims of a file, in its order; without one, the paper's.

    Raises:
        UserError: the file is no list of claims, or one of them lacks a key or has an effect that there is not.
    """
    claims = read_yaml(path.read_text(encoding="utf8"), str(path))
    if not isinstance(claims, list) or not all(isinstance(c, dict) for c in claims):
        raise UserError(f"{path}: a file of claims is a list, each of them lines of 'key: value'")
    return [_claim(c, f"{path}, claim {number} ('{c.get('name')}')") for number, c in enumerate(claims, start=1)]


def _claim(found: dict[str, Any], where: str) -> Claim:
    if set(found) - KINDS.keys() != set(WORDS) or len(found) != len(WORDS) + 1:
        raise UserError(f"{where} has {', '.join(found)}, not {', '.join(WORDS)} and one of {', '.join(KINDS)}")
    [kind] = found.keys() & KINDS.keys()
    effects, arguments = KINDS[kind], found.pop(kind)
    try:
        signature(effects).bind([], *arguments)
        if kind == "moves" and any(len(term) != 3 for term in arguments):
            raise TypeError("each is a weight, a model, and chosen, rejected or gold")
    except TypeError as error:
        raise UserError(f"{where}: {kind} cannot take {arguments}: {error}") from error
    return Claim(**found, effects=lambda runs: effects(runs, *arguments))


def judge(claim: Claim, runs: Sequence[Run]) -> Verdict:
    """The verdict on a claim, from all runs of its task.

    Raises:
        UserError: the runs lack an arm or an iteration that the claim is about.
    """
    effects = tuple(claim.effects(runs))
    if not effects:
        raise UserError(f"'{claim.name}' is about more iterations than these runs have")
    if len(runs) < claim.seeds:
        return Verdict(claim, f"undecided ({len(runs)} of {claim.seeds} seeds)", effects)
    if all(e.low > 0 for e in effects):
        return Verdict(claim, "holds", effects)
    return Verdict(claim, "does not hold" if any(e.high < 0 for e in effects) else "undecided", effects)


def judge_all(runs: Sequence[Run], claims: Sequence[Claim]) -> list[Verdict]:
    """Verdicts on the claims about tasks that there are runs of; those whose rows were not run are left out.

    Raises:
        UserError: nothing that any claim is about was run, or a loop was trained by another loss than the paper's.
    """
    for run in runs:
        if (loss := run.loss("M1")) != IRPO:
            raise UserError(f"{run.folder} was trained by {loss}, and the claims are about {IRPO}")
    found = []
    for task, some in by_task(runs).items():
        for claim in [c for c in claims if c.task == task.partition("-")[0]]:
            with suppress(UserError):  # its arms or iterations were not part of these runs
                found.append(judge(claim, some))
    if not found:
        raise UserError("these runs hold no arm that a claim is about: make them with `irpo reproduce`")
    return found


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    """A line a claim, with its decisive effect."""
    template = Path(__file__).with_suffix(".md").read_text(encoding="utf8")
    return TEMPLATES.from_string(template).render(verdicts=verdicts)


def claims_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """One row an effect, with the paper's sentence."""
    return pd.DataFrame([
        {"claim": v.claim.name, "verdict": v.verdict, "effect": number, "of": len(v.effects),
         "mean": round(e.mean, 3), "low": round(e.low, 3), "high": round(e.high, 3), "unit": v.claim.unit,
         "seeds": e.seeds, "problems": e.problems, "paper": v.claim.paper, "place": v.claim.place,
         "sentence": v.claim.sentence}
        for v in verdicts for number, e in enumerate(v.effects, start=1)
    ])  # fmt: skip


def write_claims(runs: Sequence[Run], out: Path) -> Iterator[str | Path]:
    """The verdicts on the paper's claims as text, which comes first, then as `claims.csv` and `claims.md`."""
    verdicts = judge_all(runs, read_claims())
    text = claims_markdown(verdicts)
    yield text
    yield write_table(claims_table(verdicts), out / "claims.csv")
    yield write_text(text, out / "claims.md")
