"""The notebooks: fit to be read in git, and executed as a program by `irpo run`."""

import ast
import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import wait_until
from irpo_course import program

from irpo_lib.terminal.errors import UserError

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: Small enough for a minute, large enough for every cell to have something to show.
SMALL = {
    "train_problems": 48, "test_problems": 40, "majority_problems": 8, "majority_samples": 8, "samples": 6,
    "max_steps": 6, "checkpoint_every": 3, "problems_per_shard": 16, "probe_every": 3, "probe_pairs": 8,
}  # fmt: skip


IRPO = [sys.executable, "-m", "irpo_lib.terminal.cli"]
OFFLINE = os.environ | {"HF_HUB_OFFLINE": "1"}


def irpo(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([*IRPO, *arguments], cwd=ROOT, env=OFFLINE, capture_output=True, text=True, check=False)


def kill_papermill(arguments: list[str], run_dir: Path) -> None:
    """Sends SIGKILL to `irpo run`, in whose process papermill is, as soon as its kernel has finished a shard."""
    partial = run_dir / "iteration-1" / "generate.partial"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen([*IRPO, *arguments], cwd=ROOT, env=OFFLINE, **quiet) as process:
        wait_until(lambda: any(partial.glob("shard-*.parquet")), process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.kill()
    assert children, "papermill had started no kernel"
    wait_until(lambda: not any(running(child) for child in children), seconds=30)


def running(process: str) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebook_in_git_can_be_read(path):
    notebook = json.loads(path.read_text(encoding="utf8"))
    code = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    lengths = sorted(len("".join(c["source"]).splitlines()) for c in code)
    outputs = [o for c in code for o in c["outputs"]]
    assert "widgets" not in notebook["metadata"]
    assert sum("parameters" in c["metadata"].get("tags", []) for c in code) == 1
    assert outputs, "no outputs are kept"
    assert not [o for o in outputs if o["output_type"] == "error"]
    assert not [o for o in outputs if o.get("name") == "stderr"], "noise on stderr"
    assert lengths[-1] <= 25
    assert lengths[len(lengths) // 2] <= 8
    assert path.stat().st_size < 1_000_000
    text = json.dumps(notebook)
    assert str(Path.home()) not in text.replace("/root/", str(Path.home()) + "/")
    assert "site-packages" not in text
    assert "/work/" not in text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_what_a_notebook_imports_of_the_project_is_there(path):
    cells = [c for c in json.loads(path.read_text(encoding="utf8"))["cells"] if c["cell_type"] == "code"]
    imports = [node for c in cells for node in ast.walk(ast.parse("".join(c["source"])))
               if isinstance(node, ast.ImportFrom) and str(node.module).startswith("irpo_")]  # fmt: skip
    assert imports
    for node in imports:
        exec(ast.unparse(node), {})


def settings(iterations: int, **changes) -> dict:
    temperatures, votes = [0.8, 1.0][:iterations], [0, 2][:iterations]
    return SMALL | {"iterations": iterations, "temperatures": temperatures, "majority_iterations": votes} | changes


def accuracies(run_dir: Path) -> dict[tuple[str, str], int]:
    """(model, measure) → samples a problem, of the table that the notebooks leave."""
    with (run_dir / "results" / "table.csv").open(encoding="utf8") as file:
        return {(row["model"], row["measure"]): int(row["samples_a_problem"]) for row in csv.DictReader(file)}


@pytest.mark.slow  # the whole course as a user runs it
def test_irpo_run_executes_the_course(tmp_path):
    run_dir = tmp_path / "run"
    arguments = ["run", "--preset", "mini", "--task", "gsm8k-mini", "--beyond", "--run-dir", str(run_dir)]
    arguments += [x for key, value in settings(2).items() for x in ("--set", f"{key}={value}")]
    kill_papermill(arguments, run_dir)
    first = irpo(*arguments)
    assert first.returncode == 0, first.stderr
    assert sorted(p.name for p in (run_dir / "notebooks").glob("*.ipynb")) == [p.name for p in NOTEBOOKS]
    rows = accuracies(run_dir)
    loop = {("M0", "greedy"): 1, ("M0", "majority"): 8, ("M1", "greedy"): 1, ("M2", "greedy"): 1, ("M2", "majority"): 8}
    assert loop.items() <= rows.items()
    assert {("sft-chosen", "greedy"), ("dpo", "greedy"), ("dpo-from-sft", "greedy")} <= rows.keys()
    assert (run_dir / "results" / "accuracy-gsm8k-mini.pdf").read_bytes().startswith(b"%PDF")

    files = {p: p.stat().st_mtime_ns for p in run_dir.rglob("*") if p.is_file()}
    second = irpo(*arguments)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("done before") == len(NOTEBOOKS)
    assert files == {p: p.stat().st_mtime_ns for p in run_dir.rglob("*") if p.is_file()}

    status = irpo("status", str(run_dir))
    assert "iteration-2/evaluate" in status.stdout


@pytest.mark.slow  # papermill itself, on the notebooks whose text and numbers depend on the task; the others run above
@pytest.mark.parametrize(
    ("task", "iterations", "changes", "names"),
    [
        ("arc-mini", 2, {}, ("02_rewards", "03_preference_pairs", "05_logprob_diagnostics", "06_iterations")),
        ("math-mini", 1, {"alpha": 0}, ("02_rewards", "06_iterations")),
    ],
)
def test_papermill_executes_the_notebooks_on_other_tasks(task, iterations, changes, names, tmp_path):
    parameters = {"task": task, "run_dir": str(tmp_path), "overrides": settings(iterations, **changes)}
    (tmp_path / "parameters.yaml").write_text(json.dumps(parameters))
    for name in names:
        papermill = [sys.executable, "-m", "papermill", "--no-progress-bar", "-f", str(tmp_path / "parameters.yaml")]
        where = [str(ROOT / "notebooks" / f"{name}.ipynb"), str(tmp_path / f"{name}.ipynb")]
        done = subprocess.run([*papermill, *where], cwd=ROOT, env=OFFLINE, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    rows = accuracies(tmp_path)
    last = f"M{iterations}"
    assert {
        ("M0", "greedy"): 1,
        ("M0", "majority"): 8,
        ("M1", "greedy"): 1,
        (last, "greedy"): 1,
    }.items() <= rows.items()
    assert rows.get((last, "majority")) == (8 if iterations == 2 else None)
    assert (tmp_path / "results" / f"accuracy-{task}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow  # `irpo run` in a process of its own
def test_a_failing_notebook_ends_in_one_sentence(tmp_path):
    changes = SMALL | {"train_problems": 2, "samples": 1, "gold_in_winners": "false", "max_length": 1}
    arguments = [x for key, value in changes.items() for x in ("--set", f"{key}={value}")]
    failed = irpo("run", "--run-dir", str(tmp_path / "run"), *arguments)
    assert failed.returncode == 1
    assert failed.stderr.startswith("irpo: ")
    assert len(failed.stderr.strip().splitlines()) == 1
    assert "Traceback" not in failed.stderr


#: papermill interrupts the kernel as soon as this answer is there; the kernel is often still in its handler.
SLOW_TO_LEAVE = """
import time
kernel = get_ipython().kernel
answer = kernel.shell_handlers["kernel_info_request"]
async def slowly(*request):
    await answer(*request)
    time.sleep(2)
kernel.shell_handlers["kernel_info_request"] = slowly
raise ValueError("this cell fails")
"""
#: As the system does where memory runs out.
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"


def run_one(source: str, folder: Path) -> None:
    """Runs a course of one notebook, which has one cell."""
    parameters = "\n".join(f"{name} = None" for name in ("preset", "task", "run_dir", "seed", "overrides"))
    cells = [
        {"cell_type": "code", "metadata": {"tags": tags}, "source": text, "outputs": [], "execution_count": None}
        for tags, text in ((["parameters"], parameters), ([], source))
    ]
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}
    (folder / "01_one.ipynb").write_text(json.dumps(notebook), encoding="utf8")
    program.run_notebooks(folder / "run", {"preset": "mini", "task": "gsm8k-mini", "seed": 0, "overrides": {}})


def test_a_kernel_that_is_interrupted_at_its_end_says_nothing(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(program, "NOTEBOOKS", tmp_path)
    with pytest.raises(UserError, match="this cell fails"):
        run_one(SLOW_TO_LEAVE, tmp_path)
    assert capfd.readouterr().err == ""


def test_a_kernel_that_is_killed_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "NOTEBOOKS", tmp_path)
    with pytest.raises(UserError, match=r"01_one\.ipynb: its process was killed, most likely for want of memory"):
        run_one(KILLED, tmp_path)
    assert not (tmp_path / "run" / "notebooks" / "01_one.ipynb").exists()
