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
    "A slice through three training points, and the boundaries of the last hidden layer. One network per data set: the\n"
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
        One row per segment: `dataset`, `when`, and the two ends in the coordinates of the slice.
    distances
        One row per panel and training point: `dataset`, `when`, `point` (1 to 3), its `label`, its `distance` to the nearest
        boundary and the mean of that distance `anywhere`, both infinite if there is none; the point's coordinates, `x` and `y`;
        `id`, `seed`, `state` and `train_accuracy` of the network; its `change`, the points' mean distance after training over
        that before, nan where there is no boundary; and the number of `networks` of which that is the median.
    images
        By data set: the three points, uint8 `[3, channels, height, width]`.
    """

    segments: pd.DataFrame
    distances: pd.DataFrame
    images: Mapping[str, NDArray[np.uint8]]

    columns = len(MOMENTS)
    looks = LOOKS

    @property
    def panels(self) -> tuple[Panel, ...]:
        """Data set by data set."""
        return tuple(Panel(dataset, when) for dataset in self.images for when in MOMENTS)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Both tables, by what to append to the figure's file name."""
        return {"": self.segments, "_distances": self.distances}


def collect(store: Store) -> SliceData:
    """
    Return the slices of one network of each data set (paper, 4.1 and A.5.3).

    It is the fitted network of true labels whose points' mean distance changes by the median factor: the lower one of two, and of
    equal ones that of the smaller id. Data sets without a fitted network that has a slice show an unfitted one. Networks that
    have no boundary before or after training do not count, unless there are no others.

    Raises
    ------
    MissingDataError
        No network of true labels has a slice, or the survey lacks the boundaries of one that is to be drawn.
    """
    frame = store.frame(COLUMNS)
    true = frame[(frame["labels"] == "true") & frame["state"].isin(STATES)]
    kept = true[true["id"].isin(store.kept())]
    chosen = [network for _, networks in kept.groupby("dataset") if (network := _typical(store, networks))]
    if not chosen:
        raise MissingDataError(
            "figure 3 needs the boundaries on a slice of a network of true labels, fitted or not, and not too many to be kept, "
            "which the preset boundaries makes; "
            f"the survey has networks: {len(frame)}, of true labels with any arrays: {len(kept)}, with that: 0"
        )
    slices = [_slice(store, network) for network in chosen]
    drawn = [(when, network, arrays) for network, arrays in zip(chosen, slices, strict=True) for when in MOMENTS]
    return SliceData(
        pd.concat([_segments(*panel) for panel in drawn], ignore_index=True),
        pd.concat([_distances(*panel) for panel in drawn], ignore_index=True),
        {network["dataset"]: arrays["slice.images"] for network, arrays in zip(chosen, slices, strict=True)},
    )


def _typical(store: Store, networks: pd.DataFrame) -> Network | None:
    """Return the network of one data set that is drawn, with its `change` and of how many it is the median; None if none."""
    for state in STATES:
        changes = []
        for network in networks[networks["state"] == state].to_dict("records"):
            # These arrays are small; the boundaries themselves are read of the network that is drawn.
            before, after = (store.arrays(network["id"], f"slice.{when}.distance") for when in MOMENTS)
            if before and after:
                old, new = (float(distance.mean()) for arrays in (before, after) for distance in arrays.values())
                bounded = math.isfinite(old) and math.isfinite(new) and old > 0
                changes.append(network | {"change": new / old if bounded else math.nan})
        ordered = sorted(changes, key=lambda network: network["id"])
        if with_boundary := [network for network in ordered if not math.isnan(network["change"])]:
            ordered = sorted(with_boundary, key=lambda network: network["change"])
        if ordered:
            return ordered[(len(ordered) - 1) // 2] | {"networks": len(ordered)}
    return None


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
    return segments.assign(dataset=network["dataset"], when=when)[["dataset", "when", *ENDS]]


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
        both, points = (table[table["dataset"] == panel.dataset] for table in (data.segments, data.distances))
        segments, points = (table[table["when"] == panel.when] for table in (both, points))
        # One pen for before and after, or their densities could not be compared.
        x0, y0, x1, y1 = both[list(ENDS)].to_numpy().T
        lengths = np.hypot(x1 - x0, y1 - y0)
        _draw_segments(ax, segments, max(lengths[both["when"] == when].sum() for when in MOMENTS))
        ax.grid(visible=False)
        ax.spines[:].set_visible(True)
        ax.set(xlim=(-1, 1), ylim=(-1, 1), xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        for point, image, centre in zip(points[["x", "y"]].to_numpy(), data.images[panel.dataset], CENTRES, strict=True):
            _draw_point(ax, point, image, centre)
        style.title(ax, f"{panel.dataset}, {panel.when} training", _lines(points, len(segments), panel))


def _draw_segments(ax: Axes, segments: pd.DataFrame, longest: float) -> None:
    share = (LENGTH / max(longest, LENGTH)) ** 0.5
    width, opacity = (max(least, most * share) for least, most in (WIDTHS, OPACITIES))
    ends = segments[list(ENDS)].to_numpy().reshape(-1, 2, 2)
    many = len(ends) > MOST_SEGMENTS
    lines = LineCollection(list(ends), colors=LOOKS[0].colour, linewidths=width, alpha=opacity, rasterized=many, zorder=2)
    ax.add_collection(lines)


def _draw_point(ax: Axes, point: NDArray[np.float64], image: NDArray[np.uint8], centre: tuple[float, float]) -> None:
    """Mark a training point by a dot and a ring, both small, and join them to its image."""
    colour = LOOKS[1].colour
    halo = [Stroke(linewidth=0.9 + 2 * HALO, foreground="white"), Normal()]
    x, y = point
    ax.add_patch(Circle((x, y), RADIUS, fill=False, edgecolor=colour, linewidth=0.9, path_effects=halo, zorder=4))
    away = centre - point
    start = point + RADIUS * away / np.linalg.norm(away)
    ax.plot(*zip(start, centre, strict=True), color=colour, linewidth=0.9, path_effects=halo, zorder=4)
    ax.plot(x, y, "o", color=colour, markersize=2.4, markeredgewidth=0.4, markeredgecolor="white", zorder=4)
    style.picture(ax, image, centre, SIDE, colour)


def _lines(points: pd.DataFrame, segments: int, panel: Panel) -> list[str]:
    """Return the lines above a panel: which network it is, and of how many; segments; distances."""
    network = points.iloc[0]
    state = "unfitted " if network["state"] == "unfitted" else ""
    place = "one" if math.isnan(network["change"]) else "the median"
    count = network["networks"]
    which = f"the only {state}network" if count == 1 else f"{place} of {count:,} {state}networks"
    accuracy = f", train accuracy {100 * network['train_accuracy']:.5g}%" if panel.when == "after" else ""
    at_points, elsewhere = f"{points['distance'].mean():.2g} at the points", f"{network['anywhere']:.2g} elsewhere"
    distance = f"{at_points}, {elsewhere}" if segments else "no boundary"
    return [f"seed {network['seed']}, {which}", f"segments: {segments:,}{accuracy}", f"distance: {distance}"]
