"""Records that are read and written a few at a time: the same as everything at once."""

import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from helpers import build_pairs

from irpo_lib.config import load_config
from irpo_lib.logprobs import DistinctResponses
from irpo_lib.pairs import gold_pairs, response_key, scored_pairs
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.rewards import reward
from irpo_lib.stages import boxes, parquet
from irpo_lib.stages.store import read_json, read_records, run_stage, write_json, write_records
from irpo_lib.tasks import get_task
from irpo_lib.terminal.errors import UserError

ANSWERS = ("Final answer: 7", "Final answer: 8", "no idea")


def random_completions(rng: random.Random, problems: int) -> list[Completion]:
    """Of each problem up to 8 samples, right, wrong, without an answer or cut; lengths and ids at random."""
    found = []
    for number in range(problems):
        prompt = [rng.randrange(40_000) for _ in range(rng.randint(1, 6))]
        for index in range(rng.randint(1, 8)):
            ids = [rng.randrange(40_000) for _ in range(rng.randint(1, 9))]
            finish = rng.choice(["stop", "stop", "stop", "length"])
            found.append(Completion(f"p{number}", index, prompt, ids, rng.choice(ANSWERS), finish))
    return found


def problems_of(completions) -> list[Problem]:
    return [Problem(i, "", "7") for i in dict.fromkeys(c.problem_id for c in completions)]


def graded(completions) -> list[Completion]:
    by_id = {p.id: p for p in problems_of(completions)}
    return [reward(c, by_id[c.problem_id], get_task("gsm8k-mini")) for c in completions]


def in_a_stage(folder: Path, **files: list) -> Path:
    """A finished stage of these files of records."""

    def work(folder):
        for name, records in files.items():
            write_records(folder / f"{name}.parquet", records)
        return {}

    return run_stage(folder, {}, {}, work)


def cut_up(rng: random.Random, items: list) -> dict[str, list]:
    """The items as shards of random sizes."""
    places = sorted({0, len(items), *(rng.randrange(len(items)) for _ in range(rng.randrange(4)))})
    pieces = pairwise(places)
    return {f"shard-{number:05d}": items[a:b] for number, (a, b) in enumerate(pieces)}


@pytest.fixture(autouse=True, params=[1, 3, 1024])
def rows_at_once(request, monkeypatch):
    """A row group may end anywhere in a problem."""
    monkeypatch.setattr(parquet, "ROWS", request.param)


def test_rewards_shard_by_shard_are_those_of_all_at_once(tmp_path):
    rng = random.Random(0)
    for trial in range(5):
        completions = random_completions(rng, problems=rng.randint(1, 9))
        generated = in_a_stage(tmp_path / f"generate-{trial}", **cut_up(rng, completions))
        config, problems = load_config("mini"), problems_of(completions)
        folder = boxes.reward_stage(tmp_path / f"reward-{trial}", config, generated, problems)
        expected = graded(completions)
        assert read_records(folder / "completions.parquet", Completion) == expected
        assert read_json(folder / "stage.json")["counts"] == {
            "completions": len(expected),
            "right": round(sum(c.reward for c in expected) / len(expected), 4),
            "without_answer": sum(c.answer is None for c in expected),
        }


def test_pairs_problem_by_problem_are_those_of_all_at_once(tmp_path):
    rng, over_cap = random.Random(1), 0
    for trial in range(20):
        sources = [graded(random_completions(rng, problems=rng.randint(1, 12))) for _ in range(rng.randint(1, 3))]
        folders = [in_a_stage(tmp_path / f"reward-{trial}-{i}", completions=s) for i, s in enumerate(sources)]
        gold = {f"p{i}": [77] * rng.randint(1, 9) for i in range(12) if rng.random() < 0.5}
        config = load_config("mini", pairs_per_problem=rng.randint(1, 10), max_length=rng.randint(5, 15), seed=trial,
                             max_pairs=rng.choice([7, 1000]), gold_in_winners=rng.random() < 0.5)  # fmt: skip
        folder = boxes.pair_stage(tmp_path / f"pairs-{trial}", config, folders, lambda gold=gold: gold)
        settings = (gold if config.gold_in_winners else {}, config.pairs_per_problem, config.max_length,
                    config.max_pairs, config.seed)  # fmt: skip
        whole = [build_pairs(source, *settings) for source in sources]
        expected = [pair for pairs, _ in whole for pair in pairs]
        assert read_records(folder / "pairs.parquet", PreferencePair) == expected
        counts = dict(whole[0][1])
        if len(sources) > 1:
            counts["replayed"] = len(expected) - counts["pairs"]
        assert read_json(folder / "stage.json")["counts"] == counts
        over_cap += counts["over_cap"]
        folder = boxes.gold_pair_stage(tmp_path / f"gold-{trial}", config, folders[0], lambda gold=gold: gold)
        expected = gold_pairs(sources[0], gold, config.max_length)
        assert read_records(folder / "pairs.parquet", PreferencePair) == expected
    assert over_cap, "the cap was reached in some"


def random_pairs(rng: random.Random) -> list[PreferencePair]:
    completions = graded(random_completions(rng, problems=9))
    pairs = build_pairs(completions, {"p1": [5, 6]}, 5, 10**6, 10**6, 0)[0]
    return pairs + gold_pairs(completions, {"p2": [7]}, 10**6)


def test_records_are_those_that_were_written(tmp_path):
    rng, path = random.Random(2), tmp_path / "pairs.parquet"
    pairs = random_pairs(rng)
    write_records(path, iter(pairs))
    records = parquet.Records(path, PreferencePair)
    assert (len(records), parquet.count(path)) == (len(pairs), len(pairs))
    assert list(records) == list(parquet.stream(path, PreferencePair)) == pairs
    assert [records[i] for i in range(-len(pairs), len(pairs))] == pairs + pairs
    assert records[2:-3:2] == pairs[2:-3:2]
    assert records.column("k") == [p.k for p in pairs]
    with pytest.raises(IndexError):
        records[len(pairs)]
    write_records(path, [])
    assert list(parquet.Records(path, PreferencePair)) == list(parquet.stream(path, PreferencePair)) == []
    assert parquet.Records(path, PreferencePair).column("k") == []


def test_what_a_problem_may_lack_comes_back(tmp_path):
    problems = [Problem("a", "x?", "1", None, None), Problem("b", "y?", "2", "because", ("1", "2"))]
    write_records(tmp_path / "problems.parquet", problems)
    found = read_records(tmp_path / "problems.parquet", Problem)
    assert [replace(p, choices=p.choices and tuple(p.choices)) for p in found] == problems


def test_each_distinct_response_once(tmp_path):
    pairs = random_pairs(random.Random(3))
    write_records(tmp_path / "pairs.parquet", pairs)
    responses = DistinctResponses(parquet.Records(tmp_path / "pairs.parquet", PreferencePair))
    naive = []
    for p in pairs:
        for response in (p.chosen_ids, p.rejected_ids):
            if response and (p.prompt_ids, response) not in naive:
                naive.append((p.prompt_ids, response))
    assert list(responses) == naive
    assert list(responses.keys) == [response_key(*tokens) for tokens in naive]


def test_pairs_with_their_reference(tmp_path):
    rng = random.Random(4)
    pairs = random_pairs(rng)
    write_records(tmp_path / "pairs.parquet", pairs)
    value = {response_key(p.prompt_ids, r): rng.random() for p in pairs for r in (p.chosen_ids, p.rejected_ids) if r}
    write_json(tmp_path / "logps.json", value)
    for without in ((), ("p0", "p3", "nobody")):
        found = scored_pairs(tmp_path, tmp_path, without)
        assert (
            [s.pair for s in found] == [p for p in pairs if p.problem_id not in without] == [s.pair for s in found[:]]
        )
        for s in found:
            assert s.reference_chosen_logps == value[response_key(s.pair.prompt_ids, s.pair.chosen_ids)]
            rejected = s.pair.rejected_ids
            assert s.reference_rejected_logps == (value[response_key(s.pair.prompt_ids, rejected)] if rejected else 0)


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b[:40] + b"\xff" * 60 + b[100:], lambda b: b""]
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "completions.parquet"
    write_records(path, random_completions(random.Random(5), problems=50))
    path.write_bytes(damage(path.read_bytes()))
    for read in (lambda: read_records(path, Completion), lambda: parquet.Records(path, Completion)):
        with pytest.raises(UserError, match=r"completions\.parquet is damaged"):
            read()
    with pytest.raises(FileNotFoundError):
        read_records(tmp_path / "none.parquet", Completion)
