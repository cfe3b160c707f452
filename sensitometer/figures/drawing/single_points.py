"""The common part of the figures of Jacobian norms at single test points."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ...store import Store
from . import scales, style

LOOKS = {True: style.Look("correctly classified", style.GREY, "o"), False: style.Look("wrongly classified", style.GREY, "x")}
# The columns of each network beside its points.
SETTINGS = ["dataset", "loss", "id", "width", "depth", "activation", "optimizer", "learning_rate"]
LOSS_LABELS = {
    "cross-entropy": "Cross-entropy of the point (nats)",
    "l2": r"$\ell_2$ loss of the point, $\|f - \mathrm{onehot}(y)\|^2\,/\,2$",
}


def points_of_random_networks(store: Store, networks: pd.DataFrame, values: Mapping[str, str], most: int) -> list[pd.DataFrame]:
    """
    Return the points of up to `most` random ones of `networks` of which points are kept, one table per network.

    The choice is by a hash of their ids: it does not depend on their order, and changes little when a survey grows. A table has
    one row per point: `SETTINGS` of the network; `index`, `label` and `predicted`; whether it is `correct`; and the arrays that
    `values` names, by column. Points where one of these is not finite, as where logits overflow, are left out: they have no place
    on the axes, and no rank.
    """
    candidates = networks[networks["id"].isin(store.kept())][SETTINGS]
    candidates = candidates.sort_values("id", key=lambda ids: ids.map(lambda id_: sha256(id_.encode()).hexdigest()))
    tables: list[pd.DataFrame] = []
    for settings in candidates.to_dict("records"):
        if len(tables) == most:
            break
        # Some networks have other arrays only.
        if arrays := store.arrays(settings["id"], "points."):
            classes = {name: arrays[f"points.{name}"] for name in ("index", "label", "predicted")}
            correct = classes["predicted"] == classes["label"]
            measures = {column: arrays[name] for column, name in values.items()}
            points = pd.DataFrame(settings | classes | {"correct": correct} | measures)
            points = points[np.isfinite(points[[*values]].to_numpy()).all(axis=1)]
            tables += [points] if len(points) else []
    return tables


def network_row(points: pd.DataFrame) -> dict[str, Any]:
    """Return the `SETTINGS` of a network from the table of its points, the number of `points`, and that of `wrong` ones."""
    settings = {name: points[name].iloc[0] for name in SETTINGS}
    return {**settings, "points": len(points), "wrong": int((~points["correct"]).sum())}


def draw_points(ax: Axes, points: pd.DataFrame, across: str, up: str, colours: pd.Series) -> None:
    """Draw points, each in its colour, the wrong ones over the correct ones, on logarithmic axes fitted to the two columns."""
    scales.log_axes(ax, points[across], points[up])
    # Mixed, lest the last network hides the others.
    order = np.random.default_rng(0).permutation(len(points))
    x, y = (scales.log_positions(points[name]).iloc[order] for name in (across, up))
    for correct, look in LOOKS.items():
        mask = points["correct"].iloc[order] == correct
        size, width, alpha = (5, 0.0, 0.6) if correct else (13, 0.8, 0.9)
        colour = colours.iloc[order][mask]
        markers = ax.scatter(x[mask], y[mask], s=size, c=colour, marker=look.marker, linewidths=width, alpha=alpha)
        markers.set(label=look.name, rasterized=True, zorder=3)


def wrong_line(wrong: int, points: int) -> str:
    """Say how many of the points are wrong."""
    return f"{100 * wrong / points:.3g}% of {points:,} points wrong"
