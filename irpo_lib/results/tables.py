"""Tables 1 and 2 with our numbers beside the paper's, § 3.1's tuning, and what a run has done. Reads files only."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from irpo_lib.config import DATA
from irpo_lib.results.effects import effect
from irpo_lib.results.runs import IRPO, PAPER_COLUMN, Run, by_task
from irpo_lib.results.templates import TEMPLATES
from irpo_lib.stages.store import COMPLETE, replace_file
from irpo_lib.terminal.errors import UserError

#: (the row's words, the arm, the paper's method), in Table 1's order; the last four are not in the paper.
ARM_ROWS = tuple(pd.read_csv(DATA / "paper" / "rows.csv", na_filter=False).itertuples(index=False, name=None))


def table_rows(runs: Sequence[Run]) -> pd.DataFrame:
    """One row for each task, model and way of measuring: ours over all seeds with its interval, and the paper's.

    The interval takes in the choice of test problems, and with several seeds the chance of training (`effects`); with
    one seed it is Wilson's, over problems alone. Where no model is evaluated, there are no rows and no columns.
    """
    rows = []
    tables = pd.read_csv(DATA / "paper" / "tables.csv").set_index(["task", "method", "iteration", "measure"])
    papers = tables.accuracy.to_dict()
    for task, some in by_task(runs).items():
        last = max(r.iterations for r in some)
        wanted = [(f"Iterative RPO, iteration {t}", f"M{t}", "Iterative RPO", t) for t in range(1, last + 1)]
        wanted.append(("Few-shot CoT (M0)" if task.startswith("math") else "Zero-shot CoT (M0)", "M0", "CoT", 0))
        wanted += [(label, arm, method, 1) for label, arm, method in ARM_ROWS]
        for label, model, method, iteration in wanted:
            for measure in ("greedy", "majority"):
                have = [r for r in some if (r.of(model, "evaluate") / f"{measure}.csv").is_file()]
                if not have:
                    continue
                row: dict[str, Any] = {"task": task, "row": label, "model": model, "measure": measure}
                row |= _accuracy(have, model, measure)
                row["paper"] = papers.get((PAPER_COLUMN.get(task), method, iteration, measure))
                loss = have[0].loss(model)
                if loss != IRPO and "Iterative RPO" in label:  # with alpha=0 the loop is plain DPO: no row of the paper
                    row |= {"row": label.replace("Iterative RPO", f"Iterative {loss}"), "paper": None}
                rows.append(row)
    return pd.DataFrame(rows)


def _accuracy(runs: Sequence[Run], model: str, measure: str) -> dict[str, Any]:
    outcomes = [100 * r.outcomes(model, measure) for r in runs]
    found = effect(outcomes)
    summaries = [r.summary(model)[measure] for r in runs]
    low, high = found.low, found.high
    if len(runs) == 1:
        low, high = 100 * summaries[0]["low"], 100 * summaries[0]["high"]
    if all(o.between(0, 100).all() for o in outcomes):  # a task's own rewards may lie outside
        low, high = max(0.0, low), min(100.0, high)
    each = [float(o.mean()) for o in outcomes]
    return {
        "accuracy": round(found.mean, 1), "low": round(low, 1), "high": round(high, 1),
        "sd_over_seeds": round(float(pd.Series(each).std()), 2) if len(each) > 1 else None, "seeds": len(each),
        "problems": found.problems, "samples_a_problem": summaries[0]["samples"] // summaries[0]["problems"],
        "without_answer": round(100 * sum(s["without_answer"] for s in summaries) / len(summaries), 1),
        "each_seed": " ".join(f"{a:.1f}" for a in each),
    }  # fmt: skip


def table_markdown(rows: pd.DataFrame) -> str:
    """The rows of one task or several as Markdown, a table a task."""
    tables = [*rows.groupby("task", sort=False)]
    return TEMPLATES.get_template("results/table.md").render(tables=tables)


def tuning_rows(runs: Sequence[Run]) -> pd.DataFrame:
    """§ 3.1's tuning: α, β and the dev accuracy of the model after one iteration; empty where nothing was tuned."""
    rows = []
    for run in runs:
        for model in [s.model for s in run.stages if s.name == "evaluate-dev"]:
            trained, found = run.trained_with(model), run.summary(model, "evaluate-dev")["greedy"]
            row = {"task": run.task, "seed": run.seed, "alpha": trained["alpha"], "beta": trained["beta"]}
            shares = {k: round(100 * found[k], 1) for k in ("accuracy", "low", "high")}
            rows.append(row | shares | {"dev_problems": found["problems"]})
    table = pd.DataFrame(rows)
    return table.sort_values(["task", "seed", "beta", "alpha"], ignore_index=True) if rows else table


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """A table as CSV."""
    return write_file(path, partial(table.to_csv, index=False))


def write_text(text: str, path: Path) -> Path:
    return write_file(path, lambda p: p.write_text(text, encoding="utf8"))


def write_file(path: Path, write: Callable[[Path], Any]) -> Path:
    """A file and the folder for it; the file is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, write)
    return path


def status_table(run_dir: Path) -> str:
    """A line for each stage that is done or under way: seconds, counts, accuracies."""
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} does not exist: give the folder of a run")
    stages = {f"{s.home}/{s.name}": s for s in Run(run_dir).stages}
    width = max([26, *(len(name) + 2 for name in stages)])
    lines = [f"{'stage':<{width}}{'seconds':>9}  counts"]
    for name, stage in stages.items():
        counts = ", ".join(f"{k} {v}" for k, v in stage.counts.items())
        lines.append(f"{name:<{width}}{stage.seconds:>9.1f}  {counts}")
    for folder in sorted([*run_dir.glob("iteration-*/*.partial"), *run_dir.glob("arms/*/*.partial")]):
        name = str(folder.relative_to(run_dir))
        lines.append(f"{name:<{width}}{'':>9}  under way or interrupted; kept: {_kept(folder)}")
    return "\n".join(lines)


def _kept(folder: Path) -> str:
    """What the next run goes on from."""
    shards = len(list(folder.rglob("shard-*.parquet")))
    steps = [int(p.parent.name.rpartition("-")[2]) for p in folder.rglob(f"checkpoint-*/{COMPLETE}")]
    if steps:
        return f"a checkpoint of step {max(steps)}"
    return f"{shards} shard{'s' if shards > 1 else ''}" if shards else "nothing yet"
