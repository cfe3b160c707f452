"""Figure 3: the boundaries of the last hidden layer on a slice through three training points, before and after training."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from ..errors import MissingDataError
from .drawing import style
from .drawing.interface import Store, check_axes

CAPTION = (
    "A slice through three training points, and the boundaries of the last hidden layer. One network a data set: the\n"
    "one of median change of distance. Distance: to the nearest boundary, in the coordinates of the slice, in which the\n"
    "points are 0.8 from the centre, and rings have a radius of 0.05; a mean over the points, and elsewhere over their triangle."
)
LOOKS = (style.Look("boundary", "black", "_"), style.Look("training point", "#f08a1c", "o"))
MOMENTS = ("before", "after")
ENDS = ("x0", "y0", "x1", "y1")
STATES = ("fitted", "unfitted")
COLUMNS = ("id", "dataset", "seed", "state", "labels", "train_accuracy")
# In the coordinates of the slice: the ring around a point, in which and near which boundaries are seen, the side of its image,
# in which a digit can just be read, and where the images' centres are, outside the triangle between the points.
RADIUS, SIDE = 0.05, 0.22
CENTRES = ((0.84, 0.84), (-0.84, 0.32), (0.84, -0.84))
# In typographic points, the white on either side of what would not be seen among the lines.
HALO = 0.7
# Segments of a panel beyond which a vector file holds them as a bitmap.
MOST_SEGMENTS = 20_000
# The boundaries' length in all, in the coordinates of the slice, up to which a panel's lines have the full width, in
# typographic points, and opacity. Beyond, both fall with the root of the length, to the least of a line that is seen alone.
LENGTH, WIDTHS, OPACITIES = 150.0, (0.35, 0.8), (0.35, 0.9)

# A network's row, and its arrays by name.
Network = dict[Hashable, Any]
Arrays = dict[str, NDArray[Any]]


class Panel(NamedTuple):
    """One panel: a data set, and whether its network is shown before or after training."""

    dataset: str
    when: str


@dataclass(frozen=True)
class SliceData:
    """
    The data that Figure 3 draws.

    Parameters
    ----------
    segments
        One row a segment: `dataset`, `when`, and the two ends in the coordinates of the slice.
    distances
        One row a panel and training point: `dataset`, `when`, `point` (1 to 3), its `label`, its `distance` to the nearest
        boundary and the mean of that distance `anywhere`, both infinite if there is none; where the point is, `x` and `y`;
        `id`, `seed`, `state` and `train_accuracy` of the network; its `change`, the points' mean distance after training over
        that before, nan where there is no boundary; and among how many `networks` that is the median.
    images
        By data set: the three points, uint8 `[3, channels, height, width]`.
    """

    segments: pd.DataFrame
    distances: pd.DataFrame
    images: Mapping[str, NDArray[np.uint8]]

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Data set by data set."""
        return tuple(Panel(dataset, when) for dataset in self.images for when in MOMENTS)

    @property
    def columns(self) -> int:
        """Before and after side by side."""
        return len(MOMENTS)

    @property
    def looks(self) -> Sequence[style.Look]:
        """Entries for the lines and for the insets' frames."""
        return LOOKS

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Both tables, by what to append to the figure's file name."""
        return {"": self.segments, "_distances": self.distances}


def collect(store: Store) -> SliceData:
    """
    Return the slices of one network of each data set (paper, 4.1 and A.5.3).

    Of the fitted networks of true labels that have a slice, or where none is fitted of the others, it is the one whose points'
    mean distance changes by the median factor, the lower one of two, and of equal ones that of the smaller id. Those that have
    no boundary before or after training do not count, unless there are no others.

    Raises
    ------
    MissingDataError
        No network of true labels has a slice, or the survey lacks the boundaries of one that is to be drawn.
    """
    frame = store.frame(COLUMNS)
    true = frame[(frame["labels"] == "true") & frame["state"].isin(STATES)]
    networks = true[true["id"].isin(store.kept())]
    chosen = [found for _, own in networks.groupby("dataset") if (found := _typical(store, own))]
    if not chosen:
        raise MissingDataError(
            "figure 3 needs the boundaries on a slice of a network of true labels, fitted or not, and not too many to be kept, "
            "which the preset boundaries makes; "
            f"the survey has networks: {len(frame)}, of true labels with any arrays: {len(networks)}, with that: 0"
        )
    drawn = [(network, _slice(store, network)) for network in chosen]
    return SliceData(
        pd.concat([_segments(when, *own) for own in drawn for when in MOMENTS], ignore_index=True),
        pd.concat([_distances(when, *own) for own in drawn for when in MOMENTS], ignore_index=True),
        {network["dataset"]: arrays["slice.images"] for network, arrays in drawn},
    )


def _typical(store: Store, networks: pd.DataFrame) -> Network | None:
    """Return the network of one data set that is drawn, with its `change` and of how many it is the median; None of none."""
    for state in STATES:
        changes = []
        for network in networks[networks["state"] == state].to_dict("records"):
            # Their arrays are small; the boundaries themselves are read of the one that is drawn.
            after, before = (store.arrays(network["id"], f"slice.{when}.distance") for when in ("after", "before"))
            if after and before:
                change = _change(before["slice.before.distance"], after["slice.after.distance"])
                changes.append(network | {"change": change})
        bounded = [network for network in changes if not math.isnan(network["change"])]
        ordered = sorted(bounded, key=lambda network: (network["change"], network["id"]))
        ordered = ordered or sorted(changes, key=lambda network: network["id"])
        if ordered:
            return ordered[(len(ordered) - 1) // 2] | {"networks": len(ordered)}
    return None


def _change(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Return by which factor the mean distance changes; nan where it is none."""
    old, new = float(before.mean()), float(after.mean())
    return new / old if math.isfinite(old) and math.isfinite(new) and old > 0 else math.nan


def _slice(store: Store, network: Network) -> Arrays:
    arrays = store.arrays(network["id"], "slice.")
    if not all(f"slice.{when}.segments" in arrays for when in MOMENTS):
        raise MissingDataError(
            f"figure 3 needs the boundaries on the slice of network {network['id']}, the one of {network['dataset']} of median "
            "change of distance, which the preset boundaries makes; the survey has their distances alone"
        )
    return arrays


def _segments(when: str, network: Network, arrays: Arrays) -> pd.DataFrame:
    # Beyond the seventh digit float32 has nothing to say, and the file would be twice as long.
    ends = arrays[f"slice.{when}.segments"].astype(np.float64).round(7).reshape(-1, 4)
    segments = pd.DataFrame(ends, columns=list(ENDS))
    segments.insert(0, "dataset", network["dataset"])
    segments.insert(1, "when", when)
    return segments


def _distances(when: str, network: Network, arrays: Arrays) -> pd.DataFrame:
    x, y = arrays["slice.anchors"].T
    return pd.DataFrame(
        {
            "dataset": network["dataset"],
            "when": when,
            "point": np.arange(1, 4),
            "label": arrays["slice.labels"],
            "distance": arrays[f"slice.{when}.distance"],
            "anywhere": arrays[f"slice.{when}.anywhere"].item(),
            "x": x,
            "y": y,
            **{name: network[name] for name in ("id", "seed", "state", "train_accuracy", "change", "networks")},
        }
    )


def draw(data: SliceData, axes: Sequence[Axes]) -> None:
    """Draw each panel of the data on its axes."""
    check_axes(axes, data.panels)
    for panel, ax in zip(data.panels, axes, strict=True):
        both = data.segments[data.segments["dataset"] == panel.dataset]
        segments = both[both["when"] == panel.when]
        points = data.distances[(data.distances["dataset"] == panel.dataset) & (data.distances["when"] == panel.when)]
        # One pen for before and after, or their densities could not be compared.
        _draw_segments(ax, segments, max(_length(both[both["when"] == when]) for when in MOMENTS))
        _draw_points(ax, points, data.images[panel.dataset])
        style.title(ax, f"{panel.dataset}, {panel.when} training", _lines(points, len(segments), panel))


def _length(segments: pd.DataFrame) -> float:
    x0, y0, x1, y1 = (segments[name] for name in ENDS)
    return float(np.hypot(x1 - x0, y1 - y0).sum())


def _draw_segments(ax: Axes, segments: pd.DataFrame, longest: float) -> None:
    share = (LENGTH / max(longest, LENGTH)) ** 0.5
    width, opacity = (max(least, most * share) for least, most in (WIDTHS, OPACITIES))
    ends = segments[list(ENDS)].to_numpy().reshape(-1, 2, 2)
    many = len(ends) > MOST_SEGMENTS
    lines = LineCollection(list(ends), colors=LOOKS[0].colour, linewidths=width, alpha=opacity, rasterized=many, zorder=2)
    ax.add_collection(lines)


def _draw_points(ax: Axes, points: pd.DataFrame, images: NDArray[np.uint8]) -> None:
    ax.grid(visible=False)
    ax.spines[:].set_visible(True)
    ax.set(xlim=(-1, 1), ylim=(-1, 1), xticks=(-1, 0, 1), yticks=(-1, 0, 1))
    for x, y, image, centre in zip(points["x"], points["y"], images, CENTRES, strict=True):
        _draw_point(ax, (x, y), image, centre)


def _draw_point(ax: Axes, point: tuple[float, float], image: NDArray[np.uint8], centre: tuple[float, float]) -> None:
    """Mark a training point by a dot and a ring, both small, and join them to its image."""
    colour = LOOKS[1].colour
    halo = [Stroke(linewidth=0.9 + 2 * HALO, foreground="white"), Normal()]
    ax.add_patch(Circle(point, RADIUS, fill=False, edgecolor=colour, linewidth=0.9, path_effects=halo, zorder=4))
    start = np.add(point, RADIUS * _unit(np.subtract(centre, point)))
    ax.plot(*zip(start, centre, strict=True), color=colour, linewidth=0.9, path_effects=halo, zorder=4)
    ax.plot(*point, "o", color=colour, markersize=2.4, markeredgewidth=0.4, markeredgecolor="white", zorder=4)
    style.picture(ax, image, centre, SIDE, colour)


def _unit(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    return vector / np.linalg.norm(vector)


def _lines(points: pd.DataFrame, segments: int, panel: Panel) -> list[str]:
    network = points.iloc[0]
    accuracy = f", train accuracy {100 * network['train_accuracy']:.5g}%" if panel.when == "after" else ""
    found = f"{points['distance'].mean():.2g} at the points, {network['anywhere']:.2g} elsewhere" if segments else "no boundary"
    return [_which(network), f"segments: {segments:,}{accuracy}", f"distance: {found}"]


def _which(network: pd.Series) -> str:
    """Say which network it is, and of how many."""
    unfitted = "unfitted " if network["state"] == "unfitted" else ""
    if network["networks"] == 1:
        return f"seed {network['seed']}, the only {unfitted}network"
    place = "one" if math.isnan(network["change"]) else "the median"
    return f"seed {network['seed']}, {place} of {network['networks']:,} {unfitted}networks"
