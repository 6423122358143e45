"""Compares the notebooks' outputs in git with those of a run: `python tests/compare_outputs.py RUN [--write]`.

RUN is what `irpo run --beyond` has made with the parameters that stand in the notebooks. Times and speeds differ from
run to run and are passed over; every other line of text must be the same, and figures must be there. `--write` puts
the run's outputs into the notebooks.
"""

import argparse
import difflib
import re
import sys
from pathlib import Path
from typing import Any

import nbformat

from irpo_lib.terminal.progress import LEFT

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
#: A line with one of these tells how long something took.
OF_THE_MACHINE = re.compile(r"\bs\b|seconds|a second|times as many|first time")


def lines(cell: Any) -> list[str]:
    """The text of a cell's outputs that is the same in each run; a figure is one line."""
    text = ""  # a kernel may send one line in two pieces
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        figure = "\na figure\n" if "image/png" in data else ""
        text += figure or output.get("text") or "\n" + (data.get("text/markdown") or data.get("text/plain", "")) + "\n"
    found = [line for line in text.splitlines() if line]
    return [line for line in found if not OF_THE_MACHINE.search(line) and not line.endswith(LEFT)]


def own_cells(notebook: Any) -> list[Any]:
    """Without what papermill puts in."""
    return [c for c in notebook.cells if "injected-parameters" not in c.metadata.get("tags", [])]


def compare(kept: Path, made: Path) -> list[str]:
    """What differs between a notebook in git and the executed one, as lines of a diff."""
    here, there = (own_cells(nbformat.read(path, 4)) for path in (kept, made))
    if [c.source for c in here] != [c.source for c in there]:
        return [f"{made} was executed from other cells than {kept} has: run it again"]
    found = []
    for number, (a, b) in enumerate(zip(here, there, strict=True)):
        if a.cell_type == "code" and "run_dir" not in a.source:
            place = f"{kept.name}, cell {number}"
            found += difflib.unified_diff(lines(a), lines(b), place, "the run", n=0, lineterm="")
    return found


def write(kept: Path, made: Path) -> None:
    """The run's outputs in place of those in git; nothing of papermill's or of the machine's comes along."""
    notebook = nbformat.read(kept, 4)
    count = 0
    for cell, executed in zip(notebook.cells, own_cells(nbformat.read(made, 4)), strict=True):
        if cell.cell_type == "code":
            count += 1  # papermill's own cell has a number in the run, and none here
            cell.execution_count = count
            cell.outputs = joined(executed.outputs)
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    nbformat.write(notebook, kept)


def joined(outputs: list[Any]) -> list[Any]:
    """What was printed in several goes is one output; progress and what libraries say on stderr are none."""
    found: list[Any] = []
    for output in outputs:
        if output.output_type == "stream":
            kept = [x for x in output.text.splitlines(keepends=True) if not x.rstrip().endswith(LEFT)]
            output.text = "".join(kept)
            if output.name == "stderr" or not output.text:
                continue
        if found and output.output_type == found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    differ = 0
    for kept in sorted(NOTEBOOKS.glob("[0-9]*.ipynb")):
        made = args.run / "notebooks" / kept.name
        if not made.is_file():
            print(f"{kept.name}: the run has not executed it")
            continue
        found = compare(kept, made)
        differ += bool(found)
        print("\n".join(found) or f"{kept.name}: the same")
        if args.write:
            write(kept, made)
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
