"""From rewarded completions to D_pairs: G_w, G_l, and K cyclic pairs a problem (§ 2, § 3.1)."""

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

from irpo_lib.records import Completion, PreferencePair
from irpo_lib.stages.parquet import Records
from irpo_lib.stages.store import hash_json, read_json

#: (r, token ids, "model" or "gold")
Rated = tuple[float, list[int], str]


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
    completions: Iterable[Completion],
    gold_ids: Mapping[str, list[int]],
    pairs_per_problem: int,
    max_length: int,
    max_pairs: int,
    seed: int,
) -> tuple[list[PreferencePair], PairCounts]:
    """D_pairs of one iteration, all at once; the arguments are those of `kept_pairs`.

    Args:
        completions: Rewarded completions, in any order; each problem's are used in order of sampling.

    Returns:
        The pairs, and the counts of what was left out and why.
    """
    groups: dict[str, list[Completion]] = {}
    for completion in completions:
        groups.setdefault(completion.problem_id, []).append(completion)
    pairs, counts = kept_pairs(groups.values, gold_ids, pairs_per_problem, max_length, max_pairs, seed)
    return list(pairs), counts


def kept_pairs(
    groups: Callable[[], Iterable[Sequence[Completion]]],
    gold_ids: Mapping[str, list[int]],
    pairs_per_problem: int,
    max_length: int,
    max_pairs: int,
    seed: int,
) -> tuple[Iterator[PreferencePair], PairCounts]:
    """D_pairs of one iteration, pair by pair: of the completions, one problem's are needed at a time.

    Args:
        groups: Gives the rewarded completions of problem after problem; asked twice, to count and to make the pairs.
        gold_ids: problem id → the token ids of its gold solution, which joins G_w (`winners_and_losers`); empty for no
            gold.
        pairs_per_problem: K.
        max_length: Pairs of which prompt + response is longer (in tokens) are left out.
        max_pairs: If there are more, a random choice of so many is kept, in order.
        seed: Of that choice.
    """

    def candidates(counts: Counter[str]) -> Iterator[PreferencePair]:
        for group in groups():
            yield from _pairs_of(group, gold_ids, pairs_per_problem, max_length, counts)

    counts: Counter[str] = Counter()
    is_gold = [pair.chosen_source == "gold" for pair in candidates(counts)]
    total = len(is_gold)
    kept = range(total) if total <= max_pairs else set(random.Random(seed).sample(range(total), max_pairs))
    pairs = (pair for place, pair in enumerate(candidates(Counter())) if place in kept)
    gold = sum(is_gold[place] for place in kept)
    return pairs, PairCounts(**counts, gold_winners=gold, over_cap=total - len(kept), pairs=len(kept))


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
    group: Sequence[Completion], gold_ids: Mapping[str, list[int]], pairs_per_problem: int, max_length: int,
    counts: Counter[str],
) -> list[PreferencePair]:  # fmt: skip
    """The pairs of one problem, from its completions: the first K of the walk that have a higher and a lower reward."""
    problem_id, prompt = group[0].problem_id, group[0].prompt_ids
    winners, losers = winners_and_losers(group, gold_ids.get(problem_id))
    # The best winner beats every loser, so of |G_w| steps one at least is a pair.
    steps = cyclic_pairs(winners, losers, pairs_per_problem * len(winners))
    walk = [(won, lost) for won, lost in steps if won[0] > lost[0]][:pairs_per_problem]
    pairs = [
        PreferencePair(problem_id, k, prompt, chosen, rejected, source)
        for k, ((_, chosen, source), (_, rejected, _)) in enumerate(walk)
        if len(prompt) + max(len(chosen), len(rejected)) <= max_length
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
