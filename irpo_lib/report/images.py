"""The figures of a report: each an SVG within an <img>, so that the page needs no other file."""

import base64
import io
from dataclasses import dataclass

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from irpo_lib.report.folder import RunFolder
from irpo_lib.results import figures
from irpo_lib.results.runs import Stage, loss_name


@dataclass(frozen=True)
class Image:
    """An SVG with text, in base64: its words for those who cannot see it, its width in pixels, and what it is of."""

    svg: str
    alt: str
    width: int
    title: str = ""
    of_arm: bool = False


def _image(figure: Figure, alt: str, title: str = "", of_arm: bool = False) -> Image:
    with matplotlib.rc_context(figures.STYLE | {"svg.fonttype": "none", "svg.hashsalt": "irpo"}):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return Image(base64.b64encode(buffer.getvalue()).decode(), alt, round(96 * figure.get_figwidth()), title, of_arm)


def accuracy_images(rows: pd.DataFrame) -> list[Image]:
    """Accuracy by iteration, where the loop's models are evaluated, and all rows where there are arms."""
    models = rows[rows.model.str.fullmatch(r"M\d+")]
    images = []
    if len(models):
        words = ", ".join(f"{r.model} {r.accuracy:.1f} %" for r in models[models.measure == "greedy"].itertuples())
        images.append(_image(figures.plot_accuracy(models), f"Test accuracy by iteration: {words}"))
    if len(rows) > len(models):
        images.append(_image(figures.plot_tables(rows), "Test accuracy of all models, arms too, with the paper's"))
    return images


def log_prob_images(run: RunFolder) -> list[Image]:
    """One for each training that was followed, with the same axes in all, so that they can be compared."""
    followed = [s for s in run.stages if s.name == "train" and (run.folder / s.home / "train/probe.parquet").is_file()]
    panels = [_panel(run.task, stage) for stage in followed]
    drawn = [figures.log_prob_lines([run], panel) for panel in panels]
    means = [mean for lines in drawn for mean in lines["mean"]] or [0.0]
    room = 0.05 * (max(means) - min(means)) or 1.0
    images = []
    for stage, panel, lines in zip(followed, panels, drawn, strict=True):
        figure, title = figures.plot_log_probs(lines), panel.caption
        figure.axes[0].set_ylim(min(means) - room, max(means) + room)
        ends = [f"{words} from {some['mean'].iloc[0]:.1f} to {some['mean'].iloc[-1]:.1f} nats"
                for words, some in lines.groupby("line", sort=False)]  # fmt: skip
        images.append(_image(figure, f"{title}: {'; '.join(ends)}", title, stage.iteration is None))
    return images


def _panel(task: str, stage: Stage) -> figures.LogProbFigure:
    """What is drawn of a training."""
    model = f"M{stage.iteration}" if stage.iteration else stage.home.removeprefix("arms/")
    title = f"Iteration {stage.iteration}: {model} from M{stage.iteration - 1}" if stage.iteration else f"Arm {model}"
    if model == "sft-gold":
        return figures.LogProbFigure(task, title, figures.LOG_PROB_FIGURES["figure2b"].lines)
    lines = tuple((f"{loss_name(stage.settings)} {kind}", model, kind) for kind in ("chosen", "rejected"))
    return figures.LogProbFigure(task, title, lines)
