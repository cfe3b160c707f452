"""The common part of the figures with the generalization gap on the vertical axis."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from ...analysis.correlations import gap_correlation
from ...analysis.seeds import NETWORK_COLUMNS, average_over_seeds, configuration_columns, fitted_networks
from ...errors import MissingDataError
from ...store import Store
from ..drawing import scales, style
from ..drawing.correlations import tau_words
from ..drawing.interface import FigureData, Panel

X_LABELS = {
    "jacobian_norm": "Jacobian norm\n" r"(mean of $\|\partial\,\mathrm{softmax}(f)\,/\,\partial x\|_F$ over test points)",
    "transitions": "Transitions\n(mean over the translation loops of test points)",
    "weights": "Number of weights",
    "train_loss": "Train loss (cross-entropy, nats)",
}
GAP_LABEL = "Generalization gap\n(percentage points)"


def collect_gaps(store: Store, figure: str, quantities: Sequence[str], *, average: bool) -> FigureData:
    """
    Return gap and `quantities`, columns of the survey, of the fitted networks, a panel for each data set and quantity.

    There is one point per network, or, to `average`, one per configuration: mean and standard error over its fitted seeds (paper,
    A.5.1). The number of the `figure` is for the error.

    Returns
    -------
    FigureData
        Its main table has one row per point: the configuration's columns, `gap` (share, 0 to 1) and the quantities, and, for
        averages, `<name>_sem` of each and `seeds`. `_tau` has one row per panel and kind of labels: `dataset`, `quantity`,
        `labels`, and the fields of `Correlation` over networks, whatever the points. Where both kinds of labels occur they are
        `true` and `all`, else the one kind.

    Raises
    ------
    MissingDataError
        No fitted network has a gap and all quantities.
    """
    needed = ("gap", *quantities)
    frame = store.frame((*NETWORK_COLUMNS, *needed))
    networks = fitted_networks(frame, needed)
    if networks.empty:
        absent = [name for name in needed if fitted_networks(frame, [name]).empty] or needed
        fitted = int((frame["state"] == "fitted").sum())
        raise MissingDataError(
            f"figure {figure} needs {' and '.join(absent)} of fitted networks, which the presets large and small make; "
            f"the survey has networks: {len(frame)}, fitted: {fitted}, with that: 0"
        )
    if average:
        points = average_over_seeds(networks, [*quantities, "gap"])
    else:
        points = networks[["id", *configuration_columns(networks), "seed", *quantities, "gap"]]
    panels = [Panel(dataset, quantity) for dataset in sorted(networks["dataset"].unique()) for quantity in quantities]
    rows = []
    for panel in panels:
        of_dataset = networks[networks["dataset"] == panel.dataset]
        groups = {kind: group for kind in style.LABELS if len(group := of_dataset[of_dataset["labels"] == kind])}
        if len(groups) > 1:
            groups = {"true": groups["true"], "all": of_dataset}
        for labels, group in groups.items():
            rows.append({**panel._asdict(), "labels": labels, **gap_correlation(group, panel.quantity)._asdict()})
    # The quantities of a data set side by side; with one quantity, near a square.
    columns = len(quantities) if len(quantities) > 1 else {1: 1, 2: 2, 4: 2}.get(len(panels), 3)
    looks = [look for kind, look in style.LABELS.items() if (points["labels"] == kind).any()]
    return FigureData({"": points, "_tau": pd.DataFrame(rows)}, panels, columns, looks)


def draw(data: FigureData, axes: Sequence[Axes]) -> None:
    """Draw each panel of `data` on its axes."""
    for panel, ax in data.panels_on(axes):
        points, correlations = (table[table["dataset"] == panel.dataset] for table in data.tables.values())
        x, y = points[panel.quantity], points["gap"]
        columns = {"x_sem": f"{panel.quantity}_sem", "y_sem": "gap_sem"}
        sems = {name: points[column] for name, column in columns.items() if column in points}
        bars: Mapping[str, pd.Series] = {} if len(points) > style.MOST_POINTS else sems
        scales.log_axis(ax, x, bars.get("x_sem"))
        scales.share_axis(ax, y, bars.get("y_sem"))
        markers = pd.DataFrame({"x": scales.log_positions(x), "y": y, **sems})
        kinds = {look: markers[mask] for kind, look in style.LABELS.items() if (mask := points["labels"] == kind).any()}
        lines = [_tau_line(row) for row in correlations[correlations["quantity"] == panel.quantity].to_dict("records")]
        lines += style.points(ax, kinds, style.MOST_POINTS)
        ax.set(xlabel=X_LABELS[panel.quantity], ylabel=GAP_LABEL)
        style.title(ax, panel.dataset, lines)


def _tau_line(row: Mapping[Hashable, Any]) -> str:
    name = "all networks" if row["labels"] == "all" else style.LABELS[row["labels"]].name
    return f"{name}: {tau_words(row['tau'], row['low'], row['high'], row['networks'])}"
