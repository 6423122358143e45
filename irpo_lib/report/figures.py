"""The figures of a report: each an SVG within an <img>, so that the page needs no other file."""

import base64
import io
from html import escape

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

from irpo_lib.report.folder import RunFolder
from irpo_lib.results.figures import (
    BLUE,
    GREEN,
    ORANGE,
    STYLE,
    LogProbFigure,
    log_prob_lines,
    plot_accuracy,
    plot_log_probs,
    plot_tables,
)
from irpo_lib.results.runs import loss_name

#: Figures wider than so many pixels are scrolled on a narrow screen, where their words would become too small.
BROAD = 600
#: Kinds of problems in the bars of the pairs' composition: a count, its words, colour, and pattern as SVG.
KINDS = (("with pairs", BLUE, ""), ("without a winner", ORANGE, "M0 6 L6 0"), ("without a loser", GREEN, "M3 0 V6"))


def image(figure: Figure, alt: str) -> str:
    """The figure as an <img> of SVG with text, with `alt` for those who cannot see it."""
    with matplotlib.rc_context(STYLE | {"svg.fonttype": "none", "svg.hashsalt": "irpo"}):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    width = round(96 * figure.get_figwidth())
    data = base64.b64encode(buffer.getvalue()).decode()
    kind = ' class="broad"' if width > BROAD else ""
    return f'<img{kind} alt="{escape(alt)}" width="{width}" src="data:image/svg+xml;base64,{data}">'


def accuracy_images(rows: pd.DataFrame) -> list[str]:
    """Accuracy by iteration, where the loop's models are evaluated, and all rows where there are arms."""
    models = rows[rows.model.str.fullmatch(r"M\d+")]
    images = []
    if len(models):
        words = ", ".join(f"{r.model} {r.accuracy:.1f} %" for r in models[models.measure == "greedy"].itertuples())
        images.append(image(plot_accuracy(models), f"Test accuracy by iteration: {words}"))
    if len(rows) > len(models):
        images.append(image(plot_tables(rows), "Test accuracy of all models, arms too, with the paper's"))
    return images


def log_prob_images(run: RunFolder) -> list[tuple[str, str]]:
    """(title, image) for each training that was followed, with the same axes in all, so that they can be compared."""
    drawn = {title: log_prob_lines([run], figure) for title, figure in _followed(run).items()}
    drawn = {title: lines for title, lines in drawn.items() if len(lines)}
    if not drawn:
        return []
    every = pd.concat(drawn.values())
    low, high = every["mean"].min(), every["mean"].max()
    room = 0.05 * (high - low) or 1.0
    images = []
    for title, lines in drawn.items():
        figure = plot_log_probs(lines)
        figure.axes[0].set_ylim(low - room, high + room)
        ends = [f"{words} from {some['mean'].iloc[0]:.1f} to {some['mean'].iloc[-1]:.1f} nats"
                for words, some in lines.groupby("line", sort=False)]  # fmt: skip
        images.append((title, image(figure, f"{title}: {'; '.join(ends)}")))
    return images


def _followed(run: RunFolder) -> dict[str, LogProbFigure]:
    """title → what is drawn of each training that has a probe."""
    figures = {}
    for stage in run.stages:
        model = f"M{stage.iteration}" if stage.iteration is not None else stage.home.partition("/")[2]
        if stage.name != "train" or not (run.of(model, "train") / "probe.parquet").is_file():
            continue
        kind, kinds = loss_name(stage.settings), ("chosen", "rejected")
        lines = tuple((f"{kind} {on}", model, on) for on in kinds)
        if model == "sft-gold":
            lines = tuple((f"SFT on gold, logprob measured on {on}", model, on) for on in ("gold", *kinds))
        title = (
            f"Iteration {stage.iteration}: {model} from M{stage.iteration - 1}" if stage.iteration else f"Arm {model}"
        )
        figures[title] = LogProbFigure(run.task, "", lines)
    return figures


def composition_bar(counts: dict[str, int]) -> str:
    """A bar of an iteration's problems: with pairs, without a winner, without a loser."""
    without = counts.get("without_winner", 0), counts.get("without_loser", 0)
    total = counts["problems"]
    parts, x = [], 0.0
    for (words, color, pattern), n in zip(KINDS, (total - sum(without), *without), strict=True):
        width = 300 * n / max(1, total)
        title = f"<title>{escape(words)}: {n} of {total} problems</title>"
        fill = f"url(#{_pattern_id(words)})" if pattern else color
        parts.append(f'<rect x="{x:.2f}" y="1" width="{width:.2f}" height="18" fill="{fill}">{title}</rect>')
        x += width
    words = ", ".join(f"{n} {k[0]}" for k, n in zip(KINDS, (total - sum(without), *without), strict=True))
    return f'<svg class="bar" role="img" aria-label="{words}" viewBox="0 0 300 20">{"".join(parts)}</svg>'


def composition_legend() -> str:
    """What the bars' colours and patterns mean, with the patterns themselves."""
    definitions, keys = [], []
    for words, color, pattern in KINDS:
        fill = color
        if pattern:
            fill = f"url(#{_pattern_id(words)})"
            definitions.append(
                f'<pattern id="{_pattern_id(words)}" width="6" height="6" patternUnits="userSpaceOnUse">'
                f'<rect width="6" height="6" fill="{color}"/><path d="{pattern}" stroke="#fff" stroke-width="1.2"/>'
                f"</pattern>"
            )
        swatch = (
            f'<svg class="swatch" viewBox="0 0 14 14" aria-hidden="true"><rect width="14" height="14" fill="{fill}"/>'
        )
        keys.append(f"<span>{swatch}</svg> problems {escape(words)}</span>")
    hidden = f'<svg class="hidden" aria-hidden="true"><defs>{"".join(definitions)}</defs></svg>'
    return f'{hidden}<p class="legend">{" ".join(keys)}</p>'


def _pattern_id(words: str) -> str:
    return words.replace(" ", "-")
