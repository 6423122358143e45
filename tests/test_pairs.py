"""G_w, G_l and the K cyclic pairs of a problem: by hand, and against a naive reading of § 2."""

import random
from collections import Counter
from dataclasses import replace

import pytest
from helpers import build_pairs

from irpo_lib.pairs import cyclic_pairs
from irpo_lib.records import Completion

EVERYTHING = 10**9


def completion(problem: str, index: int, reward: float, ids: list[int], finish: str = "stop") -> Completion:
    return Completion(problem, index, [1, len(problem)], ids, "", finish, None, reward)


def group(problem: str, rewards: str) -> list[Completion]:
    """ "1001" → a completion a digit; its token ids are its index."""
    return [completion(problem, i, float(r), [i]) for i, r in enumerate(rewards)]


def walk(pairs) -> list[tuple[int, int]]:
    return [(p.chosen_ids[0], p.rejected_ids[0]) for p in pairs]


@pytest.mark.parametrize(
    ("winners", "losers", "k", "expected"),
    [
        ("abc", "xy", 7, "ax by cx ay bx cy ax"),
        ("ab", "xyz", 4, "ax by az bx"),
        ("ab", "xy", 4, "ax by ax by"),  # equal sizes meet on the diagonal only, and come again
        ("a", "xyz", 3, "ax ay az"),
        ("abc", "x", 2, "ax bx"),
        ("a", "x", 3, "ax ax ax"),
        ("", "xy", 3, ""),
        ("ab", "", 3, ""),
        ("ab", "xy", 0, ""),
    ],
)
def test_cyclic_pairs(winners, losers, k, expected):
    assert cyclic_pairs(winners, losers, k) == [tuple(pair) for pair in expected.split()]


def test_winners_and_losers_come_in_order_of_sampling():
    completions = group("p", "10011")
    random.Random(0).shuffle(completions)
    pairs, counts = build_pairs(completions, {}, 7, EVERYTHING, EVERYTHING, 0)
    assert walk(pairs) == [(0, 1), (3, 2), (4, 1), (0, 2), (3, 1), (4, 2), (0, 1)]
    assert [p.k for p in pairs] == list(range(7))
    assert {p.chosen_source for p in pairs} == {"model"}
    assert all(p.prompt_ids == [1, 1] and p.problem_id == "p" for p in pairs)
    assert counts == Counter(problems=1, pairs=7)


def test_gold_joins_the_winners_last():
    pairs, counts = build_pairs(group("p", "1010"), {"p": [99]}, 4, EVERYTHING, EVERYTHING, 0)
    assert walk(pairs) == [(0, 1), (2, 3), (99, 1), (0, 3)]
    assert [p.chosen_source for p in pairs] == ["model", "model", "gold", "model"]
    assert counts["gold_winners"] == 1
    pairs, counts = build_pairs(group("p", "00"), {"p": [99], "other": [98]}, 3, EVERYTHING, EVERYTHING, 0)
    assert walk(pairs) == [(99, 0), (99, 1), (99, 0)]
    assert (counts["without_winner"], counts["gold_winners"]) == (0, 3)


def test_problems_without_a_winner_or_a_loser_are_counted():
    completions = group("none right", "000") + group("all right", "11") + group("both", "01") + group("empty", "0")
    pairs, counts = build_pairs(completions, {}, 2, EVERYTHING, EVERYTHING, 0)
    assert {p.problem_id for p in pairs} == {"both"}
    assert counts == Counter(problems=4, without_winner=2, without_loser=1, pairs=2)


def test_a_response_cut_at_the_limit_never_wins():
    cut = [replace(c, finish_reason="length") for c in group("p", "110")]
    pairs, counts = build_pairs(cut, {}, 3, EVERYTHING, EVERYTHING, 0)
    assert (pairs, counts["without_winner"]) == ([], 1)
    pairs, _ = build_pairs([*cut[:2], completion("p", 2, 1.0, [2]), cut[2]], {}, 1, EVERYTHING, EVERYTHING, 0)
    assert walk(pairs) == [(2, 2)], "a cut response may still lose"


@pytest.mark.parametrize(("max_length", "kept"), [(7, 4), (6, 2), (5, 2), (4, 1), (3, 0)])
def test_pairs_that_are_too_long_are_left_out_and_counted(max_length, kept):
    """Prompt 2 tokens; pairs by their longer response: 3, 5, 2, 5 tokens."""
    completions = [completion("p", 0, 1, [0] * 3), completion("p", 1, 1, [0] * 4), completion("p", 2, 1, [0] * 2)]
    completions += [completion("p", 3, 0, [0] * 1), completion("p", 4, 0, [0] * 5)]
    pairs, counts = build_pairs(completions, {}, 4, max_length, EVERYTHING, 0)
    assert [p.k for p in pairs] == {4: [0, 1, 2, 3], 2: [0, 2], 1: [2], 0: []}[kept]
    assert (counts["pairs"], counts["too_long"]) == (kept, 4 - kept)


def test_the_cap_is_random_seeded_and_keeps_the_order():
    completions = [c for i in range(40) for c in group(f"p{i:02}", "0101")]
    whole, _ = build_pairs(completions, {}, 5, EVERYTHING, EVERYTHING, 0)
    some, counts = build_pairs(completions, {}, 5, EVERYTHING, 50, 0)
    assert (len(whole), len(some), counts["over_cap"], counts["pairs"]) == (200, 50, 150, 50)
    positions = [whole.index(p) for p in some]
    assert positions == sorted(set(positions))
    assert positions != list(range(50))
    assert build_pairs(completions, {}, 5, EVERYTHING, 50, 0)[0] == some
    assert build_pairs(completions, {}, 5, EVERYTHING, 50, 1)[0] != some
    for cap in (200, 201):
        assert build_pairs(completions, {}, 5, EVERYTHING, cap, 0)[0] == whole
    drawn = [whole.index(p) for seed in range(40) for p in build_pairs(completions, {}, 5, EVERYTHING, 50, seed)[0]]
    assert len(set(drawn)) > 195, "every pair has its chance"
    assert 90 < sum(drawn) / len(drawn) < 109, "early and late ones alike"


# --- § 2's general case ---


def rated(*rewards: float) -> list[Completion]:
    return [completion("p", i, r, [i]) for i, r in enumerate(rewards)]


@pytest.mark.parametrize(
    ("rewards", "gold", "k", "expected"),
    [
        ((0.5, 0.9, 0.1, 0.7, 0.3), False, 5, "12 34 12 34 12"),  # the middle one meets itself
        ((0.1, 0.2, 0.3, 0.4), False, 3, "30 21 30"),
        ((7, -3), False, 2, "01 01"),
        ((1, 1, 0.5, 0), False, 6, "03 12 23 02 13 03"),  # sides of different length, each restarts at its own end
        ((0.5, 0.5, 0.5), False, 4, ""),
        ((0.5, 0.2), True, 3, "91 91 91"),  # gold has 1, and 0 meets itself
        ((3, 5, 7), True, 5, "20 91 10 21 90"),  # or as much as the best, which was sampled before it
        ((7, 7), True, 4, ""),
    ],
)
def test_the_walk_from_both_ends_by_hand(rewards, gold, k, expected):
    pairs, counts = build_pairs(rated(*rewards), {"p": [9]} if gold else {}, k, EVERYTHING, EVERYTHING, 0)
    assert " ".join(f"{chosen}{rejected}" for chosen, rejected in walk(pairs)) == expected
    assert [p.k for p in pairs] == list(range(len(pairs)))
    assert counts["pairs"] + k * (counts["without_winner"] + counts["without_loser"]) == k


def test_a_response_that_was_cut_is_never_chosen_however_high_its_reward():
    best, *others = rated(0.9, 0.5, 0.1)
    pairs, _ = build_pairs([replace(best, finish_reason="length"), *others], {}, 2, EVERYTHING, EVERYTHING, 0)
    assert walk(pairs) == [(1, 2), (1, 2)]
    worst = replace(others[1], finish_reason="length")
    assert walk(build_pairs([best, worst], {}, 1, EVERYTHING, EVERYTHING, 0)[0]) == [(0, 2)], "but may be rejected"


def test_random_rewards_make_k_pairs_of_a_higher_and_a_lower_one():
    rng = random.Random(8)
    for _ in range(300):
        rewards, k = [rng.choice([-2, 0, 0.01, 0.5, 1, 3]) for _ in range(rng.randint(1, 9))], rng.randint(1, 20)
        pairs, _ = build_pairs(rated(*rewards), {}, k, EVERYTHING, EVERYTHING, 0)
        assert len(pairs) == k * (len(set(rewards)) > 1)
        assert all(rewards[chosen] > rewards[rejected] for chosen, rejected in walk(pairs))
        if pairs:
            chosen, rejected = walk(pairs)[0]
            assert (rewards[chosen], rewards[rejected]) == (max(rewards), min(rewards))


def test_two_rewards_of_any_size_make_the_pairs_of_1_and_0():
    rng = random.Random(9)
    for _ in range(100):
        right = [float(rng.random() < 0.4) for _ in range(8)]
        low, high = sorted(rng.sample([-4, 0, 0.01, 0.3, 1, 20], 2))
        pairs = [
            build_pairs(rated(*rewards), {}, 12, EVERYTHING, EVERYTHING, 0)[0]
            for rewards in (right, [high if r else low for r in right])
        ]
        assert pairs[0] == pairs[1]


def naive(completions, gold, k, max_length) -> list[tuple]:
    """§ 2 as it is written, step by step, with indices that are reset at the end of each set."""
    found = []
    for problem in dict.fromkeys(c.problem_id for c in completions):
        own = sorted((c for c in completions if c.problem_id == problem), key=lambda c: c.index)
        winners, losers = [], []
        for c in own:
            if c.reward == 1 and c.finish_reason == "stop":
                winners.append((c.token_ids, "model"))
            elif c.reward == 0:
                losers.append(c.token_ids)
        if problem in gold:
            winners.append((gold[problem], "gold"))
        i = j = 0
        for k_th in range(k):
            if not winners or not losers:
                break
            chosen, source, rejected = *winners[i], losers[j]
            if len(own[0].prompt_ids + chosen) <= max_length and len(own[0].prompt_ids + rejected) <= max_length:
                found.append((problem, k_th, own[0].prompt_ids, chosen, rejected, source))
            i = 0 if i == len(winners) - 1 else i + 1
            j = 0 if j == len(losers) - 1 else j + 1
    return found


def test_random_groups_against_a_naive_reading():
    rng = random.Random(5)
    for _ in range(300):
        problems, k = [f"p{i}" for i in range(rng.randint(1, 6))], rng.randint(1, 12)
        completions = []
        for problem in problems:
            for i in range(rng.randint(1, 8)):
                finish = rng.choice(["stop", "stop", "stop", "length"])
                ids = [rng.randrange(50) for _ in range(rng.randint(1, 9))]
                completions.append(completion(problem, i, float(rng.random() < 0.5), ids, finish))
        rng.shuffle(completions)
        gold = {p: [77] * rng.randint(1, 9) for p in problems if rng.random() < 0.5}
        max_length, cap = rng.randint(4, 12), rng.choice([3, 1000])
        expected = naive(completions, gold, k, max_length)
        pairs, counts = build_pairs(completions, gold, k, max_length, cap, 0)
        as_tuples = [(p.problem_id, p.k, p.prompt_ids, p.chosen_ids, p.rejected_ids, p.chosen_source) for p in pairs]
        if len(expected) <= cap:
            assert as_tuples == expected
        else:
            assert len(pairs) == cap
            assert [t for t in expected if t in as_tuples] == as_tuples
        assert counts["gold_winners"] == sum(t[-1] == "gold" for t in as_tuples)
        with_both = counts["problems"] - counts["without_winner"] - counts["without_loser"]
        assert counts["problems"] == len(problems)
        assert counts["pairs"] + counts["too_long"] + counts["over_cap"] == k * with_both, "every pair is accounted for"
