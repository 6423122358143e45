"""Tables 1 and 2 with our numbers beside the paper's, § 3.1's tuning, and what a run has done. Reads files only."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from irpo_lib.config import DATA
from irpo_lib.results.claims import Verdict
from irpo_lib.results.effects import effect
from irpo_lib.results.runs import IRPO, Run, by_task, paper_accuracy
from irpo_lib.stages.store import COMPLETE, MANIFEST, read_json, replace_file
from irpo_lib.terminal.errors import UserError

#: (the row's words, the arm, the paper's method), in Table 1's order; the last four are not in the paper.
ARM_ROWS = (
    ("DPO initialized from M0", "dpo", "DPO"),
    ("DPO initialized from SFT trained on chosen seqs", "dpo-from-sft", "DPO from SFT on chosen"),
    ("SFT on gold CoT examples", "sft-gold", "SFT on gold"),
    ("SFT on chosen sequences (STaR, 1 iteration)", "sft-chosen", "STaR"),
    ("STaR (1 iteration, but on twice as much data)", "star-twice", "STaR, twice the data"),
    ("Iterative RPO (1 iteration, but initialized from SFT trained on chosen seqs)", "irpo-from-sft",
     "Iterative RPO from SFT on chosen"),
    ("Iterative RPO (1 iteration, but on twice as much data)", "irpo-twice", "Iterative RPO, twice the data"),
    ("beyond: iteration 2 on the pairs of both iterations", "replay", ""),
    ("beyond: iteration 2 with M0 as reference", "fixed-reference", ""),
    ("beyond: iteration 1, NLL per token of the batch", "nll-batch", ""),
    ("beyond: iteration 1, NLL summed", "nll-sum", ""),
)  # fmt: skip


def table_rows(runs: Sequence[Run]) -> pd.DataFrame:
    """One row for each task, model and way of measuring: ours over all seeds with its interval, and the paper's.

    The interval takes in the choice of test problems, and with several seeds the chance of training (`effects`); with
    one seed it is Wilson's, over problems alone.
    """
    rows = []
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
                words, published = _as_trained(label, method, have[0].loss(model))
                row = {"task": task, "row": words, "model": model, "measure": measure}
                paper = paper_accuracy(task, published, iteration, measure, DATA / "paper" / "tables.csv")
                rows.append(row | _accuracy(have, model, measure) | {"paper": paper})
    if not rows:
        raise UserError("these runs hold no evaluated model yet")
    return pd.DataFrame(rows)


def _as_trained(label: str, method: str, loss: str) -> tuple[str, str]:
    """A row's words and the paper's method; with alpha=0 the loop is plain DPO, which the paper has no row for."""
    if loss == IRPO or "Iterative RPO" not in label:
        return label, method
    return label.replace("Iterative RPO", f"Iterative {loss}"), ""


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
    parts = []
    for task, some in rows.groupby("task", sort=False):
        seeds = int(some.seeds.max())
        ours = f"{task}, ours % (95 % interval)" + (f" ± SD over {seeds} seeds" if seeds > 1 else "")
        lines = [f"| | {ours} | test problems | no answer % | paper, Llama-2-70B % |", "|---|---|---|---|---|"]
        r: Any  # a row
        for r in some.itertuples():
            label = r.row if r.measure == "greedy" else f"— with majority voting, {r.samples_a_problem} samples"
            spread = "" if pd.isna(r.sd_over_seeds) else f" ± {r.sd_over_seeds:.1f}"
            paper = "–" if pd.isna(r.paper) else f"{r.paper:.1f}"
            lines.append(f"| {label} | **{r.accuracy:.1f}** ({r.low:.1f}–{r.high:.1f}){spread} | {r.problems} "
                         f"| {r.without_answer:.1f} | {paper} |")  # fmt: skip
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def tuning_rows(runs: Sequence[Run]) -> pd.DataFrame:
    """§ 3.1's tuning: α, β and the dev accuracy of the model after one iteration; empty where nothing was tuned."""
    rows = []
    for run in runs:
        for path in sorted(run.folder.glob("*/*/evaluate-dev/summary.json")) + sorted(
            run.folder.glob("iteration-1/evaluate-dev/summary.json")
        ):
            trained = read_json(path.parent.parent / "train" / MANIFEST)["settings"]
            found = read_json(path)["greedy"]
            row = {"task": run.task, "seed": run.seed, "alpha": trained["alpha"], "beta": trained["beta"]}
            shares = {k: round(100 * found[k], 1) for k in ("accuracy", "low", "high")}
            rows.append(row | shares | {"dev_problems": found["problems"]})
    table = pd.DataFrame(rows)
    return table.sort_values(["task", "seed", "beta", "alpha"], ignore_index=True) if rows else table


def claims_markdown(verdicts: Sequence[Verdict]) -> str:
    lines = ["| claim | here | effect (95 % interval) | the paper's effect | where |", "|---|---|---|---|---|"]
    for v in verdicts:
        e = v.decisive
        which = f", the smallest of {len(v.effects)}" if len(v.effects) > 1 else ""
        lines.append(f"| {v.claim.name} | **{v.verdict}** | {e} {v.claim.unit}{which} | {v.claim.paper} "
                     f"| {v.claim.place} |")  # fmt: skip
    return "\n".join(lines) + "\n"


def claims_table(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """One row an effect, with the paper's sentence."""
    rows = []
    for v in verdicts:
        for number, e in enumerate(v.effects, start=1):
            row = {"claim": v.claim.name, "verdict": v.verdict, "effect": number, "of": len(v.effects)}
            row |= {"mean": round(e.mean, 3), "low": round(e.low, 3), "high": round(e.high, 3), "unit": v.claim.unit}
            row |= {"seeds": e.seeds, "problems": e.problems, "paper": v.claim.paper, "place": v.claim.place}
            rows.append(row | {"sentence": v.claim.sentence})
    return pd.DataFrame(rows)


def write_table(table: pd.DataFrame, path: Path) -> Path:
    """A table as CSV, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, partial(table.to_csv, index=False))
    return path


def write_text(text: str, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, lambda p: p.write_text(text, encoding="utf8"))
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
        lines.append(
            f"{folder.relative_to(run_dir)!s:<{width}}{'':>9}  under way or interrupted; kept: {_kept(folder)}"
        )
    return "\n".join(lines)


def _kept(folder: Path) -> str:
    """What the next run goes on from."""
    shards = len(list(folder.rglob("shard-*.parquet")))
    steps = [int(p.parent.name.rpartition("-")[2]) for p in folder.rglob(f"checkpoint-*/{COMPLETE}")]
    if steps:
        return f"a checkpoint of step {max(steps)}"
    return f"{shards} shard{'s' if shards > 1 else ''}" if shards else "nothing yet"
