"""
Figure 6: the Jacobian norm at single test points against their losses (paper, 4.4, A.5.6).

A row for each loss that networks were trained on, a column per data set. Fashion-MNIST and CIFAR100 are those of Figure App. 9.
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes

from ..analysis.points import error_auroc
from ..analysis.seeds import NETWORK_COLUMNS, fitted_networks
from ..errors import MissingDataError, counted
from ..store import Store
from .drawing import single_points, style
from .drawing.interface import FigureData, Panel

CAPTION = (
    "Random test points of up to five random networks, a colour each, that fit their\n"
    "true labels. AUROC: how often a wrongly classified point has a higher norm than\n"
    "a correctly classified one, mean over the networks; by chance 0.5."
)
# The data sets of Figure App. 9.
ELSEWHERE = ("fashion-mnist", "cifar100")
# Networks for each data set and loss, as in the paper.
MOST_NETWORKS = 5
NORM_LABEL = "Jacobian norm at the point\n" r"($\|\partial\,\mathrm{softmax}(f)\,/\,\partial x\|_F$)"
# The losses that networks were trained on, from the upper row: their names in titles, and the arrays of their values at points.
LOSSES = {"cross-entropy": ("cross-entropy", "points.cross_entropy"), "l2": ("l2 loss", "points.l2_loss")}


def collect(store: Store) -> FigureData:
    """Return the points of random networks of all data sets but those of Figure App. 9: see `collect_points`."""
    return collect_points(store, "6", elsewhere=False)


def collect_points(store: Store, figure: str, *, elsewhere: bool) -> FigureData:
    """
    Return the points of up to five random networks of each loss and data set: those of Figure App. 9, `elsewhere`, or all others.

    The number of the `figure` is for the error.

    Returns
    -------
    FigureData
        The quantity of a panel is the loss that its networks were trained on. The main table has one row per point: `SETTINGS` of
        its network; `index` in the test set, `label` and `predicted`; whether it is `correct`; its loss, of the kind the network
        was trained on, `point_loss`; and its `jacobian_norm`. `_auroc` has one row per network, panel by panel: `SETTINGS`, the
        number of `points` and that of `wrong` ones, and `auroc` of the Jacobian norm, null where no point is wrong, or none
        correct.

    Raises
    ------
    MissingDataError
        There are none.
    """
    frame = store.frame(NETWORK_COLUMNS)
    fitted = fitted_networks(frame, (), labels="true")
    collected: dict[Panel, list[pd.DataFrame]] = {}
    for (dataset, loss), networks in fitted[fitted["dataset"].isin(ELSEWHERE) == elsewhere].groupby(["dataset", "loss"]):
        panel = Panel(str(dataset), str(loss))
        values = {"point_loss": LOSSES[panel.quantity][1], "jacobian_norm": "points.jacobian_norm"}
        if tables := single_points.points_of_random_networks(store, networks, values, MOST_NETWORKS):
            collected[panel] = tables
    if not collected:
        datasets = " or ".join(ELSEWHERE) if elsewhere else f"other than {' and '.join(ELSEWHERE)}"
        raise MissingDataError(
            f"figure {figure} needs measures of single points of fitted networks of true labels and data sets {datasets}, "
            "which the presets per-point and per-point-l2 make; "
            f"the survey has networks: {len(frame)}, fitted of true labels: {len(fitted)}, with that: 0"
        )
    # Filling row by row puts the panels of one data set below each other, if data sets of both losses come first, and the loss of
    # more data sets: an upper row that ends early would be filled from the lower one.
    by_loss = {loss: {panel.dataset for panel in collected if panel.quantity == loss} for loss in LOSSES}
    common = set.intersection(*by_loss.values())
    panels = [
        Panel(dataset, loss)
        for loss in sorted(LOSSES, key=lambda loss: -len(by_loss[loss]))
        for dataset in sorted(by_loss[loss], key=lambda dataset: (dataset not in common, dataset))
    ]
    tables = [table for panel in panels for table in collected[panel]]
    networks = pd.DataFrame([single_points.network_row(table) for table in tables])
    networks["auroc"] = [error_auroc(table["jacobian_norm"], ~table["correct"]) for table in tables]
    points = pd.concat(tables, ignore_index=True)
    looks = [look for correct, look in single_points.LOOKS.items() if (points["correct"] == correct).any()]
    return FigureData({"": points, "_auroc": networks}, panels, max(map(len, by_loss.values())), looks)


def draw(data: FigureData, axes: Sequence[Axes]) -> None:
    """Draw each panel of the data on its axes."""
    for panel, ax in data.panels_on(axes):
        points, networks = (
            table[(table["dataset"] == panel.dataset) & (table["loss"] == panel.quantity)] for table in data.tables.values()
        )
        colours = dict(zip(networks["id"], style.NETWORKS, strict=False))
        single_points.draw_points(ax, points, "point_loss", "jacobian_norm", points["id"].map(colours))
        ax.set(xlabel=single_points.LOSS_LABELS[panel.quantity], ylabel=NORM_LABEL)
        aurocs = networks["auroc"].dropna()
        mean = "undefined" if aurocs.empty else f"{aurocs.mean():.2f}"
        number = f" (mean over {len(aurocs)})" if 0 < len(aurocs) < len(networks) else ""
        wrong = single_points.wrong_line(int(networks["wrong"].sum()), int(networks["points"].sum()))
        lines = [f"n = {counted(len(networks), 'network')}, {wrong}", f"AUROC = {mean}{number}"]
        style.title(ax, f"{panel.dataset}, {LOSSES[panel.quantity][0]}", lines)
