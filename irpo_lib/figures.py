"""Results as people look at them: tables and figures made from a run's files alone."""

import csv
from functools import partial
from pathlib import Path
from typing import Any

from irpo_lib.config import DATA
from irpo_lib.errors import UserError
from irpo_lib.store import MANIFEST, read_json, replace_file

#: The column of the paper's tables that a task is compared with.
PAPER_COLUMN = {"gsm8k-mini": "GSM8K", "arc-mini": "ARC-Challenge", "math-mini": "MATH"}


def stages(run_dir: Path) -> list[tuple[Path, dict[str, Any]]]:
    """(folder, manifest) of every finished stage, in the order of the iterations and of Figure 1."""
    order = ["generate", "reward", "pairs", "reference", "select", "train", "evaluate"]
    found = [(p.parent, read_json(p)) for p in run_dir.glob(f"iteration-*/*/{MANIFEST}")]
    found = [(folder, manifest) for folder, manifest in found if folder.name in order]
    return sorted(found, key=lambda f: (int(f[0].parent.name.rpartition("-")[2]), order.index(f[0].name)))


def status_table(run_dir: Path) -> str:
    """A line for each stage that is done or under way: seconds, counts, accuracies."""
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} does not exist: give the folder of a run")
    lines = [f"{'stage':<26}{'seconds':>9}  counts"]
    for folder, manifest in stages(run_dir):
        counts = ", ".join(f"{k} {v}" for k, v in manifest["counts"].items())
        lines.append(f"{folder.relative_to(run_dir)!s:<26}{manifest['seconds']:>9.1f}  {counts}")
    for folder in sorted(run_dir.glob("iteration-*/*.partial")):
        shards, checkpoints = len(list(folder.rglob("shard-*.parquet"))), len(list(folder.rglob("complete")))
        done = f"{shards} shards" if shards else f"{checkpoints} checkpoints"
        lines.append(f"{folder.relative_to(run_dir)!s:<26}{'':>9}  under way or interrupted: {done} done")
    return "\n".join(lines)


def result_rows(run_dir: Path) -> list[dict[str, Any]]:
    """One row a model and way of measuring: ours with its interval, and the paper's."""
    rows = []
    for folder, manifest in stages(run_dir):
        if folder.name != "evaluate":
            continue
        iteration = int(folder.parent.name.rpartition("-")[2])
        column = PAPER_COLUMN.get(manifest["settings"]["task"], "")
        for measure, summary in read_json(folder / "summary.json").items():
            if not isinstance(summary, dict):
                continue
            row: dict[str, Any] = {"model": f"M{iteration}", "measure": "greedy"}
            if measure == "majority":
                row["measure"] = f"maj@{summary['samples'] // summary['problems']}"
            row |= {k: round(100 * summary[k], 1) for k in ("accuracy", "low", "high", "without_answer")}
            row |= {"problems": summary["problems"], "paper": _paper(column, iteration, measure)}
            rows.append(row)
    if not rows:
        raise UserError(f"{run_dir} holds no evaluated model yet")
    return rows


def _paper(column: str, iteration: int, measure: str) -> float | None:
    """The paper's accuracy in per cent (Tables 1 and 2), None where it gives none."""
    with (DATA / "paper" / "tables.csv").open(encoding="utf8", newline="") as file:
        for row in csv.DictReader(file):
            same = row["task"] == column and row["method"] == ("CoT" if iteration == 0 else "Iterative RPO")
            if same and int(row["iteration"]) == iteration and row["measure"] == measure:
                return float(row["accuracy"])
    return None


def write_results(run_dir: Path) -> list[Path]:
    """`results/table.csv`, `table.md` and `accuracy.pdf/.png` of a run; returns their paths."""
    rows = result_rows(run_dir)
    out = run_dir / "results"
    out.mkdir(exist_ok=True)
    paths = [out / "table.csv", out / "table.md", out / "accuracy.pdf", out / "accuracy.png"]
    replace_file(paths[0], lambda p: _write_csv(p, rows))
    replace_file(paths[1], lambda p: p.write_text(markdown_table(rows), encoding="utf8"))
    figure = plot_accuracy(rows)
    for path in paths[2:]:
        replace_file(path, partial(figure.savefig, format=path.suffix[1:], dpi=150, bbox_inches="tight"))
    return paths


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| model | measure | accuracy % (95 % interval) | test problems | no answer % | paper, Llama-2-70B % |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for r in rows:
        paper = "–" if r["paper"] is None else f"{r['paper']:.1f}"
        lines.append(
            f"| {r['model']} | {r['measure']} | **{r['accuracy']:.1f}** ({r['low']:.1f}–{r['high']:.1f}) "
            f"| {r['problems']} | {r['without_answer']:.1f} | {paper} |"
        )
    return "\n".join(lines) + "\n"


def plot_accuracy(rows: list[dict[str, Any]]):
    """Accuracy by iteration, ours beside the paper's: greedy as circles, majority vote as squares."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    for measure, marker, color in (("greedy", "o", "#0072B2"), ("maj", "s", "#D55E00")):
        some = [r for r in rows if r["measure"].startswith(measure)]
        if not some:
            continue
        x = [int(r["model"][1:]) for r in some]
        error = [[r["accuracy"] - r["low"] for r in some], [r["high"] - r["accuracy"] for r in some]]
        line = "-" if measure == "greedy" else ":"
        axes.errorbar(x, [r["accuracy"] for r in some], error, marker=marker, ls=line, color=color, capsize=3,
                      label=f"{some[0]['measure']}, this run")  # fmt: skip
        paper = [(i, r["paper"]) for i, r in zip(x, some, strict=True) if r["paper"] is not None]
        if paper:
            axes.plot(*zip(*paper, strict=True), marker=marker, ls=line, color=color, mfc="white", alpha=0.55,
                      label=f"{some[0]['measure']}, paper (Llama-2-70B)")  # fmt: skip
    axes.set(xlabel="Iteration", ylabel="Test accuracy (%)", ylim=(0, 100))
    axes.set_xticks(sorted({int(r["model"][1:]) for r in rows}), labels=sorted({r["model"] for r in rows}))
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
