"""The figures of a report: each an SVG within an <img>, so that the page needs no other file."""

import base64
import io
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from irpo_lib.report.folder import RunFolder
from irpo_lib.results import figures
from irpo_lib.results.runs import Stage, loss_name


def _image(figure: Figure, alt: str, title: str = "", of_arm: bool = False) -> dict[str, Any]:
    """An SVG with text, in base64: its words for those who cannot see it, its width in pixels, and what it is of."""
    with matplotlib.rc_context(figures.STYLE | {"svg.fonttype": "none", "svg.hashsalt": "irpo"}):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg, width = base64.b64encode(buffer.getvalue()).decode(), round(96 * figure.get_figwidth())
    return {"svg": svg, "alt": alt, "width": width, "title": title, "of_arm": of_arm}


def accuracy_images(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Accuracy by iteration, where the loop's models are evaluated, and all rows where there are arms."""
    models = rows[rows.model.str.fullmatch(r"M\d+")]
    images = []
    if len(models):
        words = ", ".join(f"{r.model} {r.accuracy:.1f} %" for r in models[models.measure == "greedy"].itertuples())
        images.append(_image(figures.plot_accuracy(models), f"Test accuracy by iteration: {words}"))
    if len(rows) > len(models):
        images.append(_image(figures.plot_tables(rows), "Test accuracy of all models, arms too, with the paper's"))
    return images


def log_prob_images(run: RunFolder) -> list[dict[str, Any]]:
    """One for each training that was followed, with the same axes in all, so that they can be compared."""
    followed = [s for s in run.stages if s.name == "train" and (run.folder / s.home / "train/probe.parquet").is_file()]
    drawn = [(stage.iteration is None, *_lines(run, stage)) for stage in followed]
    means = [mean for _, _, lines in drawn for mean in lines["mean"]] or [0.0]
    room = 0.05 * (max(means) - min(means)) or 1.0
    images = []
    for of_arm, title, lines in drawn:
        figure = figures.plot_log_probs(lines)
        figure.axes[0].set_ylim(min(means) - room, max(means) + room)
        ends = [f"{words} from {some['mean'].iloc[0]:.1f} to {some['mean'].iloc[-1]:.1f} nats"
                for words, some in lines.groupby("line", sort=False)]  # fmt: skip
        images.append(_image(figure, f"{title}: {'; '.join(ends)}", title, of_arm))
    return images


def _lines(run: RunFolder, stage: Stage) -> tuple[str, pd.DataFrame]:
    """The title of a training, and its log-probs."""
    t, model = stage.iteration, stage.model
    title = f"Iteration {t}: {model} from M{t - 1}" if t else f"Arm {model}"
    lines = [(f"{loss_name(stage.settings)} {kind}", model, kind) for kind in ("chosen", "rejected")]
    gold = figures.LOG_PROB_FIGURES["figure2b"].lines
    panel = figures.LogProbFigure(run.task, title, gold if model == "sft-gold" else lines)
    return title, figures.log_prob_lines([run], panel)
