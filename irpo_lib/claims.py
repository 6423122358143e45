"""What the paper claims, each sentence as a function from a run's files to a verdict.

A claim is one or several effects that it says are above zero. It *holds* where all their 95 % intervals lie above
zero, *does not hold* where one lies below, and is *undecided* otherwise, or where there are fewer seeds than it needs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from irpo_lib.effects import Effect, effect
from irpo_lib.errors import UserError
from irpo_lib.results import Run, by_task

#: Differences between trained models are judged on no fewer training runs.
SEEDS = 3
#: "Does not seem to deviate": within so many points of accuracy.
SAME = 3.0


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


def judge(claim: Claim, runs: Sequence[Run]) -> Verdict:
    """The verdict on a claim, from all runs of its task."""
    effects = tuple(claim.effects(runs))
    if len(runs) < claim.seeds:
        return Verdict(claim, f"undecided ({len(runs)} of {claim.seeds} seeds)", effects)
    if all(e.low > 0 for e in effects):
        return Verdict(claim, "holds", effects)
    return Verdict(claim, "does not hold" if any(e.high < 0 for e in effects) else "undecided", effects)


def judge_all(runs: Sequence[Run]) -> list[Verdict]:
    """Verdicts on the claims about the tasks that there are runs of; claims whose rows were not run are left out.

    Raises:
        UserError: nothing that any claim is about was run.
    """
    found = []
    for task, some in by_task(runs).items():
        for claim in CLAIMS:
            if claim.task != task.partition("-")[0]:
                continue
            try:
                found.append(judge(claim, some))
            except UserError:  # its arms were not part of these runs
                continue
    if not found:
        raise UserError("these runs hold no arm that a claim is about: make them with `irpo reproduce`")
    return found


# --- effects, all in the claim's direction ---


def gain(runs: Sequence[Run], better: str, worse: str, measure: str = "greedy", than: str = "greedy") -> Effect:
    """Points of test accuracy that one model has more than another, on the same problems."""
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


def voting(runs: Sequence[Run]) -> list[Effect]:
    """maj@32 − greedy on the problems that were voted on, for M0 and the last model."""
    return [gain(runs, m, m, measure="majority") for m in ("M0", f"M{iterations(runs)}")]


_NLL_LIFTS = "when training with DPO with NLL loss, the log probabilities increase noticeably"

CLAIMS: tuple[Claim, ...] = (
    # --- Figure 2 ---
    Claim("SFT on chosen raises rejected too (at least half as much as chosen)", "gsm8k",
          "Although SFT training is on chosen sequences only, the rejected sequence log probabilities also increase "
          "and are close to the chosen sequence probabilities.", "Figure 2a", "both rise together", "nats",
          lambda r: [changes(r, (1, "sft-chosen", "rejected"), (-0.5, "sft-chosen", "chosen"))]),
    Claim("DPO+NLL raises chosen", "gsm8k",
          "our DPO+NLL training manages to decrease the rejected probabilities while increasing the chosen "
          "probabilities.", "Figure 2a", "rises", "nats", lambda r: [changes(r, (1, "M1", "chosen"))]),
    Claim("DPO+NLL lowers rejected", "gsm8k",
          "our DPO+NLL training manages to decrease the rejected probabilities while increasing the chosen "
          "probabilities.", "Figure 2a", "falls by hundreds of nats", "nats",
          lambda r: [changes(r, (-1, "M1", "rejected"))]),
    Claim("SFT on gold barely raises the model's own chosen (under a fifth of gold's rise)", "gsm8k",
          "Another observation is that the chosen sequence probabilities barely increase.", "Figure 2b",
          "barely", "nats", lambda r: [changes(r, (0.2, "sft-gold", "gold"), (-1, "sft-gold", "chosen"))]),
    # --- Figure 3 ---
    Claim("DPO alone lowers chosen", "gsm8k",
          "the log probability of chosen sequences in standard DPO without NLL loss decreases over training steps",
          "Figure 3", "falls", "nats", lambda r: [changes(r, (-1, "dpo", "chosen"))]),
    Claim("DPO alone lowers chosen more when started from SFT", "gsm8k",
          "… especially if the model is initialized from SFT training on chosen sequences.", "Figure 3b",
          "falls faster", "nats", lambda r: [changes(r, (1, "dpo", "chosen"), (-1, "dpo-from-sft", "chosen"))]),
    Claim("the margin grows in all four settings, and goes on growing in the second half", "gsm8k",
          "In all four settings, the margin between the two curves continues increasing.", "Figure 3", "grows", "nats",
          lambda r: [margin_growth(r, m, since) for since in (0.0, 0.5)
                     for m in ("dpo", "M1", "dpo-from-sft", "irpo-from-sft")]),
    # --- Table 1 ---
    Claim("Iterative RPO beats M0", "gsm8k", "increasing the base model accuracy by 47% (from 55.6% to 81.6%) in "
          "total.", "§ 3.1", "+26.0", "points", lambda r: [gain(r, f"M{iterations(r)}", "M0")]),
    Claim("DPO+NLL beats DPO", "gsm8k", "We see a large performance drop (73.1% vs. 61.8%) using DPO compared to our "
          "method after one iteration.", "§ 3.1", "+11.3", "points", lambda r: [gain(r, "M1", "dpo")]),
    Claim("DPO+NLL beats DPO from SFT", "gsm8k", "The gap remains large even when the standard DPO training starts "
          "from the superior SFT-tuned model.", "§ 3.1", "+12.8", "points", lambda r: [gain(r, "M1", "dpo-from-sft")]),
    Claim("DPO+NLL beats SFT on chosen (STaR)", "gsm8k", "… improves results to 65.2% over SFT on the gold solutions "
          "alone, but still falls short of the performance of the first iteration of Iterative RPO.",
          "§ 3.1", "+7.9", "points", lambda r: [gain(r, "M1", "sft-chosen")]),
    Claim("DPO+NLL beats SFT on gold", "gsm8k", "SFT gives a boost in performance compared to zero-shot CoT from "
          "55.6% to 63.5% but still far from the 81.6% of Iterative RPO.", "§ 3.1", "+9.6", "points",
          lambda r: [gain(r, "M1", "sft-gold")]),
    Claim("SFT on chosen beats SFT on gold", "gsm8k", "… improves results to 65.2% over SFT on the gold solutions "
          "alone.", "§ 3.1", "+1.7", "points", lambda r: [gain(r, "sft-chosen", "sft-gold")]),
    Claim("DPO beats M0", "gsm8k", "DPO performance, while being better than zero-shot CoT, is no better than the SFT "
          "model.", "§ 3.1", "+6.2", "points", lambda r: [gain(r, "dpo", "M0")]),
    Claim(f"starting from SFT changes nothing (within {SAME:g} points)", "gsm8k", "whether we initialize with "
          "Llama-2-70b-chat or SFT on chosen for Iterative RPO, accuracy results of first iteration training do not "
          "seem to deviate.", "§ 3.1", "0.0", "points", lambda r: same(r, "irpo-from-sft", "M1")),
    Claim("accuracy rises with each iteration", "gsm8k", "We see performance improves across each iteration, from "
          "73.1% to 78.0% to 81.1% to 81.6%.", "§ 3.1", "+17.5, +4.9, +3.1, +0.5", "points", gains),
    Claim("the gains shrink", "gsm8k", "However, the gain decays across the iterations.", "§ 3.1",
          "17.5 > 4.9 > 3.1 > 0.5", "points", shrinking_gains),
    Claim("two iterations beat one on twice the data", "gsm8k", "Iterative RPO with twice as much data obtains 74.8%; "
          "however, training for two iterations obtains 78.0%.", "§ 3.1", "+3.2", "points",
          lambda r: [gain(r, "M2", "irpo-twice")]),
    Claim("twice the data beats once", "gsm8k", "In both cases performance improves compared to less data.", "§ 3.1",
          "+1.7 and +1.7", "points",
          lambda r: [gain(r, "irpo-twice", "M1"), gain(r, "star-twice", "sft-chosen")]),
    Claim("majority voting helps M0 and the last model", "gsm8k", "If we use majority voting over 32 samples, we can "
          "improve the accuracy of our approach.", "§ 3.1", "+15.1 and +7.1", "points", voting),
    # --- Table 2 and Figure 4 ---
    Claim("ARC: DPO+NLL raises chosen, DPO less", "arc", _NLL_LIFTS, "Figure 4a", "rises noticeably", "nats",
          lambda r: [changes(r, (1, "M1", "chosen")), changes(r, (1, "M1", "chosen"), (-1, "dpo", "chosen"))]),
    Claim("ARC: accuracy rises with each iteration", "arc", "Iterative RPO provides increased performance across "
          "iterations (84.8%, 86.2%, 86.7%).", "§ 3.2", "+7.0, +1.4, +0.5", "points", gains),
    Claim("ARC: Iterative RPO beats SFT on chosen and DPO", "arc", "These results outperform zero-shot CoT (77.8%), "
          "SFT on chosen sequences (79.8%) and standard DPO (83.5%).", "§ 3.2", "+6.9, +3.9, +3.2", "points",
          lambda r: [gain(r, f"M{iterations(r)}", m) for m in ("sft-chosen", "dpo", "dpo-from-sft")]),
    Claim("ARC: majority voting helps M0 and the last model", "arc", "Majority voting using the model in the third "
          "iteration leads to another small boost (87.9%).", "§ 3.2", "+5.1 and +1.2", "points", voting),
    Claim("ARC: there are fewer pairs with each iteration", "arc", "The decrease in the number of examples is due to "
          "the lack of incorrect samples for a number of questions in later iterations.", "§ 3.2",
          "20k, 11k, 5k: −45 %, −30 % of the first", "% of pairs", fewer_pairs),
    Claim("MATH: DPO+NLL raises chosen, DPO less", "math", _NLL_LIFTS, "Figure 4b", "rises", "nats",
          lambda r: [changes(r, (1, "M1", "chosen")), changes(r, (1, "M1", "chosen"), (-1, "dpo", "chosen"))]),
    Claim("MATH: accuracy rises with each iteration", "math", "Iterative RPO provides increased performance across "
          "iterations, from 17.7% to 19.9% to 20.8%.", "§ 3.3", "+5.2, +2.2, +0.9", "points", gains),
    Claim("MATH: Iterative RPO beats SFT on chosen and DPO", "math", "These results outperform few-shot CoT (12.5%), "
          "SFT on chosen sequences (16.8%) and standard DPO (12.4%).", "§ 3.3", "+4.0, +8.4", "points",
          lambda r: [gain(r, f"M{iterations(r)}", m) for m in ("sft-chosen", "dpo")]),
    Claim("MATH: DPO from SFT falls below M0", "math", "In particular, DPO degrades the performance compared to "
          "initialization.", "§ 3.3, Table 2", "+2.0", "points", lambda r: [gain(r, "M0", "dpo-from-sft")]),
    Claim("MATH: majority voting helps M0 and the last model", "math", "Majority voting (32 samples, temperature 0.8) "
          "leads to a significant boost in performance (29.1%).", "§ 3.3", "+6.3 and +8.3", "points", voting),
)  # fmt: skip
