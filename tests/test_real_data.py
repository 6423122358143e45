"""Real problems and real model text: GSM8K, GPT-3's published solutions to it, ARC. Skipped where they are absent."""

import json
import re
from collections import Counter, defaultdict

import pytest
from architectures import BEGIN, write_model
from conftest import REAL_DATA
from helpers import build_pairs

from irpo_lib.config import load_config
from irpo_lib.iteration import Experiment
from irpo_lib.models.load import end_token_id, load_tokenizer
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.rewards import reward
from irpo_lib.stages.store import read_records
from irpo_lib.tasks import get_task, gsm8k
from irpo_lib.tasks.letters import letter
from irpo_lib.terminal.errors import UserError

pytestmark = pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"{REAL_DATA} is absent")
#: It has GSM8K's answer format.
TASK = get_task("gsm8k-mini")


@pytest.fixture(scope="module")
def problems() -> dict[str, Problem]:
    return {p.question: p for p in gsm8k.read("test", str(REAL_DATA / "gsm8k"))}


@pytest.fixture(scope="module")
def generations() -> list[dict]:
    path = REAL_DATA / "generations" / "gsm8k_openai_example_solutions.jsonl"
    return [json.loads(line) for line in path.open(encoding="utf8")]


@pytest.fixture(scope="module")
def completions(problems, generations) -> list[Completion]:
    """The real texts in the paper's answer format, rewarded; bytes stand for token ids."""
    found, drawn = [], Counter()
    for row in generations:
        problem = problems[row["question"]]
        text = re.sub(r"^A:", "Final answer:", row["response"], flags=re.MULTILINE)
        prompt = list(TASK.prompt(problem).encode())
        completion = Completion(problem.id, drawn[problem.id], prompt, list(text.encode()), text, "stop")
        drawn[problem.id] += 1
        found.append(reward(completion, problem, TASK))
    return found


@pytest.mark.parametrize(("split", "size"), [("train", 7473), ("test", 1319)])
def test_every_gold_solution_of_gsm8k_has_its_answer(split, size):
    problems = gsm8k.read(split, str(REAL_DATA / "gsm8k"))
    assert len(problems) == size
    assert len({p.id for p in problems}) == size
    for problem in problems:
        assert re.fullmatch(r"-?\d+", problem.answer), problem.answer
        assert TASK.is_correct(TASK.extract(problem.gold_solution, problem), problem), problem.id
        assert "<<" not in problem.gold_solution
        assert "####" not in problem.gold_solution


def test_published_labels_of_real_generations(completions, generations):
    pairs = [(c.reward == 1, row["label"]) for c, row in zip(completions, generations, strict=True)]
    agreement = sum(ours == theirs for ours, theirs in pairs) / len(pairs)
    print(f"\nagreement with {len(pairs)} published labels: {agreement:.4f} ({sum(x for x, _ in pairs)} right)")
    assert len(pairs) == 5276
    assert sum(theirs for _, theirs in pairs) == 2001
    assert agreement == 1


def test_texts_without_the_marker_have_no_answer(completions, generations):
    """The text as published, "A: 18", is not in the paper's format."""
    for completion, row in zip(completions, generations, strict=True):
        assert TASK.extract(row["response"], Problem("", "", row["gold"])) is None
        assert (completion.answer is None) <= (completion.reward == 0)


@pytest.mark.parametrize("with_gold", [True, False])
def test_pairs_of_real_generations(completions, problems, with_gold):
    k = 10
    gold = {p.id: list(p.gold_solution.encode()) for p in problems.values()} if with_gold else {}
    pairs, counts = build_pairs(completions, gold, k, 10**6, 10**6, 0)
    right, wrong = defaultdict(list), defaultdict(list)
    for c in completions:
        (right if c.reward == 1 else wrong)[c.problem_id].append(c.token_ids)
    both = {i for i in wrong if with_gold or i in right}
    assert Counter(p.problem_id for p in pairs) == dict.fromkeys(both, k)
    assert counts["problems"] == 1319
    assert counts["without_winner"] + counts["without_loser"] + len(both) == 1319
    assert (counts["pairs"], counts["too_long"], counts["over_cap"]) == (len(pairs), 0, 0)
    by_id = {p.id: p for p in problems.values()}
    for pair in pairs:
        problem = by_id[pair.problem_id]
        expected = [*right[problem.id], gold[problem.id]] if with_gold else right[problem.id]
        assert pair.chosen_ids == expected[pair.k % len(expected)]
        assert pair.rejected_ids == wrong[problem.id][pair.k % len(wrong[problem.id])]
        assert pair.chosen_source == ("gold" if with_gold and pair.k % len(expected) == len(expected) - 1 else "model")
        chosen, rejected = bytes(pair.chosen_ids).decode(), bytes(pair.rejected_ids).decode()
        assert TASK.is_correct(TASK.extract(chosen, problem), problem)
        assert not TASK.is_correct(TASK.extract(rejected, problem), problem)


def test_every_option_of_arc_is_found_with_and_without_its_text():
    """Options such as "A cold front" or "vitamin C" hold what looks like a second label.

    Without a label an option is found by its words, but for those that differ in case alone ("Rr", "RR"), are of one
    character, or stand in a sentence that they make a denial of ("claws that do not retract").
    """
    items, in_sentences = 0, Counter()
    for path in sorted((REAL_DATA / "arc").glob("arc_*.*.jsonl")):
        for line in path.open(encoding="utf8"):
            options = tuple(c["text"] for c in json.loads(line)["question"]["choices"])
            if len(options) > 5:
                continue
            items += 1
            for label, text in zip("ABCDE", options, strict=False):
                for answer in (
                    label,
                    f"({label})",
                    f"({label}) {text}",
                    f"{label}. {text}.",
                    f"{label.lower()}) {text}",
                ):
                    assert letter(answer, options) == label, (answer, options)
                if len(text.strip(" .")) > 1:
                    same = [o for o in options if o.strip(" .").lower() == text.strip(" .").lower()]
                    assert letter(text, options) == (label if len(same) == 1 else None), (text, options)
                    in_sentences[letter(f"It is {text}", options) == label] += 1
    assert items > 7000
    assert in_sentences[False] < 0.03 * in_sentences.total()


@pytest.mark.parametrize(("name", "task", "rank"), [("qwen-2", "gsm8k", 0), ("llama-2", "arc", 2)])
def test_the_loop_runs_on_real_problems(name, task, rank, tmp_path):
    """Mechanically: a random model learns nothing. No doubled BOS, one end token a finished response."""
    folder = write_model(name, tmp_path / "model")
    tokenizer = load_tokenizer(folder)
    config = load_config(
        "mini", task, task_path=str(REAL_DATA / task), model=folder, lora_rank=rank, iterations=1, temperatures=[1.0],
        train_problems=40, test_problems=40, samples=2, max_new_tokens=12, max_steps=2, checkpoint_every=2,
        majority_iterations=[], gold_in_winners=task == "gsm8k", max_length=1024,
    )  # fmt: skip
    experiment = Experiment(config, tmp_path / "run")
    if task == "gsm8k":
        experiment.run()
        pairs = read_records(experiment.pair(1) / "pairs.parquet", PreferencePair)
        assert pairs
        assert all(p.chosen_ids.count(end_token_id(tokenizer)) == 1 for p in pairs)
    else:  # a random model is never right, and without gold solutions there is no winner to train on
        with pytest.raises(UserError, match="no preference pair"):
            experiment.run()
    completions = read_records(experiment.reward(1) / "completions.parquet", Completion)
    assert len(completions) == 80
    begin = BEGIN.get(name)
    for c in completions:
        assert c.token_ids.count(end_token_id(tokenizer)) == (c.finish_reason == "stop")
        assert begin is None or c.prompt_ids.count(tokenizer.convert_tokens_to_ids(begin)) == 1
