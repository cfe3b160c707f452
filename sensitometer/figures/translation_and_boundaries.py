r"""
Figure App. 7: the loop through all translations of an image, and the boundaries of linear regions that it crosses.

The loop lies in many dimensions and is drawn projected on a plane, which `store/arrays.py` names. The loop and the places where
boundaries cross it are exact. A stroke is where the hyperplane of a unit of the first hidden layer meets the plane that goes
through the crossing and is parallel to the one drawn. Each crossing has its own such plane: two strokes that meet away from the
loop need not be two boundaries that meet. Boundaries of deeper layers are bent, and are counted, not drawn.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ..analysis.seeds import NETWORK_COLUMNS, fitted_networks
from ..errors import MissingDataError
from ..store import Store
from .drawing import style
from .drawing.interface import FigureData

CAPTION = (
    "All horizontal shifts of a test image, and the straight steps between them. Loop and\n"
    "crossings are exact; a stroke is where the hyperplane of a unit of the first hidden layer\n"
    "cuts the plane through the crossing that is parallel to the one drawn."
)
LOOP = style.Look("translation loop", "#1a1a1a", "_")
BOUNDARY = style.Look("boundary crossed", "#c2571a", "|")
PLACE = style.Look("shift shown", "#16588e", "o")
# As a share of the loop's diameter: long enough to be seen as a boundary, short enough not to be taken for all of it.
STROKE = 0.15
# In radii of the loop: how far from its centre the images are, outside the strokes, how large, and how far the axes reach.
DISTANCE, SIZE, REACH = 1.5, 0.48, 1.8
# The least angle between the directions of two images.
APART = np.pi / 4


class Loop(NamedTuple):
    """
    A panel: the loop of one network.

    `transitions` are those of all units of all hidden layers; `places`, `[4, 2]`, are where the vertices that are shown lie.
    """

    dataset: str
    transitions: int
    places: NDArray[np.float32]


def collect(store: Store) -> FigureData:
    """
    Return the loop of one network of each data set (paper, S3 and A.1.2).

    It is the fitted one of true labels, of the smallest seed, then id.

    Returns
    -------
    FigureData
        Coordinates are in the plane drawn, in units of the inputs, the loop's mean at 0. The main table has one row per point, in
        the order of the loop, which is closed: `dataset`, `network`, `first`, `second`. `_crossings` has one row per crossing:
        `dataset`, `network`, `unit` (whose boundary it is), `first`, `second`, and the unit vector along the boundary,
        `first_along` and `second_along`. The images of a data set are four vertices of the loop.

    Raises
    ------
    MissingDataError
        No fitted network of true labels has one.
    """
    frame = store.frame(NETWORK_COLUMNS)
    networks = fitted_networks(frame, (), labels="true").sort_values(["dataset", "seed", "id"])
    loops: list[Loop] = []
    images: dict[str, NDArray[np.uint8]] = {}
    curves, crossings = [], []
    for row in networks[networks["id"].isin(store.kept())].to_dict("records"):
        dataset, id_ = row["dataset"], row["id"]
        if dataset in images or not (arrays := store.arrays(id_, "paths.translation.")):
            continue
        arrays = {name.removeprefix("paths.translation."): values for name, values in arrays.items()}
        images[dataset] = arrays["images"]
        loops.append(Loop(dataset, int(arrays["transitions"].sum()), arrays["places"]))
        curve, place, along = (arrays[name].astype(np.float64).T for name in ("curve", "crossings", "directions"))
        network = {"dataset": dataset, "network": id_}
        curves.append(pd.DataFrame({**network, "first": curve[0], "second": curve[1]}))
        ends = {"first": place[0], "second": place[1], "first_along": along[0], "second_along": along[1]}
        crossings.append(pd.DataFrame({**network, "unit": arrays["unit"], **ends}))
    if not loops:
        raise MissingDataError(
            "figure 7 needs the translation loop of a fitted, piecewise-linear network of true labels with the boundaries that "
            "cross it, which the preset trajectory makes; "
            f"the survey has networks: {len(frame)}, fitted of true labels: {len(networks)}, with that: 0"
        )
    tables = {"": pd.concat(curves, ignore_index=True), "_crossings": pd.concat(crossings, ignore_index=True)}
    # Near a square.
    columns = {1: 1, 2: 2, 4: 2}.get(len(loops), 3)
    return FigureData(tables, loops, columns, (LOOP, BOUNDARY, PLACE), images)


def draw(data: FigureData, axes: Sequence[Axes]) -> None:
    """Draw each loop on its axes."""
    for panel, ax in data.panels_on(axes):
        curve, crossings = (table[table["dataset"] == panel.dataset] for table in data.tables.values())
        _draw_loop(curve[["first", "second"]].to_numpy(), crossings, data.images[panel.dataset], panel.places, ax)
        lines = [
            f"boundaries drawn: at {len(crossings):,} crossings, of {crossings['unit'].nunique():,} units",
            f"transitions of all hidden layers: {panel.transitions:,}",
        ]
        style.title(ax, panel.dataset, lines)


def _draw_loop(
    curve: NDArray[np.float64], crossings: pd.DataFrame, images: NDArray[np.uint8], places: NDArray[np.float32], ax: Axes
) -> None:
    # An image without contrast is shifted onto itself: its loop is a point.
    radius = float(np.linalg.norm(curve, axis=1).max()) or 1.0
    ax.set(xlim=(-REACH * radius, REACH * radius), ylim=(-REACH * radius, REACH * radius), aspect="equal")
    closed = np.concatenate([curve, curve[:1]])
    half = STROKE * radius * crossings[["first_along", "second_along"]].to_numpy()
    middle = crossings[["first", "second"]].to_numpy()
    strokes = np.stack([middle - half, middle + half], axis=1)
    ax.add_collection(LineCollection(list(strokes), colors=BOUNDARY.colour, linewidths=0.9, alpha=0.7, zorder=2))
    ax.plot(*closed.T, color=LOOP.colour, linewidth=1.3, zorder=3)
    centres = DISTANCE * radius * _spread(places)
    for image, place, centre in zip(images, places, centres, strict=True):
        ax.plot(*np.stack([place, centre]).T, color=PLACE.colour, linewidth=0.8, zorder=4)
        ax.plot(*place, PLACE.marker, color=PLACE.colour, markersize=5, markeredgecolor="white", zorder=5)
        style.picture(ax, image, (float(centre[0]), float(centre[1])), SIZE * radius)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(style.TICKS, steps=[1, 2, 5, 10]))
    units = "(units of the inputs)"
    ax.set(xlabel=f"First direction of the plane {units}", ylabel=f"Second direction of the plane\n{units}")


def _spread(places: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """
    Return unit vectors in the directions of `places` `[n, 2]`, or as near to these as images do not meet; `[n, 2]`.

    Places may coincide: where the strongest wave along the image's width has two periods, the projected loop goes round twice.
    """
    angles = np.arctan2(places[:, 1], places[:, 0]).astype(np.float64)
    order = np.argsort(angles, kind="stable")
    turns = angles[order]
    # Neighbours that are too near part, each by half of what is missing, until none are.
    for _ in range(100):
        gaps = np.diff(turns, append=turns[0] + 2 * np.pi)
        parting = np.clip(APART - gaps, 0, None) / 2
        turns += np.roll(parting, 1) - parting
    angles[order] = turns
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)
