"""Figure 1: the method, drawn by code from the words and places in `data/paper/figure1.yaml`."""

from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from irpo_lib.config import DATA, read_yaml

STYLE: Any = {"pdf.fonttype": 42, "font.size": 8.5}
INK = "#222222"


def plot_method() -> Figure:
    """The two steps of an iteration and the arrow back (the paper's Figure 1)."""
    path = DATA / "paper" / "figure1.yaml"
    drawing = read_yaml(path.read_text(encoding="utf8"), str(path))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.5))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 100), ylim=(0, 40))
        axes.axis("off")
        for box in drawing["boxes"]:
            _box(axes, **box)
        for words in drawing["words"]:
            axes.text(**words, ha="center")
        for points in drawing["arrows"]:
            _arrow(axes, *points)
    return figure


def _box(axes, at: Sequence[float], text: str = "", color: str = "white", bold: bool = False) -> None:
    x, y, width, height = at
    shape, edge = "round,pad=0,rounding_size=1.2", 1.6 if bold else 0.9
    axes.add_patch(FancyBboxPatch((x, y), width, height, boxstyle=shape, fc=color, ec=INK, lw=edge))
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", linespacing=1.35)


def _arrow(axes, *points: tuple[float, float]) -> None:
    """From point to point, with a head at the last."""
    if len(points) > 2:
        axes.plot(*zip(*points[:-1], strict=True), color=INK, lw=1.2, solid_joinstyle="round")
    head: Any = {"arrowstyle": "-|>", "mutation_scale": 11, "lw": 1.2, "color": INK, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(*points[-2:], **head))
