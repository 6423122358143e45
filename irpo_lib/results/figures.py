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
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from irpo_lib.config import DATA, read_yaml, short_name
from irpo_lib.results.runs import IRPO, Run, by_task
from irpo_lib.results.tables import table_markdown, table_rows, tuning_rows, write_file, write_table, write_text
from irpo_lib.terminal.errors import UserError

BLUE, ORANGE, GREEN, PURPLE, INK = "#0072B2", "#D55E00", "#009E73", "#7B4EA3", "#222222"
LOOK = {"DPO+NLL": (BLUE, "o"), "DPO": (ORANGE, "s"), "SFT": (GREEN, "^")}
MEASURE_LOOK: Any = {
    "greedy": {"marker": "o", "color": BLUE, "ls": "-"},
    "majority": {"marker": "s", "color": ORANGE, "ls": ":"},
}
GOLD_LOOK = {"gold": (PURPLE, "D"), "chosen": (GREEN, "^"), "rejected": (GREEN, "v")}
ARROW: Any = {"arrowstyle": "-|>", "mutation_scale": 11, "lw": 1.2, "color": INK}
STYLE: Any = {"pdf.fonttype": 42, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def plot_method() -> Figure:
    """Figure 1: the two steps of an iteration and the arrow back, from the words and places in `figure1.yaml`."""
    path = DATA / "paper" / "figure1.yaml"
    drawing = read_yaml(path.read_text(encoding="utf8"), str(path))
    with matplotlib.rc_context(STYLE | {"font.size": 8.5}):
        figure = Figure(figsize=(8.6, 3.5))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 100), ylim=(0, 40))
        axes.axis("off")
        for box in drawing["boxes"]:
            _box(axes, **box)
        for words in drawing["words"]:
            axes.text(**words, ha="center")
        for points in drawing["arrows"]:
            axes.add_patch(FancyArrowPatch(path=matplotlib.path.Path(points), **ARROW))
    return figure


def _box(axes, at: Sequence[float], text: str = "", color: str = "white", bold: bool = False) -> None:
    x, y, width, height = at
    shape, edge = "round,pad=0,rounding_size=1.2", 1.6 if bold else 0.9
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, fc=color, ec=INK, lw=edge))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", linespacing=1.35)


@dataclass(frozen=True)
class LogProbFigure:
    """A panel of Figures 2–4: its task, its caption, and (legend words, model, measured on) for each line."""

    task: str
    caption: str
    lines: Sequence[tuple[str, str, str]]


_PANELS = DATA / "paper" / "figures.yaml"
LOG_PROB_FIGURES = {name: LogProbFigure(**p) for name, p in read_yaml(_PANELS.read_text("utf8"), str(_PANELS)).items()}


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
        looks = [r.probe(model).groupby("step") for r in have]
        seeds = pd.concat([pairs[f"{kind}_logps"].mean() for pairs in looks], axis=1)
        tables.append(pd.DataFrame({
            "line": label, "model": model, "measured_on": kind, "mean": seeds.mean(axis=1), "low": seeds.min(axis=1),
            "high": seeds.max(axis=1), "seeds": len(have), "pairs": looks[0].size(),
        }).reset_index())  # fmt: skip
    return pd.concat(tables, ignore_index=True)


def plot_log_probs(lines: pd.DataFrame, caption: str = "") -> Figure:
    """Log-probabilities over training steps, with the paper's axes, colours and legend words."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.2, 3.5), layout="constrained")
        axes = figure.subplots()
        for label, some in lines.groupby("line", sort=False):
            kind = some.measured_on.iloc[0]
            color, marker = LOOK.get(str(label).split()[0], (PURPLE, "D"))
            if "gold" in set(lines.measured_on):  # Figure 2b: one model, measured on three
                color, marker = GOLD_LOOK[kind]
            style: Any = {"ls": ":", "mfc": "white"} if kind == "rejected" else {}
            axes.plot(some.step, some["mean"], color=color, marker=marker, ms=4, lw=1.6, label=label, **style)
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
    kinds: dict[str, dict[str, Any]] = {"pdf": {"metadata": {"CreationDate": None}}, "png": {"dpi": 150}}
    with matplotlib.rc_context(STYLE):
        return [write_file(path.with_suffix(f".{kind}"),
                           partial(figure.savefig, format=kind, bbox_inches="tight", **options))
                for kind, options in kinds.items()]  # fmt: skip


def plot_accuracy(rows: pd.DataFrame) -> Figure:
    """Accuracy by iteration of one task, ours beside the paper's: greedy as circles, majority vote as squares."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.2, 3.4), layout="constrained")
        axes = figure.subplots()
        models = rows[rows.model.str.fullmatch(r"M\d+")]
        models = models.assign(t=models.model.str[1:].astype(int)).sort_values("t")
        for measure, some in models.groupby("measure"):
            name = "greedy" if measure == "greedy" else f"maj@{some.samples_a_problem.iloc[0]}"
            look = MEASURE_LOOK[str(measure)]
            axes.errorbar(some.t, some.accuracy, _interval(some), capsize=3, label=f"{name}, here", **look)
            paper = some.dropna(subset="paper")
            if len(paper):
                label = f"{name}, paper (Llama-2-70B)"
                axes.plot(paper.t, paper.paper, mfc="white", alpha=0.55, label=label, **look)
        axes.set(xlabel="Iteration", ylabel="Test accuracy (%)")
        axes.set_ylim(min(0, models.low.min()), max(100, models.high.max()))
        each = models.drop_duplicates("t")
        axes.set_xticks(each.t, labels=each.model)
        axes.legend(frameon=False, fontsize=8)
    return figure


def _interval(rows: pd.DataFrame) -> list[pd.Series]:
    """As matplotlib has it: how far it reaches below the accuracy, and above."""
    return [rows.accuracy - rows.low, rows.high - rows.accuracy]


def plot_tables(rows: pd.DataFrame) -> Figure:
    """Every row of the tables: ours with its interval as a filled circle, the paper's as a hollow diamond."""
    tasks = [(task, some.reset_index(drop=True)) for task, some in rows.groupby("task", sort=False)]
    sizes = [len(some) for _, some in tasks]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.24 * len(rows) + 0.8 * len(tasks)), layout="constrained")
        panels = figure.subplots(len(tasks), 1, squeeze=False, height_ratios=sizes, sharex=True)[:, 0]
        for axes, (task, some) in zip(panels, tasks, strict=True):
            labels = [r.row if r.measure == "greedy" else f"w/ majority voting, {r.samples_a_problem} samples"
                      for r in some.itertuples()]  # fmt: skip
            interval = _interval(some)
            axes.errorbar(some.accuracy, some.index, xerr=interval, fmt="o", color=BLUE, ms=4, capsize=2, label="here")
            axes.plot(some.paper, some.index, "D", color=ORANGE, mfc="white", ms=5, label="paper (Llama-2-70B)")
            for start in some.accuracy[(some.model == "M0") & (some.measure == "greedy")]:
                axes.axvline(start, color=BLUE, lw=0.6, ls=":")
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
    rows = table_rows(runs)
    if rows.empty:
        raise UserError("these runs hold no evaluated model yet")
    paths = [write_table(rows, out / "table.csv"), write_text(table_markdown(rows), out / "table.md")]
    tuned = tuning_rows(runs)
    if len(tuned):
        paths.append(write_table(tuned, out / "tuning.csv"))
    paths += save_figure(plot_tables(rows), out / "table")
    for task in by_task(runs):
        paths += save_figure(plot_accuracy(rows[rows.task == task]), out / f"accuracy-{short_name(task)}")
    return paths
