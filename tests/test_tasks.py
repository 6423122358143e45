"""The real tasks: their published formats, the paper's prompts to the letter, and tasks of one's own."""

import json
import re
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from conftest import REAL_DATA

from irpo_lib.config import load_config
from irpo_lib.errors import UserError
from irpo_lib.iteration import Experiment
from irpo_lib.records import Problem
from irpo_lib.rewards import grade
from irpo_lib.tasks import arc, get_task, gsm8k, math, read_split
from irpo_lib.tasks.sources import tell_count

GSM8K = [{"question": f"What is {n}+1?", "answer": f"It is <<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1:,}"}
         for n in (4, 1079)]  # fmt: skip
ARC = [
    {"id": "a", "question": {"stem": "Why?", "choices": [{"text": "so", "label": "A"}, {"text": "no", "label": "B"}]},
     "answerKey": "B"},
    {"id": "b", "question": {"stem": "How?", "choices": [{"text": "xyz"[i], "label": "123"[i]} for i in range(3)]},
     "answerKey": "3"},
]  # fmt: skip
SUBJECTS = math.SUBJECTS


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


def readme_example() -> str:
    text = (Path(arc.__file__).parent / "README.md").read_text(encoding="utf8")
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


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
