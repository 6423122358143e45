"""The real tasks: their published formats, the paper's prompts to the letter, and tasks of one's own."""

import csv
import json
import re
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from conftest import REAL_DATA

from irpo_lib.config import load_config, parse_overrides
from irpo_lib.iteration import Experiment
from irpo_lib.records import Completion, PreferencePair, Problem
from irpo_lib.rewards import grade
from irpo_lib.stages.samples import shards
from irpo_lib.stages.store import read_json, read_records
from irpo_lib.tasks import Task, arc, get_task, gsm8k, math, read_split
from irpo_lib.tasks.sources import tell_count
from irpo_lib.terminal.cli import main
from irpo_lib.terminal.errors import UserError

GSM8K = [{"question": f"What is {n}+1?", "answer": f"It is <<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1:,}"}
         for n in (4, 1079)]  # fmt: skip
ARC = [
    {"id": "a", "question": {"stem": "Why?", "choices": [{"text": "so", "label": "A"}, {"text": "no", "label": "B"}]},
     "answerKey": "B"},
    {"id": "b", "question": {"stem": "How?", "choices": [{"text": "xyz"[i], "label": "123"[i]} for i in range(3)]},
     "answerKey": "3"},
]  # fmt: skip
SUBJECTS = math.SOURCE.splits["train"]["configs"]


def math_row(n: int, answer: str | None = None) -> dict:
    answer = str(n) if answer is None else answer
    return {"problem": f"Find ${n}$.", "level": "Level 1", "type": "Algebra", "solution": f"So $\\boxed{{{answer}}}$."}


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), encoding="utf8")
    return path


def write_parquet(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def hub_arc(row: dict) -> dict:
    choices = row["question"]["choices"]
    return {"id": row["id"], "question": row["question"]["stem"], "answerKey": row["answerKey"],
            "choices": {"text": [c["text"] for c in choices], "label": [c["label"] for c in choices]}}  # fmt: skip


# --- formats ---


@pytest.mark.parametrize(
    ("name", "write"), [("train.jsonl", write_jsonl), ("main/train-00000-of-00001.parquet", write_parquet)]
)
def test_gsm8k_from_its_file_and_as_the_hub_serves_it(tmp_path, capsys, name, write):
    tell_count.cache_clear()
    write(tmp_path / name, GSM8K)
    problems = read_split(get_task("gsm8k", str(tmp_path)), "train")
    assert [p.answer for p in problems] == ["5", "1080"]
    assert problems[1].gold_solution == "It is 1080.\nFinal answer: 1,080"
    assert "2 problems where the published one has 7,473" in capsys.readouterr().out


def test_arc_from_the_archive_from_plain_files_and_as_the_hub_serves_it(tmp_path):
    for folder, split in (("a", "Train"), ("a", "Dev")):
        write_jsonl(tmp_path / folder / f"ARC-Easy/ARC-Easy-{split}.jsonl", ARC[:1])
        write_jsonl(tmp_path / folder / f"ARC-Challenge/ARC-Challenge-{split}.jsonl", ARC[1:])
    write_jsonl(tmp_path / "b/arc_easy.train.jsonl", ARC[:1])
    write_jsonl(tmp_path / "b/arc_challenge.train.jsonl", ARC[1:])
    write_parquet(tmp_path / "c/ARC-Easy/train-00000-of-00001.parquet", [hub_arc(ARC[0])])
    write_parquet(tmp_path / "c/ARC-Challenge/train-00000-of-00001.parquet", [hub_arc(ARC[1])])
    found = [read_split(get_task("arc", str(tmp_path / f)), "train") for f in "abc"]
    assert found[0] == found[1] == found[2]
    assert found[0] == [Problem("a", "Why?", "B", None, ("so", "no")), Problem("b", "How?", "C", None, ("x", "y", "z"))]
    assert len(read_split(get_task("arc", str(tmp_path / "a")), "dev")) == 2


def test_digit_labels_are_letters_in_the_prompt_and_in_the_answer():
    item = arc.problem(("", ARC[1]))
    assert "(A) x\n(B) y\n(C) z" in arc.prompt(item)
    assert grade("arc", item.answer, "Final answer: (C) z", item.choices)
    assert not grade("arc", item.answer, "Final answer: 3", item.choices)


def test_math_from_its_folders_from_lines_and_as_the_hub_serves_it(tmp_path, capsys):
    rows = {subject: [math_row(10 * i + j) for j in range(3)] for i, subject in enumerate(SUBJECTS)}
    for subject, some in rows.items():
        for n, row in enumerate(some):
            path = tmp_path / f"a/train/{subject}/{n}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(row))
        write_parquet(tmp_path / f"c/{subject}/train-00000-of-00001.parquet", some)
    write_jsonl(tmp_path / "b/train.jsonl", [r for some in rows.values() for r in some])
    found = [read_split(get_task("math", str(tmp_path / f)), "train") for f in "abc"]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 21 - math.SHOTS
    assert found[0][0].gold_solution == "So $\\boxed{1}$.\nFinal answer: \\boxed{1}"


def test_the_four_examples_are_of_four_parts_of_the_training_set_and_stand_in_no_split(tmp_path):
    rows = [math_row(n) for n in range(40)]
    rows[10]["solution"] = "long " * 200 + rows[10]["solution"]
    write_jsonl(tmp_path / "train.jsonl", rows)
    shots = math.examples(str(tmp_path))
    assert [p.answer for p in shots] == ["0", "9", "20", "30"]
    assert not {p.id for p in shots} & {p.id for p in read_split(get_task("math", str(tmp_path)), "train")}


def test_math_problems_with_an_empty_box_are_left_out_and_counted(tmp_path, capsys):
    write_jsonl(tmp_path / "test.jsonl", [math_row(1), math_row(2, ""), math_row(3)])
    problems = read_split(get_task("math", str(tmp_path)), "test")
    assert [p.answer for p in problems] == ["1", "3"]
    assert "1 problems with an empty answer are left out" in capsys.readouterr().out


# --- bad input: one sentence each ---


@pytest.mark.parametrize(
    ("task", "rows", "message"),
    [
        ("gsm8k", [{"question": "What?", "answer": "five"}], r"train\.jsonl, line 1: 'answer' must end with '#### NUM"),
        ("gsm8k", [{"question": "What?"}], r"train\.jsonl, line 1: 'answer' is missing or empty"),
        ("math", [{"problem": "What?", "solution": "5"}], r"train\.jsonl, line 1: 'solution' must hold its answer in"),
        ("math", [math_row(1)], "1 training problems are short enough for the 4 examples"),
    ],
)
def test_malformed_rows(tmp_path, task, rows, message):
    write_jsonl(tmp_path / "train.jsonl", rows)
    with pytest.raises(UserError, match=message):
        read_split(get_task(task, str(tmp_path)), "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answerKey": "C"}, "line 1: 'answerKey' is 'C', none of the labels A, B"),
        ({"question": {"stem": "Why?", "choices": []}}, "line 1: a question and two to five choices"),
        ({"question": {"stem": "Why?", "choices": ["so", "no"]}}, "line 1: a question and two to five choices"),
        ({"question": "Why?"}, "line 1: a question and two to five choices"),
    ],
)
def test_malformed_arc(tmp_path, change, message):
    path = write_jsonl(tmp_path / "items.jsonl", [ARC[0] | change])
    with pytest.raises(UserError, match=message):
        read_split(get_task("arc", str(path)), "test")


def test_missing_files_name_the_layouts_that_would_do(tmp_path):
    with pytest.raises(UserError, match=r"holds no 'test' split of task gsm8k: expected test\.jsonl; or main/test"):
        read_split(get_task("gsm8k", str(tmp_path)), "test")
    with pytest.raises(UserError, match="gone does not exist"):
        read_split(get_task("gsm8k", str(tmp_path / "gone")), "test")
    with pytest.raises(UserError, match="task gsm8k has no split 'dev', only train, test"):
        read_split(get_task("gsm8k", str(tmp_path)), "dev")


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with pytest.raises(
        UserError, match=r"openai/gsm8k \(main\) can be read neither from the hub nor from its cache: dow"
    ):
        read_split(get_task("gsm8k"), "test")


# --- prompts ---


def test_prompts_are_appendix_b1s():
    """Against the paper's text, where that is at hand; line breaks are the paper's page's, not the prompt's."""
    path = REAL_DATA.parent / "paper" / "paper.txt"
    if not path.is_file():
        pytest.skip("the paper's text is not here")
    paper = " ".join(path.read_text(encoding="utf8").split())
    shots = tuple(Problem("", f"[question for the {n} example]", "", None) for n in ("first", "second"))
    for prompt in (
        gsm8k.prompt(Problem("", "[question here]", "")),
        arc.prompt(Problem("", "[question here]", "A", None, tuple(f"[option {x} here]" for x in "ABCD"))),
    ):
        assert " ".join(prompt.split()) in paper
    head, _, _ = math.prompt(Problem("", "", ""), shots).partition("Question:")
    assert " ".join(head.split()) in paper


def test_the_math_prompt_shows_four_solved_examples_then_the_question():
    shots = tuple(Problem(str(n), f"q{n}", "", f"s{n}\nFinal answer: \\boxed{{{n}}}") for n in range(4))
    prompt = math.prompt(Problem("", "What now?", ""), shots)
    shown = "".join(f"Question: q{n}\nSolution: s{n}\nFinal answer: \\boxed{{{n}}}\n" for n in range(4))
    assert prompt.endswith(f'"Final answer: ..."\n{shown}Question: What now?\nSolution:')


# --- a task of one's own ---


def readme_example(number: int = 0) -> str:
    text = (Path(arc.__file__).parent / "README.md").read_text(encoding="utf8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)[number]


def test_the_readmes_task_runs(tmp_path, small_config):
    path = tmp_path / "sevens.py"
    path.write_text(readme_example())
    config = load_config("mini", str(path), model=small_config.model, iterations=1, temperatures=[1.0], samples=2,
                         train_problems=4, test_problems=3, majority_iterations=[], max_new_tokens=8, max_steps=1,
                         checkpoint_every=1)  # fmt: skip
    experiment = Experiment(config, tmp_path / "run")
    experiment.evaluate(0)
    experiment.evaluate(1)
    assert read_split(get_task(str(path)), "test")[0].answer == "1400"


SHORT = {"iterations": 1, "temperatures": [1.0], "samples": 4, "train_problems": 6, "test_problems": 5,
         "majority_iterations": [0, 1], "max_new_tokens": 80, "max_steps": 2, "checkpoint_every": 1,
         "probe_every": 1}  # fmt: skip


def test_the_readmes_reward_runs_to_the_end_without_a_vote(tmp_path, capsys):
    path, run = tmp_path / "lipogram.py", tmp_path / "run"
    path.write_text(readme_example(1))
    experiment = Experiment(load_config("mini", str(path), **SHORT | {"max_new_tokens": 56}), run)
    experiment.run()

    def expected(text: str) -> float:
        return 1 - sum("e" in w for w in text.split()) / len(text.split()) if text.split() else 0

    sampled = read_records(experiment.reward(1) / "completions.parquet", Completion)
    assert [c.reward for c in sampled] == pytest.approx([expected(c.text) for c in sampled])
    assert any(0 < c.reward < 1 for c in sampled)
    assert any(c.finish_reason == "length" and c.reward for c in sampled), "what was cut has a reward"
    own = {(c.problem_id, tuple(c.token_ids)): c for c in sampled}
    pairs = read_records(experiment.pair(1) / "pairs.parquet", PreferencePair)
    assert pairs
    for p in pairs:
        chosen, rejected = (own[p.problem_id, tuple(ids)] for ids in (p.chosen_ids, p.rejected_ids))
        assert chosen.reward > rejected.reward
        assert chosen.finish_reason == "stop"
    for t in (0, 1):
        greedy = read_records(shards(experiment.evaluate(t) / "greedy"), Completion)
        summary = read_json(experiment.evaluate(t) / "summary.json")
        assert summary["greedy"]["accuracy"] == pytest.approx(sum(expected(c.text) for c in greedy) / 5)
        assert summary.keys() == {"greedy"}
        assert not (experiment.evaluate(t) / "majority.csv").exists()
    for command in ("table", "status", "report"):
        assert main([command, str(run)]) == 0
    assert "maj" not in capsys.readouterr().out
    rows = list(csv.DictReader((run / "results" / "table.csv").open()))
    assert [(r["model"], r["measure"]) for r in rows] == [("M1", "greedy"), ("M0", "greedy")]
    assert float(rows[0]["accuracy"]) == pytest.approx(100 * summary["greedy"]["accuracy"], abs=0.06)
    assert (run / "results" / "accuracy-lipogram.png").is_file()
    assert "majority vote" not in (run / "results" / "report.html").read_text()


@pytest.mark.parametrize(
    ("reward", "message"),
    [
        (lambda r, p: 1 / 0, "cannot be computed: ZeroDivisionError: division by zero"),
        (lambda r, p: float("nan"), "is nan: it must be a finite number"),
        (lambda r, p: float("inf"), "is inf: it must be a finite number"),
        (lambda r, p: "0.5", "is '0.5': it must be a finite number"),
        (lambda r, p: None, "is None: it must be a finite number"),
    ],
)
def test_a_reward_that_is_none_is_one_sentence(reward, message):
    with pytest.raises(UserError, match=f"^task mine, problem 'a-7': the reward {message}$"):
        Task("mine", lambda split: [], str, reward=reward).score("yes", Problem("a-7", "", ""))


def test_a_task_judges_in_one_way_at_least():
    with pytest.raises(UserError, match="task mine must have `normalise`, or a `reward` of its own"):
        Task("mine", lambda split: [], str)
    with pytest.raises(UserError, match="task mine has no `normalise`, without which no answer is compared"):
        Task("mine", lambda split: [], str, reward=lambda r, p: 1).is_correct("7", Problem("", "", "7"))


# --- reasoning_gym ---


@pytest.mark.parametrize("name", ["gcd", "power_function"])
def test_two_generators_of_reasoning_gym_run_to_the_end(name, tmp_path):
    """Rewards against the library's own, of entries that it makes again."""
    library = pytest.importorskip("reasoning_gym", reason="the package reasoning-gym is not installed")
    config = load_config("mini", f"reasoning_gym:{name}", task_path='{"size": 12}', **SHORT)
    experiment = Experiment(config, tmp_path)
    experiment.run()
    dataset = library.create_dataset(name, size=12, seed=0)
    entries = {entry["question"]: entry for entry in dataset}
    problems = {p.id: p for p in experiment.train_problems()}
    sampled = read_records(experiment.reward(1) / "completions.parquet", Completion)
    for c in sampled:
        answer = re.findall(r"Final answer:(.*)", c.text)
        entry = entries[problems[c.problem_id].question]
        assert c.reward == dataset.score_answer(answer[-1].strip(), entry) if answer else c.reward in (0, 0.01)
    assert len({c.reward for c in sampled}) > 1
    assert read_json(experiment.pair(1) / "stage.json")["counts"]["pairs"] > 0
    assert read_json(experiment.evaluate(1) / "summary.json")["greedy"]["problems"] == 5


@pytest.mark.parametrize("name", ["chain_sum", "coin_flip"])
def test_no_question_stands_in_two_splits(name):
    """Coins have 260 different questions: each split has its share."""
    pytest.importorskip("reasoning_gym", reason="the package reasoning-gym is not installed")
    splits = [read_split(get_task(f"reasoning_gym:{name}"), split) for split in ("train", "dev", "test")]
    questions = [p.question for some in splits for p in some]
    assert len(questions) == len(set(questions))
    assert all(len(some) > 50 for some in splits)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("chain_sun", None, "reasoning_gym has no generator 'chain_sun'; did you mean 'chain_sum'"),
        ("gcd", '{"sise": 3}', "reasoning_gym's gcd has no setting 'sise'; did you mean 'size'"),
        ("chain_sum", '{"size": 0}', "chain_sum does not take these settings .*size must be positive"),
        ("gcd", '{"size": 2.5}', "gcd does not take these settings"),
        ("gcd", "{size}", "must be a JSON object of settings, or a file of one"),
        ("gcd", "gone.json", "must be a JSON object of settings, or a file of one"),
    ],
)
def test_what_reasoning_gym_does_not_have_is_one_sentence(name, settings, message):
    pytest.importorskip("reasoning_gym", reason="the package reasoning-gym is not installed")
    with pytest.raises(UserError, match=message):
        get_task(f"reasoning_gym:{name}", settings)


def test_settings_of_reasoning_gym_as_they_are_given(tmp_path):
    given = parse_overrides(['task_path={"size": 7, "seed": 3}'])
    assert load_config("mini", "reasoning_gym:gcd", **given).task_path == '{"size": 7, "seed": 3}'
    pytest.importorskip("reasoning_gym", reason="the package reasoning-gym is not installed")
    (tmp_path / "gcd.json").write_text('{"size": 7, "seed": 3}')
    found = [read_split(get_task("reasoning_gym:gcd", p), "test") for p in (given["task_path"], f"{tmp_path}/gcd.json")]
    assert found[0] == found[1]
    assert len(found[0]) <= 7


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", None)
    with pytest.raises(UserError, match=r'pip install "irpo\[reasoning-gym\]"'):
        get_task("reasoning_gym:gcd", '{"size": 1}')


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "must define `task`"),
        ("task = 'gsm8k'", "must define `task`"),
        ("1/0", "cannot be run: ZeroDivisionError"),
        ("def", "cannot be run: SyntaxError"),
    ],
)
def test_a_task_file_without_a_task(tmp_path, text, message):
    path = tmp_path / "my_task.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        get_task(str(path))
    with pytest.raises(UserError, match="does not exist"):
        get_task(str(tmp_path / "gone.py"))
