"""
Figure App. 10: Occam's razor, as is expected, and as it might be of neural networks. A sketch: nothing is measured.

As in the paper, all data sets are in the order of the large model's evidence, the likeliest on the left: that of the large model
falls from left to right, and only the right half of each bell is seen.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import halfnorm

from .drawing import style
from .drawing.interface import Store, check_axes

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
# Of each panel's models: weights and widths of the halves of normal densities that their evidence is the sum of. The unit of
# width is that of the small model; a data set further to the right is likely under the large model alone.
SHAPES: tuple[dict[str, tuple[tuple[float, float], ...]], ...] = (
    {"small": ((1.0, 1.0),), "large": ((1.0, 4.0),)},
    {"small": ((1.0, 1.0),), "large": ((0.85, 1.15), (0.15, 4.0))},
)
RIGHT, POSITIONS = 6.0, 301
# Where the data set lies: in the left panel near the peak, in the right one so far beyond the crossing.
NEAR_PEAK, BEYOND = 0.3, 0.05


@dataclass(frozen=True)
class RazorData:
    """
    The data that Figure App. 10 draws.

    Parameters
    ----------
    curves
        One row a panel, model and position: `panel`, `model` (`small` or `large`), `position` on the axis of data sets, and
        `evidence`, a density over the positions.
    marked
        One row a panel: `panel`, and the `position` of the data set of interest.
    """

    curves: pd.DataFrame
    marked: pd.DataFrame

    @property
    def panels(self) -> tuple[str, ...]:
        """The expected outcome, and possible ones."""
        return PANELS

    @property
    def columns(self) -> int:
        """Both side by side."""
        return len(PANELS)

    @property
    def looks(self) -> list[style.Look]:
        """Entries for both models."""
        return list(LOOKS.values())

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Both tables, by what to append to the figure's file name."""
        return {"": self.curves, "_marked": self.marked}


def collect(store: Store) -> RazorData:
    """Return the curves of the sketch (paper, A.2), the same for every store."""
    positions = np.linspace(0, RIGHT, POSITIONS)
    curves = [
        pd.DataFrame({"panel": panel, "model": model, "position": positions, "evidence": evidence(parts, positions)})
        for panel, models in zip(PANELS, SHAPES, strict=True)
        for model, parts in models.items()
    ]
    marked = pd.DataFrame({"panel": PANELS, "position": [NEAR_PEAK, _crossing() + BEYOND]})
    return RazorData(pd.concat(curves, ignore_index=True), marked)


def evidence(parts: Sequence[tuple[float, float]], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    r"""
    Return a model's evidence $P[D'|H]$, 0 or more on all positions from 0 on, of area 1.

    Parameters
    ----------
    parts
        Weight and width of each half of a normal density; the weights sum to 1.
    positions
        `[n]`.
    """
    densities: list[NDArray[np.float64]] = [weight * halfnorm.pdf(positions, scale=width) for weight, width in parts]
    return np.asarray(np.sum(densities, axis=0))


def _crossing() -> float:
    """Return where the right panel's curves cross."""
    small, large = SHAPES[1]["small"], SHAPES[1]["large"]
    return float(brentq(lambda x: float(evidence(small, np.array(x)) - evidence(large, np.array(x))), 0, RIGHT))


def draw(data: RazorData, axes: Sequence[Axes]) -> None:
    """Draw each panel of the data on its axes."""
    check_axes(axes, data.panels)
    for panel, lines, ax in zip(data.panels, LINES, axes, strict=True):
        curves = data.curves[data.curves["panel"] == panel]
        for model, curve in curves.groupby("model", sort=False):
            look = LOOKS[str(model)]
            # A marker now and then, as the legend has it: colours alone do not reach everybody.
            x, y = curve["position"], curve["evidence"]
            ax.plot(x, y, color=look.colour, marker=look.marker, markevery=(45, 50))
        (position,) = data.marked.loc[data.marked["panel"] == panel, "position"]
        ax.axvline(position, color="black", linewidth=0.9, linestyle=(0, (5, 3)), zorder=1)
        ax.grid(visible=False)
        ax.set(xlim=(0, RIGHT), xticks=[position], xticklabels=["$D$"], yticks=[])
        ax.set_ylim(0, 1.1 * data.curves["evidence"].max())
        ax.set_xlabel("Data sets $D'$\n(in the order of $P[D'|H_l]$, the largest first)")
        ax.set_ylabel("Evidence $P[D'|H]$")
        style.title(ax, panel, lines.split("\n"))
