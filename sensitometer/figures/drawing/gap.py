"""The common part of the figures with the generalization gap on the vertical axis."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes

from ...analysis.correlations import correlation_row
from ...analysis.seeds import NETWORK_COLUMNS, average_over_seeds, fitted_networks
from ...errors import MissingDataError
from . import style
from .interface import Store, check_axes

X_LABELS = {
    "jacobian_norm": "Jacobian norm\n" r"(mean of $\|\partial\,\mathrm{softmax}(f)\,/\,\partial x\|_F$ over test points)",
    "transitions": "Transitions\n(mean over the translation loops of test points)",
    "weights": "Number of weights",
    "train_loss": "Train loss (cross-entropy, nats)",
}
GAP_LABEL = "Generalization gap\n(percentage points)"


class Panel(NamedTuple):
    """One panel: a data set, and the quantity on its horizontal axis."""

    dataset: str
    quantity: str


@dataclass(frozen=True)
class GapData:
    """
    The data that a figure of the gap draws.

    Parameters
    ----------
    points
        One row a point: the configuration's columns, `gap` (share, 0 to 1) and the quantities, and, for points that stand for
        several seeds, `<name>_sem` of each and `seeds`.
    correlations
        One row a panel and kind of labels: `dataset`, `quantity`, `labels`, and the columns of `gap_correlations`. Where
        both kinds occur the labels are `true` and `all`, else the one kind.
    panels
        Data set by data set, in the order of their names.
    """

    points: pd.DataFrame
    correlations: pd.DataFrame
    panels: tuple[Panel, ...]

    @property
    def columns(self) -> int:
        """The quantities of a data set side by side; with one quantity, near a square."""
        quantities = len({panel.quantity for panel in self.panels})
        return quantities if quantities > 1 else {1: 1, 2: 2, 4: 2}.get(len(self.panels), 3)

    @property
    def looks(self) -> list[style.Look]:
        """An entry for each kind of labels that occurs."""
        return [look for kind, look in style.LABELS.items() if (self.points["labels"] == kind).any()]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Both tables, by what to append to the figure's file name."""
        return {"": self.points, "_tau": self.correlations}


def networks_to_draw(store: Store, figure: str, quantities: Sequence[str]) -> pd.DataFrame:
    """Return the fitted networks of a store that have a gap and all `quantities`, or raise MissingDataError."""
    needed = ("gap", *quantities)
    columns = (*NETWORK_COLUMNS, *needed)
    networks = fitted_networks(store.frame(columns, state="fitted"), needed)
    if networks.empty:
        frame = store.frame(columns)
        absent = [name for name in needed if fitted_networks(frame, [name]).empty] or needed
        fitted = int((frame["state"] == "fitted").sum())
        raise MissingDataError(
            f"figure {figure} needs {' and '.join(absent)} of fitted networks, which the presets large and small make; "
            f"the survey has networks: {len(frame)}, fitted: {fitted}, with that: 0"
        )
    return networks


def averages_to_draw(store: Store, figure: str, quantity: str) -> GapData:
    """
    Return mean and standard error of gap and a quantity of each configuration, over its fitted seeds (paper, A.5.1).

    Raises
    ------
    MissingDataError
        No fitted network has the quantity.
    """
    networks = networks_to_draw(store, figure, [quantity])
    return gap_data(networks, average_over_seeds(networks, [quantity, "gap"]), [quantity])


def gap_data(networks: pd.DataFrame, points: pd.DataFrame, quantities: Sequence[str]) -> GapData:
    """Return the data of a figure with a panel for each data set and quantity; tau is over `networks`, whatever the points."""
    panels = tuple(Panel(dataset, quantity) for dataset in sorted(networks["dataset"].unique()) for quantity in quantities)
    rows = []
    for panel in panels:
        own = networks[networks["dataset"] == panel.dataset]
        for labels, group in _by_labels(own).items():
            rows.append({**panel._asdict(), "labels": labels, **correlation_row(group, panel.quantity)})
    return GapData(points, pd.DataFrame(rows), panels)


def _by_labels(networks: pd.DataFrame) -> dict[str, pd.DataFrame]:
    kinds = {kind: networks[networks["labels"] == kind] for kind in style.LABELS}
    present = {kind: group for kind, group in kinds.items() if len(group)}
    return {"true": present["true"], "all": networks} if len(present) > 1 else present


def draw_panels(data: GapData, axes: Sequence[Axes]) -> None:
    """Draw each panel of `data` on its axes."""
    check_axes(axes, data.panels)
    for panel, ax in zip(data.panels, axes, strict=True):
        _draw_panel(data, panel, ax)


def _draw_panel(data: GapData, panel: Panel, ax: Axes) -> None:
    points = data.points[data.points["dataset"] == panel.dataset]
    x_sem, y_sem = points.get(f"{panel.quantity}_sem"), points.get("gap_sem")
    dense = len(points) > style.MOST_POINTS
    style.log_axis(ax, points[panel.quantity], None if dense else x_sem)
    style.share_axis(ax, points["gap"], None if dense else y_sem)
    x, y = style.log_positions(points[panel.quantity]), points["gap"]
    kinds = {kind: own for kind in style.LABELS if (own := points["labels"] == kind).any()}
    ours = (data.correlations["dataset"] == panel.dataset) & (data.correlations["quantity"] == panel.quantity)
    lines = [_tau_line(row) for row in data.correlations[ours].to_dict("records")]
    if dense:
        most = style.density(ax, {style.LABELS[kind]: (x[own], y[own]) for kind, own in kinds.items()})
        bars = "" if x_sem is None else ", no bars"
        lines.append(f"markers: 1 (small) to {most:,} (large) points{bars}")
    else:
        for kind, own in kinds.items():
            own_x_sem, own_y_sem = (None if sem is None else sem[own] for sem in (x_sem, y_sem))
            style.scatter(ax, style.LABELS[kind], x[own], y[own], own_x_sem, own_y_sem, among=len(points))
    ax.set_xlabel(X_LABELS[panel.quantity])
    ax.set_ylabel(GAP_LABEL)
    style.title(ax, panel.dataset, lines)


def _tau_line(row: dict[Hashable, Any]) -> str:
    name = "all networks" if row["labels"] == "all" else style.LABELS[row["labels"]].name
    if math.isnan(row["tau"]):
        return f"{name}: τ undefined, n = {row['networks']}"
    tau, low, high = (f"{round(row[end], 2) + 0.0:.2f}".replace("-", "−") for end in ("tau", "low", "high"))
    interval = "no interval" if math.isnan(row["low"]) else f"{low} to {high}"
    return f"{name}: τ = {tau} ({interval}), n = {row['networks']}"
