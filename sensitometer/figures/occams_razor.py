"""
Figure App. 10: Occam's razor, as expected, and as it might be for neural networks. A sketch: nothing is measured.

As in the paper, all data sets are in the order of the large model's evidence, the likeliest on the left: that of the large model
falls from left to right, and only the right half of each bell is seen.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import halfnorm

from ..store import Store
from .drawing import style
from .drawing.interface import FigureData

CAPTION = (
    "A sketch: nothing here was measured. Each curve is a model's evidence over all data sets, of area 1.\n"
    "$D$: the data set of interest, which both models fit. Given it, the model of the larger evidence is preferred."
)
LOOKS = {
    "small": style.Look("small model $H_s$", "#7a1f3d", "o"),
    "large": style.Look("large model $H_l$", "#3fa7a0", "^"),
}
PANELS = ("Occam's razor: expectation", "Neural networks: reality?")
LINES = (
    "The large model spreads its evidence: at $D$, near the peak,\nthe small one is preferred.",
    "The large model concentrates it as well: where the curves\ncross, which is preferred depends on the place of $D$.",
)
# By panel and model: weights and widths of the halves of normal densities that its evidence is the sum of. The unit of
# width is that of the small model; a data set further to the right is likely under the large model alone.
SHAPES: tuple[dict[str, tuple[tuple[float, float], ...]], ...] = (
    {"small": ((1.0, 1.0),), "large": ((1.0, 4.0),)},
    {"small": ((1.0, 1.0),), "large": ((0.85, 1.15), (0.15, 4.0))},
)
RIGHT, POSITIONS = 6.0, 301
# Where the data set lies: in the left panel near the peak, in the right one so far beyond the crossing.
NEAR_PEAK, BEYOND = 0.3, 0.05


def collect(store: Store) -> FigureData:
    """
    Return the curves of the sketch (paper, A.2), the same for every store.

    Returns
    -------
    FigureData
        Its main table has one row per panel, model and position: `panel`, `model` (`small` or `large`), `position` on the axis of
        data sets, and `evidence`, a density over the positions. `_marked` has one row per panel: `panel`, and the `position` of
        the data set of interest.
    """
    positions = np.linspace(0, RIGHT, POSITIONS)
    curves = [
        pd.DataFrame({"panel": panel, "model": model, "position": positions, "evidence": evidence(parts, positions)})
        for panel, models in zip(PANELS, SHAPES, strict=True)
        for model, parts in models.items()
    ]
    small, large = SHAPES[1]["small"], SHAPES[1]["large"]
    crossing = brentq(lambda x: float(evidence(small, np.array(x)) - evidence(large, np.array(x))), 0, RIGHT)
    marked = pd.DataFrame({"panel": PANELS, "position": [NEAR_PEAK, crossing + BEYOND]})
    tables = {"": pd.concat(curves, ignore_index=True), "_marked": marked}
    return FigureData(tables, PANELS, len(PANELS), list(LOOKS.values()))


def evidence(parts: Sequence[tuple[float, float]], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a model's evidence $P[D'|H]$ at `positions` `[n]`, from weight and width of each half of a normal density."""
    return np.asarray(sum(weight * halfnorm.pdf(positions, scale=width) for weight, width in parts))


def draw(data: FigureData, axes: Sequence[Axes]) -> None:
    """Draw each panel of the data on its axes."""
    evidences, marked = data.tables.values()
    for lines, (panel, ax) in zip(LINES, data.panels_on(axes), strict=True):
        curves = evidences[evidences["panel"] == panel]
        for model, curve in curves.groupby("model", sort=False):
            look = LOOKS[str(model)]
            # A marker now and then, as the legend has it: colours alone do not reach everybody.
            x, y = curve["position"], curve["evidence"]
            ax.plot(x, y, color=look.colour, marker=look.marker, markevery=(45, 50))
        (position,) = marked.loc[marked["panel"] == panel, "position"]
        ax.axvline(position, color="black", linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
        ax.grid(visible=False)
        ax.set(xlim=(0, RIGHT), ylim=(0, 1.1 * evidences["evidence"].max()), xticks=[position], xticklabels=["$D$"], yticks=[])
        ax.set(xlabel="Data sets $D'$\n(in the order of $P[D'|H_l]$, the largest first)", ylabel="Evidence $P[D'|H]$")
        style.title(ax, panel, lines.split("\n"))
