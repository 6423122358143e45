"""The exercises as they stand in the notebooks: `python -m irpo_exercises.cells` writes them there anew."""

import ast
import inspect
import json
from pathlib import Path
from typing import Any

from irpo_exercises import BY_NOTEBOOK
from irpo_exercises.checker import Exercise

from irpo_lib.stages.store import read_json, replace_file

TAG, AFTER = "exercise", "## What you have learnt"
INTRODUCTION = """## Exercises

Fill in a function and run its cell. The checker compares it with the right one on a few inputs and says which mistake \
it sees. What is left as it is does not disturb anything: the notebook runs without it."""


def cells(exercises: list[Exercise]) -> list[tuple[str, str]]:
    """(cell type, source) of a notebook's exercises: for each the task, the stub, and hint and solution folded away."""
    found = [("markdown", INTRODUCTION), ("code", "from irpo_exercises import check")]
    for number, e in enumerate(exercises, 1):
        stub, solution = _parts(e)
        stars = "★" * e.stars + "☆" * (3 - e.stars)
        found += [
            ("markdown", f"### Exercise {number} · {stars} · {e.minutes} minutes\n\n{e.task}"),
            ("code", f"{stub}    raise NotImplementedError\n\ncheck({e.name})"),
            ("markdown", f"{_folded('Hint', e.hint)}\n\n{_folded('Solution', f'```python{chr(10)}{solution}```')}"),
        ]
    return found


def _parts(exercise: Exercise) -> tuple[str, str]:
    """The source up to the docstring's end, and the whole; both with the imports that it needs."""
    source = inspect.getsource(exercise.solution)
    docstring = ast.parse(source).body[0].body[0]  # type: ignore[attr-defined]
    head = "".join(source.splitlines(keepends=True)[: docstring.end_lineno])
    needs = f"{exercise.needs}\n\n" if exercise.needs else ""
    return needs + head, needs + source


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def write_into(notebook: Path, exercises: list[Exercise]) -> None:
    """Puts the exercises before what has been learnt, in place of those that are there; what is unchanged stays."""
    content = read_json(notebook)
    others, before = [], {}
    for cell in content["cells"]:
        if TAG in cell["metadata"].get("tags", []):
            before["".join(cell["source"])] = cell
        else:
            others.append(cell)
    place = next(i for i, c in enumerate(others) if "".join(c["source"]).startswith(AFTER))
    new = [before.get(s, _cell(kind, s)) | {"id": f"exercise-{i}"} for i, (kind, s) in enumerate(cells(exercises))]
    content["cells"] = others[:place] + new + others[place:]
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    replace_file(notebook, lambda path: path.write_text(text, encoding="utf8"))


def _cell(kind: str, source: str) -> dict[str, Any]:
    cell = {"cell_type": kind, "id": "", "metadata": {"tags": [TAG]}, "source": source.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


if __name__ == "__main__":
    for number, exercises in BY_NOTEBOOK.items():
        for notebook in Path(__file__).parents[1].glob(f"{number}_*.ipynb"):
            write_into(notebook, exercises)
            print(notebook)
