"""From rewarded completions to D_pairs: G_w, G_l, and K cyclic pairs a problem (§ 2, § 3.1)."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from irpo_lib.records import Completion, PreferencePair


@dataclass(frozen=True)
class PairCounts:
    """Where problems and pairs went."""

    problems: int = 0
    without_winner: int = 0
    without_loser: int = 0
    gold_winners: int = 0
    too_long: int = 0
    over_cap: int = 0
    pairs: int = 0


def cyclic_pairs(winners: Sequence, losers: Sequence, k: int) -> list[tuple]:
    """K pairs (w_{j mod |G_w|}, l_{j mod |G_l|}), j < K: both sets are walked at once and restart at their end.

    A pair comes again where K is larger than the number of combinations that the walk meets, as in the paper.
    """
    if not winners or not losers:
        return []
    return [(winners[j % len(winners)], losers[j % len(losers)]) for j in range(k)]


def build_pairs(
    completions: Sequence[Completion],
    gold_ids: Mapping[str, list[int]],
    pairs_per_problem: int,
    max_length: int,
    max_pairs: int,
    seed: int,
) -> tuple[list[PreferencePair], PairCounts]:
    """D_pairs of one iteration.

    Args:
        completions: Rewarded completions, in any order; each problem's are used in order of sampling.
        gold_ids: problem id → the token ids of its gold solution, which joins G_w last; empty for no gold.
        pairs_per_problem: K.
        max_length: Pairs of which prompt + response is longer (in tokens) are left out.
        max_pairs: If there are more, a random choice of so many is kept, in order.
        seed: Of that choice.

    Returns:
        The pairs, and the counts of what was left out and why. A response cut at the length limit is never a
        winner.
    """
    groups: dict[str, list[Completion]] = {}
    for completion in completions:
        groups.setdefault(completion.problem_id, []).append(completion)
    pairs: list[PreferencePair] = []
    counts = dict.fromkeys(("without_winner", "without_loser", "too_long"), 0)
    for problem_id, group in groups.items():
        group = sorted(group, key=lambda c: c.index)
        winners = [(c.token_ids, "model") for c in group if c.reward == 1 and c.finish_reason == "stop"]
        losers = [c.token_ids for c in group if c.reward == 0]
        if problem_id in gold_ids:
            winners.append((gold_ids[problem_id], "gold"))
        counts["without_winner"] += not winners
        counts["without_loser"] += bool(winners) and not losers
        for k, ((chosen, source), rejected) in enumerate(cyclic_pairs(winners, losers, pairs_per_problem)):
            prompt = group[0].prompt_ids
            if len(prompt) + max(len(chosen), len(rejected)) > max_length:
                counts["too_long"] += 1
                continue
            pairs.append(PreferencePair(problem_id, k, prompt, chosen, rejected, source))
    over_cap = max(0, len(pairs) - max_pairs)
    if over_cap:
        kept = sorted(random.Random(seed).sample(range(len(pairs)), max_pairs))
        pairs = [pairs[i] for i in kept]
    gold = sum(p.chosen_source == "gold" for p in pairs)
    return pairs, PairCounts(problems=len(groups), gold_winners=gold, over_cap=over_cap, pairs=len(pairs), **counts)


def gold_pairs(
    completions: Sequence[Completion], gold_ids: Mapping[str, list[int]], max_length: int
) -> list[PreferencePair]:
    """(x, gold solution) of each sampled problem that has one, with nothing rejected: the data of SFT on gold."""
    prompts = {c.problem_id: c.prompt_ids for c in completions}
    return [
        PreferencePair(problem_id, 0, prompt, gold_ids[problem_id], [], "gold")
        for problem_id, prompt in prompts.items()
        if problem_id in gold_ids and len(prompt) + len(gold_ids[problem_id]) <= max_length
    ]
