"""Figures 1–4 in the paper's layout, and the tables as pictures, from what runs have left on disk.

Each line differs from the others of its figure in colour and marker, and chosen from rejected by line style and fill,
so that the figures can be read in grey. Bands are the range over seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from irpo_lib.config import short_name
from irpo_lib.results.runs import IRPO, Run, by_task
from irpo_lib.results.tables import write_table
from irpo_lib.stages.store import replace_file
from irpo_lib.terminal.errors import UserError

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#7B4EA3"
LOOK = {"DPO+NLL": (BLUE, "o"), "DPO": (ORANGE, "s"), "SFT": (GREEN, "^")}
STYLE: Any = {"pdf.fonttype": 42, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


@dataclass(frozen=True)
class LogProbFigure:
    """A panel of Figures 2–4: its task, its caption, and (legend words, model, measured on) for each line."""

    task: str
    caption: str
    lines: tuple[tuple[str, str, str], ...]


def _two(a: str, a_model: str, b: str, b_model: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((f"{name} {kind}", model, kind) for name, model in ((a, a_model), (b, b_model))
                 for kind in ("chosen", "rejected"))  # fmt: skip


LOG_PROB_FIGURES = {
    "figure2a": LogProbFigure("gsm8k", "(a) SFT trained on chosen seqs; init from M0",
                              _two("SFT", "sft-chosen", "DPO+NLL", "M1")),
    "figure2b": LogProbFigure("gsm8k", "(b) SFT trained on gold CoTs; init from M0",
                              tuple((f"SFT on gold, logprob measured on {kind}", "sft-gold", kind)
                                    for kind in ("gold", "chosen", "rejected"))),
    "figure3a": LogProbFigure("gsm8k", "(a) Initialized from M0", _two("DPO", "dpo", "DPO+NLL", "M1")),
    "figure3b": LogProbFigure("gsm8k", "(b) Initialized from SFT trained on chosen seqs",
                              _two("DPO", "dpo-from-sft", "DPO+NLL", "irpo-from-sft")),
    "figure4a": LogProbFigure("arc", "(a) ARC", _two("DPO", "dpo", "DPO+NLL", "M1")),
    "figure4b": LogProbFigure("math", "(b) MATH", _two("DPO", "dpo", "DPO+NLL", "M1")),
}  # fmt: skip


def log_prob_lines(runs: Sequence[Run], figure: LogProbFigure) -> pd.DataFrame:
    """What a panel shows: step, line, and the mean log-prob over the followed pairs, then over seeds, with its range.

    Raises:
        UserError: no run has one of the figure's arms.
    """
    tables = []
    for label, model, kind in figure.lines:
        have = [r for r in runs if (r.of(model, "train") / "probe.parquet").is_file()]
        if not have:
            raise UserError(f"no run has the log-probs of '{model}'")
        if (loss := have[0].loss(model)) != IRPO:  # a run with alpha=0: its loop is plain DPO
            label = label.replace(IRPO, f"{loss} ({model})")
        seeds = pd.concat([r.probe(model).groupby("step")[f"{kind}_logps"].mean() for r in have], axis=1)
        tables.append(pd.DataFrame({
            "line": label, "model": model, "measured_on": kind, "mean": seeds.mean(axis=1), "low": seeds.min(axis=1),
            "high": seeds.max(axis=1), "seeds": len(have), "pairs": have[0].probe(model).groupby("step").size(),
        }).reset_index())  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def plot_log_probs(lines: pd.DataFrame, caption: str = "") -> Figure:
    """Log-probabilities over training steps, with the paper's axes, colours and legend words."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 3.5), layout="constrained")
        axes = figure.subplots()
        for number, (label, some) in enumerate(lines.groupby("line", sort=False)):
            kind = some.measured_on.iloc[0]
            color, marker = LOOK.get(str(label).split()[0], (PURPLE, "D"))
            if "gold" in lines.measured_on.unique():  # Figure 2b: one model, measured on three
                color, marker = ((PURPLE, "D"), (GREEN, "^"), (GREEN, "v"))[number]
            axes.plot(some.step, some["mean"], color=color, ls=":" if kind == "rejected" else "-", marker=marker, ms=4,
                      mfc="white" if kind == "rejected" else color, label=label, lw=1.6)  # fmt: skip
            if some.seeds.iloc[0] > 1:
                axes.fill_between(some.step, some.low, some.high, color=color, alpha=0.15, lw=0)
        axes.set(xlabel="Training steps", ylabel="Log probability")
        axes.legend(frameon=False, fontsize=7.5, loc="best")
        if caption:
            figure.supxlabel(caption, fontsize=9)
    return figure


def write_figures(runs: Sequence[Run], out: Path) -> tuple[list[Path], list[str]]:
    """All figures that the runs have logs for, as PDF, PNG and CSV.

    Returns:
        The files, and a sentence on each figure that could not be drawn.
    """
    from irpo_lib.results.figure1 import plot_method

    paths, missing = save_figure(plot_method(), out / "figure1"), []
    for name, figure in LOG_PROB_FIGURES.items():
        some = [r for r in runs if r.task.partition("-")[0] == figure.task]
        try:
            lines = log_prob_lines(some, figure)
        except UserError as error:
            missing.append(f"{name} is not drawn: {error}")
            continue
        seeds = f" ({some[0].task}, {lines.seeds.iloc[0]} seeds)" if lines.seeds.iloc[0] > 1 else f" ({some[0].task})"
        paths.append(write_table(lines.round(4), out / f"{name}.csv"))
        paths += save_figure(plot_log_probs(lines, figure.caption + seeds), out / name)
    return paths, missing


def save_figure(figure: Figure, path: Path) -> list[Path]:
    """The same figure as a vector PDF with its fonts, and as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = []
    for suffix, options in ((".pdf", {"metadata": {"CreationDate": None}}), (".png", {"dpi": 150})):
        made.append(path.with_suffix(suffix))
        with matplotlib.rc_context(STYLE):
            replace_file(made[-1], partial(figure.savefig, format=suffix[1:], bbox_inches="tight", **options))
    return made


def plot_accuracy(rows: pd.DataFrame) -> Figure:
    """Accuracy by iteration of one task, ours beside the paper's: greedy as circles, majority vote as squares."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        models = (
            rows[rows.model.str.fullmatch(r"M\d+")].assign(t=lambda r: r.model.str[1:].astype(int)).sort_values("t")
        )
        for measure, marker, color, line in (("greedy", "o", BLUE, "-"), ("majority", "s", ORANGE, ":")):
            some = models[models.measure == measure]
            if some.empty:
                continue
            name = "greedy" if measure == "greedy" else f"maj@{some.samples_a_problem.iloc[0]}"
            error = [some.accuracy - some.low, some.high - some.accuracy]
            axes.errorbar(some.t, some.accuracy, error, marker=marker, ls=line, color=color, capsize=3,
                          label=f"{name}, here")  # fmt: skip
            paper = some.dropna(subset="paper")
            if len(paper):
                axes.plot(paper.t, paper.paper, marker=marker, ls=line, color=color, mfc="white", alpha=0.55,
                          label=f"{name}, paper (Llama-2-70B)")  # fmt: skip
        axes.set(xlabel="Iteration", ylabel="Test accuracy (%)")
        axes.set_ylim(min(0, models.low.min()), max(100, models.high.max()))
        axes.set_xticks(sorted(set(models.t)), labels=[f"M{t}" for t in sorted(set(models.t))])
        axes.legend(frameon=False, fontsize=8)
    return figure


def plot_tables(rows: pd.DataFrame) -> Figure:
    """Every row of the tables: ours with its interval as a filled circle, the paper's as a hollow diamond."""
    tasks = list(rows.task.unique())
    sizes = [int((rows.task == t).sum()) for t in tasks]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.24 * sum(sizes) + 0.8 * len(tasks)), layout="constrained")
        panels = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=sizes, sharex=True)[:, 0]
        for axes, task in zip(panels, tasks, strict=True):
            some = rows[rows.task == task].reset_index(drop=True)
            labels = [r.row if r.measure == "greedy" else f"w/ majority voting, {r.samples_a_problem} samples"
                      for r in some.itertuples()]  # fmt: skip
            error = [some.accuracy - some.low, some.high - some.accuracy]
            axes.errorbar(some.accuracy, some.index, xerr=error, fmt="o", color=BLUE, ms=4, capsize=2, label="here")
            axes.plot(some.paper, some.index, "D", color=ORANGE, mfc="white", ms=5, label="paper (Llama-2-70B)")
            start = some[(some.model == "M0") & (some.measure == "greedy")].accuracy
            if len(start):
                axes.axvline(start.iloc[0], color=BLUE, lw=0.6, ls=":")
            axes.set_yticks(some.index, labels=[x if len(x) <= 62 else x[:60] + " …" for x in labels], fontsize=7.5)
            axes.invert_yaxis()
            axes.set_title(task, loc="left", fontsize=9, fontweight="bold")
            axes.grid(axis="x", color="0.9")
        handles, words = panels[0].get_legend_handles_labels()
        figure.legend(handles, words, frameon=False, fontsize=7.5, loc="outside upper right", ncols=2)
        panels[-1].set_xlabel("Test accuracy (%); the dotted line is M0's greedy accuracy here")
    return figure


def write_results(runs: Sequence[Run], out: Path) -> list[Path]:
    """The tables of runs beside the paper's: `table.csv`, `table.md`, and a figure of all rows and one a task."""
    from irpo_lib.results.tables import table_markdown, table_rows, tuning_rows, write_text

    rows = table_rows(runs)
    paths = [write_table(rows, out / "table.csv"), write_text(table_markdown(rows), out / "table.md")]
    tuned = tuning_rows(runs)
    if len(tuned):
        paths.append(write_table(tuned, out / "tuning.csv"))
    paths += save_figure(plot_tables(rows), out / "table")
    for task in by_task(runs):
        paths += save_figure(plot_accuracy(rows[rows.task == task]), out / f"accuracy-{short_name(task)}")
    return paths
