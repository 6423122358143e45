"""From rewarded completions to D_pairs: G_w, G_l, and K cyclic pairs a problem (§ 2, § 3.1)."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from irpo_lib.config import Config
from irpo_lib.records import Completion, PreferencePair
from irpo_lib.stages.parquet import Records
from irpo_lib.stages.store import hash_json, read_json

#: (r, token ids, "model" or "gold")
Rated = tuple[float, list[int], str]
#: Where problems and pairs went, as a `pairs` stage records it.
COUNTS = ("problems", "without_winner", "without_loser", "gold_winners", "too_long", "over_cap", "pairs")


def cyclic_pairs(winners: Sequence, losers: Sequence, k: int) -> list[tuple]:
    """K pairs (w_{j mod |G_w|}, l_{j mod |G_l|}), j < K: both sets are walked at once and restart at their end.

    A pair comes again where K is larger than the number of combinations that the walk meets, as in the paper.
    """
    if not winners or not losers:
        return []
    return [(winners[j % len(winners)], losers[j % len(losers)]) for j in range(k)]


def kept_pairs(
    groups: Callable[[], Iterable[Sequence[Completion]]], gold_ids: Mapping[str, list[int]], config: Config
) -> tuple[Iterator[PreferencePair], Counter[str]]:
    """D_pairs of one iteration, pair by pair: of the completions, one problem's are needed at a time.

    Args:
        groups: Gives the rewarded completions of problem after problem, each problem's in any order; asked twice, to
            count and to make the pairs.
        gold_ids: problem id → the token ids of its gold solution, which joins G_w (`winners_and_losers`); empty for no
            gold.
        config: Its `pairs_per_problem` is K. Pairs of which prompt + response is longer (in tokens) than `max_length`
            are left out. If there are more than `max_pairs`, a random choice of so many, by `seed`, is kept, in order.

    Returns:
        The pairs, and the counts (`COUNTS`) of what was left out and why.
    """

    def candidates(counts: Counter[str]) -> Iterator[PreferencePair]:
        for group in groups():
            yield from _pairs_of(group, gold_ids.get(group[0].problem_id), config, counts)

    counts = Counter(dict.fromkeys(COUNTS, 0))
    is_gold = [pair.chosen_source == "gold" for pair in candidates(counts)]
    total, most = len(is_gold), config.max_pairs
    kept = range(total) if total <= most else set(random.Random(config.seed).sample(range(total), most))
    pairs = (pair for place, pair in enumerate(candidates(Counter())) if place in kept)
    counts.update(gold_winners=sum(is_gold[place] for place in kept), over_cap=total - len(kept), pairs=len(kept))
    return pairs, counts


def winners_and_losers(group: Sequence[Completion], gold: list[int] | None) -> tuple[list[Rated], list[Rated]]:
    """G_w, the best first, and G_l, the worst first, of one problem's completions (§ 2).

    Binary rewards give § 2's sets. In its general case the same response may be in both, as G_w is all that is better
    than the worst and G_l all that is worse than the best: walked at once they are the responses sorted by reward, from
    both ends to where they meet. Equals stand in order of sampling; where all are alike, r > ½ is a winner. A response
    cut at the length limit is never a winner. A gold solution is one of reward 1, or of the best response's where that
    is higher, and sampled last; it is never a loser.
    """
    group = sorted(group, key=lambda c: c.index)
    rated = [(c.reward or 0.0, c.token_ids, "model") for c in group]
    winners = [r for r, c in zip(rated, group, strict=True) if c.finish_reason == "stop"]
    if gold is not None:
        winners.append((max([1.0, *(r for r, _, _ in winners)]), gold, "gold"))
    best = max((r for r, _, _ in winners), default=0.0)
    losers = sorted((r for r in rated if r[0] < best), key=itemgetter(0))
    worst = losers[0][0] if losers else 0.5
    return sorted((r for r in winners if r[0] > worst), key=itemgetter(0), reverse=True), losers


def _pairs_of(
    group: Sequence[Completion], gold: list[int] | None, config: Config, counts: Counter[str]
) -> list[PreferencePair]:
    """The pairs of one problem, from its completions: the first K of the walk that have a higher and a lower reward."""
    problem_id, prompt, most = group[0].problem_id, group[0].prompt_ids, config.pairs_per_problem
    winners, losers = winners_and_losers(group, gold)
    # The best winner beats every loser, so of |G_w| steps one at least is a pair.
    steps = cyclic_pairs(winners, losers, most * len(winners))
    walk = [(won, lost) for won, lost in steps if won[0] > lost[0]][:most]
    pairs = [
        PreferencePair(problem_id, k, prompt, chosen, rejected, source)
        for k, ((_, chosen, source), (_, rejected, _)) in enumerate(walk)
        if len(prompt) + max(len(chosen), len(rejected)) <= config.max_length
    ]
    counts["problems"] += 1
    counts["without_winner"] += not winners
    counts["without_loser"] += bool(winners) and not losers
    counts["too_long"] += len(walk) - len(pairs)
    return pairs


def gold_pairs(
    completions: Iterable[Completion], gold_ids: Mapping[str, list[int]], max_length: int
) -> list[PreferencePair]:
    """(x, gold solution) of each sampled problem that has one, with nothing rejected: the data of SFT on gold."""
    prompts = {c.problem_id: c.prompt_ids for c in completions}
    return [
        PreferencePair(problem_id, 0, prompt, gold_ids[problem_id], [], "gold")
        for problem_id, prompt in prompts.items()
        if problem_id in gold_ids and len(prompt) + len(gold_ids[problem_id]) <= max_length
    ]


# --- with their reference log-probs ---


@dataclass(frozen=True)
class ScoredPair:
    """A preference pair with its reference log-probs, log M_t(c^w, y^w | x) and log M_t(c^l, y^l | x)."""

    pair: PreferencePair
    reference_chosen_logps: float
    reference_rejected_logps: float


def scored_pairs(pairs: Path, reference: Path, without: Sequence[str] = ()) -> "ScoredPairs":
    """D_pairs with its reference log-probs, each pair read when it is asked for; `without` problems are left out."""
    return ScoredPairs(Records(pairs / "pairs.parquet", PreferencePair), read_json(reference / "logps.json"), without)


class ScoredPairs(Sequence):
    """Pairs and `logps` by `response_key`; the log-prob of an empty response (SFT on gold rejects nothing) is 0."""

    def __init__(self, pairs: Records[PreferencePair], logps: dict[str, float], without: Sequence[str] = ()):
        hidden = set(without)
        self.pairs, self.logps = pairs, logps
        self.kept = [i for i, problem_id in enumerate(pairs.column("problem_id")) if problem_id not in hidden]

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        pair = self.pairs[self.kept[index]]
        return ScoredPair(pair, self._logp(pair, pair.chosen_ids), self._logp(pair, pair.rejected_ids))

    def _logp(self, pair: PreferencePair, response: list[int]) -> float:
        return self.logps[response_key(pair.prompt_ids, response)] if response else 0.0


def response_key(prompt_ids: Sequence[int], response_ids: Sequence[int]) -> str:
    """Under which the reference log-prob of a response is kept."""
    return hash_json([list(prompt_ids), list(response_ids)])
