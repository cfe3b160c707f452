"""Figure 3: the boundaries of the last hidden layer on a slice through three training points, before and after training."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ..errors import MissingDataError
from ..store import Store
from .drawing import style
from .drawing.interface import FigureData, Panel
from .drawing.slices import CENTRES, LOOKS, draw_image, draw_point, draw_segments, lengths, square_axes

CAPTION = (
    "A slice through three training points, and the boundaries of the last hidden layer. One network per data set: the\n"
    "one of median change of distance. Distance: to the nearest boundary, in the coordinates of the slice, in which the\n"
    "points are 0.8 from the centre, and rings have a radius of 0.05; a mean over the points, and elsewhere over their triangle."
)
MOMENTS = ("before", "after")
ENDS = ("x0", "y0", "x1", "y1")
STATES = ("fitted", "unfitted")
COLUMNS = ("id", "dataset", "seed", "state", "labels", "train_accuracy")
# The columns of the network in the table of training points.
OF_NETWORK = ("id", "seed", "state", "train_accuracy", "change", "networks")


def collect(store: Store) -> FigureData:
    """
    Return the slices of one network of each data set (paper, 4.1 and A.5.3).

    It is the fitted network of true labels whose points' mean distance changes by the median factor: the lower one of two, and of
    equal ones that of the smaller id. Data sets without a fitted network that has a slice show an unfitted one. Networks that
    have no boundary before or after training do not count, unless there are no others.

    Returns
    -------
    FigureData
        The quantity of a panel is `before` or `after` training. The main table has one row per segment: `dataset`, `when`, and
        the two ends in the coordinates of the slice. `_distances` has one row per panel and training point: `dataset`, `when`,
        `point` (1 to 3), its `label`, its `distance` to the nearest boundary and the mean of that distance `anywhere`, both
        infinite if there is none; the point's coordinates, `x` and `y`; `id`, `seed`, `state` and `train_accuracy` of the
        network; its `change`, the points' mean distance after training over that before, nan where there is no boundary; and the
        number of `networks` of which that is the median. The images of a data set are the three points.

    Raises
    ------
    MissingDataError
        No network of true labels has a slice, or the survey lacks the boundaries of one that is to be drawn.
    """
    frame = store.frame(COLUMNS)
    true = frame[(frame["labels"] == "true") & frame["state"].isin(STATES)]
    kept = true[true["id"].isin(store.kept())]
    segments: list[pd.DataFrame] = []
    distances: list[pd.DataFrame] = []
    images: dict[str, NDArray[np.uint8]] = {}
    for dataset, networks in kept.groupby("dataset"):
        network = _typical(store, networks)
        if network is None:
            continue
        arrays = {name.removeprefix("slice."): values for name, values in store.arrays(network["id"], "slice.").items()}
        if not all(f"{when}.segments" in arrays for when in MOMENTS):
            raise MissingDataError(
                f"figure 3 needs the boundaries on the slice of network {network['id']}, the one of {dataset} of median "
                "change of distance, which the preset boundaries makes; the survey has their distances alone"
            )
        images[str(dataset)] = arrays["images"]
        for when in MOMENTS:
            # Beyond the seventh digit float32 has nothing to say, and the file would be twice as long.
            ends = arrays[f"{when}.segments"].astype(np.float64).round(7).reshape(-1, 4)
            segments.append(pd.DataFrame(ends, columns=list(ENDS)).assign(dataset=dataset, when=when))
            points = pd.DataFrame({"dataset": dataset, "when": when, "point": [1, 2, 3], "label": arrays["labels"]})
            x, y = arrays["anchors"].T
            points = points.assign(distance=arrays[f"{when}.distance"], anywhere=arrays[f"{when}.anywhere"].item(), x=x, y=y)
            distances.append(points.assign(**{name: network[name] for name in OF_NETWORK}))
    if not images:
        raise MissingDataError(
            "figure 3 needs the boundaries on a slice of a network of true labels, fitted or not, and not too many to be kept, "
            "which the preset boundaries makes; "
            f"the survey has networks: {len(frame)}, of true labels with any arrays: {len(kept)}, with that: 0"
        )
    tables = {
        "": pd.concat(segments, ignore_index=True)[["dataset", "when", *ENDS]],
        "_distances": pd.concat(distances, ignore_index=True),
    }
    return FigureData(tables, [Panel(dataset, when) for dataset in images for when in MOMENTS], len(MOMENTS), LOOKS, images)


def _typical(store: Store, networks: pd.DataFrame) -> dict[Hashable, Any] | None:
    """Return the network of one data set that is drawn, with its `change` and of how many it is the median; None if none."""
    names = tuple(f"slice.{when}.distance" for when in MOMENTS)
    for state in STATES:
        rows = []
        for network in networks[networks["state"] == state].to_dict("records"):
            # These arrays are small; the boundaries themselves are read of the network that is drawn.
            arrays = store.arrays(network["id"], names)
            if len(arrays) == len(names):
                before, after = (float(arrays[name].mean()) for name in names)
                bounded = math.isfinite(before) and math.isfinite(after) and before > 0
                rows.append(network | {"change": after / before if bounded else math.nan})
        if rows:
            ordered = pd.DataFrame(rows).sort_values(["change", "id"])
            with_boundary = ordered.dropna(subset="change")
            ordered = ordered if with_boundary.empty else with_boundary
            return ordered.to_dict("records")[(len(ordered) - 1) // 2] | {"networks": len(ordered)}
    return None


def draw(data: FigureData, axes: Sequence[Axes]) -> None:
    """Draw each panel of the data on its axes."""
    for panel, ax in data.panels_on(axes):
        both, points = (table[table["dataset"] == panel.dataset] for table in data.tables.values())
        segments, points = (table[table["when"] == panel.quantity] for table in (both, points))
        # One pen for before and after, or their densities could not be compared.
        longest = max(lengths(_ends(both[both["when"] == when])).sum() for when in MOMENTS)
        draw_segments(ax, _ends(segments), longest)
        square_axes(ax)
        for point, image, centre in zip(points[["x", "y"]].to_numpy(), data.images[panel.dataset], CENTRES, strict=True):
            draw_point(ax, point)
            draw_image(ax, point, image, centre)
        style.title(ax, f"{panel.dataset}, {panel.quantity} training", _lines(points, len(segments), panel))


def _ends(segments: pd.DataFrame) -> NDArray[np.float64]:
    """Return the ends of segments, `[M, 2, 2]`."""
    return segments[list(ENDS)].to_numpy().reshape(-1, 2, 2)


def _lines(points: pd.DataFrame, segments: int, panel: Panel) -> list[str]:
    """Return the lines above a panel: which network it is, and of how many; segments; distances."""
    network = points.iloc[0]
    state = "unfitted " if network["state"] == "unfitted" else ""
    place = "one" if math.isnan(network["change"]) else "the median"
    count = network["networks"]
    which = f"the only {state}network" if count == 1 else f"{place} of {count:,} {state}networks"
    accuracy = f", train accuracy {100 * network['train_accuracy']:.5g}%" if panel.quantity == "after" else ""
    at_points, elsewhere = f"{points['distance'].mean():.2g} at the points", f"{network['anywhere']:.2g} elsewhere"
    distance = f"{at_points}, {elsewhere}" if segments else "no boundary"
    return [f"seed {network['seed']}, {which}", f"segments: {segments:,}{accuracy}", f"distance: {distance}"]
