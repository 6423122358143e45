"""The exercises of the notebooks: a solution passes its checker, each named mistake is told from the others."""

import json
import re
from pathlib import Path

import pytest
from irpo_exercises import BY_NOTEBOOK, EXERCISES, check
from irpo_exercises.cells import TAG, cells, write_into
from irpo_exercises.checker import outcome, same, verdict

from irpo_lib.terminal.errors import UserError

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
ALL = pytest.mark.parametrize("exercise", EXERCISES.values(), ids=EXERCISES)
EVERY_NOTEBOOK = pytest.mark.parametrize("number", BY_NOTEBOOK)


def notebook(number: str) -> Path:
    (found,) = NOTEBOOKS.glob(f"{number}_*.ipynb")
    return found


def tagged(number: str) -> list[tuple[str, str]]:
    """(cell type, source) of the exercises that stand in a notebook."""
    content = json.loads(notebook(number).read_text(encoding="utf8"))["cells"]
    return [(c["cell_type"], "".join(c["source"])) for c in content if TAG in c["metadata"].get("tags", [])]


def defined(code: str, name: str):
    """The function that a cell of the notebook defines."""
    space: dict = {"check": lambda function: None}
    exec(code, space)
    return space[name]


def test_there_are_at_least_three_a_notebook():
    assert all(len(exercises) >= 3 for exercises in BY_NOTEBOOK.values())
    assert len(EXERCISES) == sum(map(len, BY_NOTEBOOK.values())) >= 25  # no name twice


@EVERY_NOTEBOOK
def test_the_notebook_has_the_exercises_as_they_are(number):
    assert tagged(number) == cells(BY_NOTEBOOK[number])


@EVERY_NOTEBOOK
def test_stubs_and_solutions_as_they_stand_in_the_notebook(number):
    found = tagged(number)
    stubs = [source for kind, source in found if kind == "code"][1:]
    folded = [source for kind, source in found if "<summary>Solution</summary>" in source]
    assert len(stubs) == len(folded) == len(BY_NOTEBOOK[number])
    for exercise, stub, text in zip(BY_NOTEBOOK[number], stubs, folded, strict=True):
        solution = re.search(r"```python\n(.*?)```", text, re.S)[1]
        assert verdict(defined(stub, exercise.name), exercise).startswith(f"○ {exercise.name}: not filled in")
        assert verdict(defined(solution, exercise.name), exercise).startswith(f"✓ {exercise.name}: right")


@ALL
def test_each_named_mistake_is_named(exercise):
    assert len(exercise.mistakes) >= 3 or exercise.name in ("different_pairs",)
    for sentence, mistake in exercise.mistakes.items():
        assert verdict(mistake, exercise).startswith(f"✗ {exercise.name}: {sentence}. "), sentence


@ALL
def test_an_unknown_mistake_is_shown_by_an_input(exercise):
    said = verdict(lambda *arguments: "something else", exercise)
    assert said.startswith(f"✗ {exercise.name}: {exercise.name}(")
    assert "gives 'something else', not " in said


@ALL
def test_no_input_is_wanted_to_fail(exercise):
    for arguments in exercise.inputs:
        assert not isinstance(outcome(exercise.solution, arguments), Exception)


def test_an_attempt_that_raises_is_told_so():
    said = verdict(lambda *arguments: 1 / 0, EXERCISES["nll"])
    assert "gives ZeroDivisionError: division by zero, not 2.5" in said


def test_an_attempt_cannot_change_the_inputs():
    def greedy(winners, losers, k):
        return [(winners.pop(0), losers.pop(0))] if winners else []

    before = [tuple(map(list, arguments[:2])) for arguments in EXERCISES["walk"].inputs]
    verdict(greedy, EXERCISES["walk"])
    assert before == [tuple(map(list, arguments[:2])) for arguments in EXERCISES["walk"].inputs]


def test_check_prints_and_knows_names(capsys):
    def nll(token_logps, prompt_length):
        return -sum(token_logps[prompt_length:]) / len(token_logps)

    check(nll)
    assert "the NLL is divided by the prompt's length too" in capsys.readouterr().out

    def nnl():
        return 0

    with pytest.raises(UserError, match=r"no exercise is called 'nnl'.*nll"):
        check(nnl)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (1.0, 1.0 + 1e-9, True), (1.0, 1.001, False), ((1, 2), [1, 2], True), ([1], [1, 2], False), (None, 0, False),
        (float("nan"), float("nan"), True), ({"a": 1}, {"a": 1.0}, True), (ValueError("x"), ValueError("y"), True),
        (ValueError("x"), KeyError("x"), False), ("a", "a", True), (1.0, "1.0", False), (None, None, True),
    ],
)  # fmt: skip
def test_same(a, b, equal):
    assert same(a, b) is equal


def test_writing_twice_changes_nothing_and_keeps_outputs_and_the_other_cells(tmp_path):
    copy = tmp_path / "copy.ipynb"
    others = [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": ["# Title"]},
        {"cell_type": "markdown", "id": "b", "metadata": {}, "source": ["## What you have learnt\n", "- much"]},
    ]
    copy.write_text(json.dumps({"cells": others, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}), encoding="utf8")
    write_into(copy, BY_NOTEBOOK["04"])
    content = json.loads(copy.read_text(encoding="utf8"))
    ran = next(c for c in content["cells"] if c["cell_type"] == "code")
    ran["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["○ not filled in yet"]}]
    once = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    copy.write_text(once, encoding="utf8")
    write_into(copy, BY_NOTEBOOK["04"])
    assert copy.read_text(encoding="utf8") == once
    written = json.loads(once)["cells"]
    assert [c for c in written if not c["metadata"]] == others
    assert written[0] == others[0]
    assert written[-1] == others[1]
