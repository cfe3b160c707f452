r"""
Figure App. 11: Jacobian norms at single test points of one network against cross-entropy, with the bounds (paper, A.3, A.5.7).

A column per data set: above $\|J_y\|_2$ with the two bounds (5), below $\|J\|_F$ with the bound (6) and the approximation (7).
"""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ..analysis.points import BoundShares, approximation, bound_shares, lower_bound, mean_square, upper_bound
from ..analysis.seeds import NETWORK_COLUMNS, fitted_networks
from ..data.sources import count_classes
from ..errors import MissingDataError
from ..store import Store
from .drawing import scales, single_points, style
from .drawing.interface import FigureData, Panel

CAPTION = (
    "Random test points of one random network that fits its true labels, trained on\n"
    "cross-entropy. The bounds are derived for logit gradients that are random and\n"
    "alike, the approximation also for wrong classes of equal probability."
)
LABELS = {
    "label_jacobian_norm": "Jacobian norm of the true class\n" r"($\|\partial\,\mathrm{softmax}(f)_y\,/\,\partial x\|_2$)",
    "jacobian_norm": "Jacobian norm of all classes\n" r"($\|\partial\,\mathrm{softmax}(f)\,/\,\partial x\|_F$)",
}
# The bounds of each norm, in the order in which they are drawn.
BOUNDS = {"label_jacobian_norm": ("upper", "lower"), "jacobian_norm": ("approximation", "lower")}
# In the order of the arguments of `bound_shares`.
VALUES = ("cross_entropy", "label_jacobian_norm", "jacobian_norm", "logit_jacobian_norm")
# A panel has one network: its colour is free to say the same as the marker.
LOOKS = {correct: look._replace(colour=style.NETWORKS[0 if correct else 3]) for correct, look in single_points.LOOKS.items()}
# How matplotlib draws each bound, in their order. For small losses (7) is within a tenth of (6): the dashes of the one lie on the
# other.
PENS: dict[str, dict[str, Any]] = {
    "approximation": {"label": "approximation (7)", "color": style.NETWORKS[1], "linewidth": 2.2, "linestyle": (0, ())},
    "upper": {"label": "upper bound (5)", "color": "black", "linewidth": 1.2, "linestyle": (0, (1, 1.5))},
    "lower": {"label": "lower bound (5), (6)", "color": "black", "linewidth": 1.0, "linestyle": (0, (5, 3))},
}
# Losses at which the lines are computed, evenly spaced on a logarithmic axis: several per typographic point.
GRID = 1000


def collect(store: Store) -> FigureData:
    """
    Return the points of one random network of each data set, and the bounds, with M from these points.

    Returns
    -------
    FigureData
        Its main table has one row per point: the settings of its network; `index` in the test set, `label` and `predicted`;
        whether it is `correct`; `cross_entropy`, `label_jacobian_norm`, `jacobian_norm` and `logit_jacobian_norm`. `_bounds` has
        the lines, one row per loss: `dataset`, `cross_entropy`, `lower`, `upper`, `approximation`. `_share` has one row per data
        set: the settings of its network, the number of `points` and that of `wrong` ones, the number of `classes` n,
        `mean_square` M, and the fields of `BoundShares`.

    Raises
    ------
    MissingDataError
        The survey has no fitted network of true labels and cross-entropy of which points are kept.
    """
    frame = store.frame(NETWORK_COLUMNS)
    fitted = fitted_networks(frame, (), labels="true")
    fitted = fitted[fitted["loss"] == "cross-entropy"]
    values = {name: f"points.{name}" for name in VALUES}
    tables = [
        table
        for _, networks in fitted.groupby("dataset")
        for table in single_points.points_of_random_networks(store, networks, values, 1)
    ]
    if not tables:
        raise MissingDataError(
            "figure 11 needs measures of single points of a fitted network of true labels and cross-entropy, "
            "which the preset bounds makes; "
            f"the survey has networks: {len(frame)}, fitted of true labels and cross-entropy: {len(fitted)}, "
            "with that: 0"
        )
    shares = [_share(table, store) for table in tables]
    bounds = [_bounds(share, table["cross_entropy"]) for share, table in zip(shares, tables, strict=True)]
    points = pd.concat(tables, ignore_index=True)
    panels = [Panel(share["dataset"], quantity) for quantity in LABELS for share in shares]
    looks = [look for correct, look in LOOKS.items() if (points["correct"] == correct).any()]
    data = {"": points, "_bounds": pd.concat(bounds, ignore_index=True), "_share": pd.DataFrame(shares)}
    return FigureData(data, panels, len(shares), looks)


def _share(points: pd.DataFrame, store: Store) -> dict[str, Any]:
    network = single_points.network_row(points)
    classes = count_classes(network["dataset"], lambda: store.specification)
    cross_entropy, label_norm, norm, logit_norm = (points[name] for name in VALUES)
    shares = bound_shares(cross_entropy, label_norm, norm, logit_norm, classes)
    return {**network, "classes": classes, "mean_square": mean_square(logit_norm, classes), **shares._asdict()}


def _bounds(share: dict[str, Any], losses: pd.Series) -> pd.DataFrame:
    """Return the bounds over the span of the losses; a loss of 0, where all of them are 0, has no place on the axis."""
    shown = losses[losses >= scales.SMALLEST]
    low, high = (1.0, 1.0) if shown.empty else (float(shown.min()), float(shown.max()))
    grid = np.geomspace(low, high, GRID)
    functions = {"lower": lower_bound, "upper": upper_bound, "approximation": approximation}
    lines = {name: function(grid, share["mean_square"], share["classes"]) for name, function in functions.items()}
    return pd.DataFrame({"dataset": share["dataset"], "cross_entropy": grid, **lines})


def draw(data: FigureData, axes: Sequence[Axes]) -> None:
    """Draw each panel of the data on its axes, and say above them what the lines are."""
    for panel, ax in data.panels_on(axes):
        points, bounds, shares = (table[table["dataset"] == panel.dataset] for table in data.tables.values())
        colours = points["correct"].map({correct: look.colour for correct, look in LOOKS.items()})
        single_points.draw_points(ax, points, "cross_entropy", panel.quantity, colours)
        for name in BOUNDS[panel.quantity]:
            # Over the points: where there are many, they would hide it.
            ax.add_line(Line2D(bounds["cross_entropy"], bounds[name], zorder=4, **PENS[name]))
        ax.set(xlabel=single_points.LOSS_LABELS["cross-entropy"], ylabel=LABELS[panel.quantity])
        style.title(ax, panel.dataset, _texts(panel.quantity, shares.iloc[0]))
    handles = [Line2D([], [], **pen) for pen in reversed(PENS.values())]
    # As narrow as a figure of one data set.
    sizes: dict[str, Any] = {"fontsize": "small", "handlelength": 3.2, "handletextpad": 0.5, "columnspacing": 1.4}
    cast(Figure, axes[0].figure).legend(handles=handles, loc="outside upper center", ncols=len(handles), **sizes)


def _texts(quantity: str, share: pd.Series) -> list[str]:
    """Return the lines above a panel of the upper, or of the lower row."""
    inside, around, above, near = (f"{100 * share[name]:.3g}%" for name in BoundShares._fields)
    if quantity == "label_jacobian_norm":
        network = f"{share['activation']}, depth {share['depth']}, width {share['width']}, {share['optimizer']}"
        within = f"within (5): {inside}, or a factor of two of it: {around}"
        return [network, single_points.wrong_line(share["wrong"], share["points"]), within]
    return [f"above (6): {above}", f"within a factor of two of (7): {near}"]
