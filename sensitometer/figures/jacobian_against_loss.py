"""
Figure 6: the Jacobian norm at single test points against their losses (paper, 4.4, A.5.6).

A row for each loss that networks were trained on, a column a data set. Fashion-MNIST and CIFAR100 are those of Figure App. 9.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ..analysis.points import error_auroc
from ..analysis.seeds import NETWORK_COLUMNS
from ..errors import MissingDataError
from .drawing import style
from .drawing.interface import Store, check_axes

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
LOOKS = {True: style.Look("correctly classified", style.GREY, "o"), False: style.Look("wrongly classified", style.GREY, "x")}
# The columns of each network beside its points.
SETTINGS = ("dataset", "loss", "id", "width", "depth", "activation", "optimizer", "learning_rate")


class Loss(NamedTuple):
    """A loss that networks were trained on: what panels and axes call it, and the array of its values at points."""

    name: str
    label: str
    array: str


# From the upper row.
LOSSES = {
    "cross-entropy": Loss("cross-entropy", "Cross-entropy of the point (nats)", "points.cross_entropy"),
    "l2": Loss("l2 loss", r"$\ell_2$ loss of the point, $\|f - \mathrm{onehot}(y)\|^2\,/\,2$", "points.l2_loss"),
}


class Panel(NamedTuple):
    """One panel: a data set, and the loss that its networks were trained on."""

    dataset: str
    loss: str


@dataclass(frozen=True)
class LossData:
    """
    The data that Figure 6 or App. 9 draws.

    Parameters
    ----------
    points
        One row a point: `SETTINGS` of its network; `index` in the test set, `label` and `predicted`; whether it is `correct`;
        its loss, of the kind the network was trained on, `point_loss`; and its `jacobian_norm`.
    networks
        One row a network, panel by panel: `SETTINGS`, how many `points` it has and how many of them are `wrong`, and `auroc` of
        the Jacobian norm, null where no point is wrong, or none correct.
    panels
        Row by row.
    """

    points: pd.DataFrame
    networks: pd.DataFrame
    panels: tuple[Panel, ...]

    @property
    def columns(self) -> int:
        """The data sets of the upper row side by side; the lower one has no more."""
        return sum(panel.loss == self.panels[0].loss for panel in self.panels)

    @property
    def looks(self) -> list[style.Look]:
        """Entries for correct and wrong points, if there are any."""
        return [look for correct, look in LOOKS.items() if (self.points["correct"] == correct).any()]

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Both tables, by what to append to the figure's file name."""
        return {"": self.points, "_auroc": self.networks}


def collect(store: Store) -> LossData:
    """
    Return the points of random networks of all data sets but those of Figure App. 9.

    Raises
    ------
    MissingDataError
        The survey has no such points.
    """
    return loss_data(store, "6", f"other than {' and '.join(ELSEWHERE)}", lambda dataset: dataset not in ELSEWHERE)


def loss_data(store: Store, figure: str, which: str, drawn: Callable[[str], bool]) -> LossData:
    """
    Return the points of up to five random networks of each loss and data set.

    Parameters
    ----------
    store
        The survey's store.
    figure, which
        How an error calls the figure, and its data sets.
    drawn
        Whether a data set is one of the figure.

    Raises
    ------
    MissingDataError
        There are none.
    """
    fitted = fitted_of_true_labels(store)
    found: dict[Panel, list[pd.DataFrame]] = {}
    for panel in (Panel(dataset, loss) for dataset in filter(drawn, fitted["dataset"].unique()) for loss in LOSSES):
        networks = fitted[(fitted["dataset"] == panel.dataset) & (fitted["loss"] == panel.loss)]
        values = {"point_loss": LOSSES[panel.loss].array, "jacobian_norm": "points.jacobian_norm"}
        if tables := points_of_random_networks(store, networks, values, MOST_NETWORKS):
            found[panel] = tables
    if not found:
        raise MissingDataError(
            f"figure {figure} needs measures of single points of fitted networks of true labels and data sets {which}, "
            "which the presets per-point and per-point-l2 make; "
            f"the survey has networks: {len(store.frame(['id']))}, fitted of true labels: {len(fitted)}, with that: 0"
        )
    panels = _rows(found)
    tables = [table for panel in panels for table in found[panel]]
    return LossData(pd.concat(tables, ignore_index=True), pd.DataFrame([_with_auroc(table) for table in tables]), panels)


def fitted_of_true_labels(store: Store) -> pd.DataFrame:
    """Return the fitted networks that were trained on true labels."""
    fitted = store.frame(NETWORK_COLUMNS, state="fitted")
    return fitted[fitted["labels"] == "true"]


def points_of_random_networks(store: Store, networks: pd.DataFrame, values: dict[str, str], most: int) -> list[pd.DataFrame]:
    """
    Return the points of up to `most` random networks of which points are kept, a table each.

    By a hash of their ids: the same ones in whatever order they are stored, and few others when a survey grows.

    Parameters
    ----------
    store
        The survey's store.
    networks
        The networks to choose from.
    values
        By column, the names of arrays. Points where one is no finite number, as where logits overflow, are left out: they have no
        place on the axes, and no rank.
    most
        How many networks.

    Returns
    -------
    list of DataFrame
        One row a point: `SETTINGS` of the network; `index`, `label` and `predicted`; whether it is `correct`; and `values`.
    """
    rows = networks[networks["id"].isin(store.kept())][list(SETTINGS)].itertuples(index=False, name=None)
    candidates = [dict(zip(SETTINGS, row, strict=True)) for row in rows]
    candidates.sort(key=lambda settings: sha256(settings["id"].encode()).digest())
    # Of some networks only other things are kept. Each file is opened when its turn comes, and most never are.
    read = ((settings, store.arrays(settings["id"], "points.")) for settings in candidates)
    tables = (_points(settings, arrays, values) for settings, arrays in read if arrays)
    return list(islice((table for table in tables if len(table)), most))


def _points(settings: dict[str, Any], arrays: dict[str, NDArray[Any]], values: dict[str, str]) -> pd.DataFrame:
    points = pd.DataFrame(
        {
            **settings,
            **{name: arrays[f"points.{name}"] for name in ("index", "label", "predicted")},
            "correct": arrays["points.predicted"] == arrays["points.label"],
            **{column: arrays[name] for column, name in values.items()},
        }
    )
    finite: NDArray[np.bool_] = np.isfinite(points[[*values]].to_numpy()).all(axis=1)
    return points[finite]


def network_row(points: pd.DataFrame) -> dict[str, Any]:
    """Return the `SETTINGS` of a network from the table of its points, how many `points` it has, and how many are `wrong`."""
    settings = {name: points[name].iloc[0] for name in SETTINGS}
    return {**settings, "points": len(points), "wrong": int((~points["correct"]).sum())}


def _with_auroc(points: pd.DataFrame) -> dict[str, Any]:
    return {**network_row(points), "auroc": error_auroc(points["jacobian_norm"], ~points["correct"])}


def _rows(panels: dict[Panel, list[pd.DataFrame]]) -> tuple[Panel, ...]:
    """Order the panels, cross-entropy above, so that filling row by row puts those of one data set below each other."""
    of_loss = {loss: {panel.dataset for panel in panels if panel.loss == loss} for loss in LOSSES}
    common = set.intersection(*of_loss.values())
    # But if l2 has more panels, it comes first: an upper row that ends early would be filled from the lower one.
    losses = sorted(of_loss, key=lambda loss: -len(of_loss[loss]))
    return tuple(
        Panel(dataset, loss)
        for loss in losses
        for dataset in sorted(of_loss[loss], key=lambda dataset: (dataset not in common, dataset))
    )


def draw(data: LossData, axes: Sequence[Axes]) -> None:
    """Draw each panel of the data on its axes."""
    check_axes(axes, data.panels)
    for panel, ax in zip(data.panels, axes, strict=True):
        points, networks = (
            table[(table["dataset"] == panel.dataset) & (table["loss"] == panel.loss)] for table in (data.points, data.networks)
        )
        colours = dict(zip(networks["id"], style.NETWORKS, strict=False))
        draw_points(ax, points, "point_loss", "jacobian_norm", points["id"].map(colours))
        ax.set_xlabel(LOSSES[panel.loss].label)
        ax.set_ylabel(NORM_LABEL)
        style.title(ax, f"{panel.dataset}, {LOSSES[panel.loss].name}", _lines(networks))


def draw_points(ax: Axes, points: pd.DataFrame, across: str, up: str, colours: pd.Series) -> None:
    """Draw points, each in its colour, the wrong ones over the correct ones, on logarithmic axes fitted to the two columns."""
    style.log_axes(ax, points[across], points[up])
    # Mixed, lest the last network hides the others.
    order = np.random.default_rng(0).permutation(len(points))
    x, y = (style.log_positions(points[name]).iloc[order] for name in (across, up))
    for correct, look in LOOKS.items():
        own = points["correct"].iloc[order] == correct
        size, width, alpha = (5, 0.0, 0.6) if correct else (13, 0.8, 0.9)
        ax.scatter(
            x[own],
            y[own],
            s=size,
            c=colours.iloc[order][own],
            marker=look.marker,
            alpha=alpha,
            linewidths=width,
            label=look.name,
            rasterized=True,
            zorder=3,
        )


def wrong_line(wrong: int, points: int) -> str:
    """Say how many of the points are wrong."""
    return f"{100 * wrong / points:.3g}% of {points:,} points wrong"


def _lines(networks: pd.DataFrame) -> list[str]:
    measured = networks["auroc"].dropna()
    count = f"{len(networks)} network{'s' if len(networks) > 1 else ''}"
    area = "undefined" if measured.empty else f"{measured.mean():.2f}"
    of = f" (mean over {len(measured)})" if 0 < len(measured) < len(networks) else ""
    return [f"n = {count}, {wrong_line(int(networks['wrong'].sum()), int(networks['points'].sum()))}", f"AUROC = {area}{of}"]
