"""Figure 1: the method, drawn by code."""

from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

STYLE: Any = {"pdf.fonttype": 42, "font.size": 8.5}
PALE_BLUE, PALE_ORANGE, WHITE = "#E3EEF7", "#FBEBDD", "white"
INK = "#222222"


def plot_method() -> Figure:
    """The two steps of an iteration and the arrow back (the paper's Figure 1)."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8.6, 3.5))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, 100), ylim=(0, 40))
        axes.axis("off")
        _box(axes, 0.5, 6, 56, 30, "", PALE_BLUE)
        _box(axes, 58.5, 6, 41, 30, "", PALE_ORANGE)
        axes.text(28.5, 33.4, "(i) Chain-of-Thought & Answer Generation", ha="center", fontweight="bold")
        axes.text(79, 33.4, "(ii) Preference Optimization", ha="center", fontweight="bold")
        _box(axes, 2, 22, 16, 8, "Training prompts\n$\\{x_i\\}$")
        _box(axes, 2, 9, 16, 8, "Model $M_t$\n($M_0$: seed model)", bold=True)
        _box(axes, 21, 12.5, 17, 15, "Generate CoTs &\nanswers\n$(c_i^n,\\ y_i^n)\\sim M_t(x_i)$\n$n\\in[N]$")
        _box(axes, 40.5, 12.5, 15, 15, "Compute rewards\n$r_i^n=R(y_i^n,\\ y_i)$\nright: 1\nwrong: 0")
        _box(axes, 60, 12.5, 18, 15, "Select preference\npairs $D_t^{\\mathrm{pairs}}$\n$(c^w,y^w)\\succ(c^l,y^l)$\n"
             "right over wrong")  # fmt: skip
        _box(axes, 81, 12.5, 17, 15, "DPO + NLL\ntraining (Eq. 1)\ngives $M_{t+1}$", bold=True)
        for x0, y0, x1, y1 in ((18, 26, 21, 22), (18, 13, 21, 17), (38, 20, 40.5, 20), (55.5, 20, 60, 20),
                               (78, 20, 81, 20)):  # fmt: skip
            _arrow(axes, (x0, y0), (x1, y1))
        _arrow_below(axes, (89.5, 12.5), (10, 9), 2.4)
        axes.text(50, 3.6, "next iteration: $M_{t+1}$ becomes $M_t$, from $t=0$ to $T$", ha="center")
    return figure


def _box(axes, x: float, y: float, width: float, height: float, text: str, color: str = WHITE, bold: bool = False):
    style = FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0,rounding_size=1.2", fc=color, ec=INK,
                           lw=1.6 if bold else 0.9)  # fmt: skip
    axes.add_patch(style)
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", linespacing=1.35)


def _arrow(axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=11, lw=1.2, color=INK, shrinkA=0,
                                   shrinkB=0))  # fmt: skip


def _arrow_below(axes, start: tuple[float, float], end: tuple[float, float], height: float) -> None:
    """Down from a box, along at a height, and up into another."""
    axes.plot([start[0], start[0], end[0]], [start[1], height, height], color=INK, lw=1.2, solid_joinstyle="round")
    _arrow(axes, (end[0], height), end)
