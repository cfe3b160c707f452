"""Figure 3: the boundaries of the last hidden layer on a slice through three training points, before and after training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from ..errors import MissingDataError
from . import style
from .interface import Store, check_axes

CAPTION = (
    "A slice through three training points, one network a data set, and the boundaries of its last hidden layer.\n"
    "Distance: to the nearest boundary, in the coordinates of the slice, in which the points lie 0.8 from the\n"
    "centre; elsewhere: its mean over the triangle between the points."
)
LOOKS = (style.Look("boundary", "black", "_"), style.Look("training point", "#f08a1c", "s"))
MOMENTS = ("before", "after")
ENDS = ("x0", "y0", "x1", "y1")
COLUMNS = ("id", "dataset", "seed", "state", "train_accuracy")
# The side of an inset, in the coordinates of the slice: a digit can just be read, and boundaries near it are seen.
SIDE = 0.2
# Segments of a panel beyond which a vector file holds them as a bitmap.
MOST_SEGMENTS = 20_000
# The boundaries' length in all, in the coordinates of the slice, up to which a panel's lines have the full width, in
# typographic points, and opacity. Beyond, both fall with the root of the length, to the least of a line that is seen alone.
LENGTH, WIDTHS, OPACITIES = 150.0, (0.35, 0.8), (0.35, 0.9)


class Panel(NamedTuple):
    """One panel: a data set, and whether its network is shown before or after training."""

    dataset: str
    when: str


@dataclass(frozen=True)
class SliceData:
    """
    What Figure 3 draws.

    Parameters
    ----------
    segments
        One row a segment: `dataset`, `when`, and the two ends in the coordinates of the slice.
    distances
        One row a panel and training point: `dataset`, `when`, `point` (1 to 3), its `label`, its `distance` to the nearest
        boundary and the mean of that distance `anywhere`, both infinite if there is none; where the point is, `x` and `y`; and
        `id`, `state` and `train_accuracy` of the network.
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
        """Of the lines and of the insets' frames."""
        return LOOKS

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Both tables, by what to append to the figure's file name."""
        return {"": self.segments, "_distances": self.distances}


def collect(store: Store) -> SliceData:
    """
    Return the slices of one network of each data set (paper, 4.1 and A.5.3): of the smallest seed, a fitted one if there is any.

    Raises
    ------
    MissingDataError
        No network of the survey has a slice.
    """
    frame = store.frame(COLUMNS)
    networks = frame[frame["state"].isin(["fitted", "unfitted"]) & frame["id"].isin(store.kept())]
    # As words, "fitted" comes before "unfitted".
    networks = networks.sort_values(["dataset", "state", "seed", "id"])
    chosen: dict[str, tuple[dict[Any, Any], dict[str, NDArray[Any]]]] = {}
    for network in networks.to_dict("records"):
        if network["dataset"] not in chosen and (arrays := store.arrays(network["id"], "slice.")):
            chosen[network["dataset"]] = network, arrays
    if not chosen:
        raise MissingDataError(
            "figure 3 needs the boundaries on a slice of a network, fitted or not, which the preset boundaries makes; "
            f"the survey has networks: {len(frame)}, with any arrays: {len(networks)}, with that: 0"
        )
    return SliceData(
        pd.concat([_segments(dataset, when, own[1]) for dataset, own in chosen.items() for when in MOMENTS], ignore_index=True),
        pd.concat([_distances(when, *own) for own in chosen.values() for when in MOMENTS], ignore_index=True),
        {dataset: arrays["slice.images"] for dataset, (_, arrays) in chosen.items()},
    )


def _segments(dataset: str, when: str, arrays: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
    # Beyond the seventh digit float32 has nothing to say, and the file would be twice as long.
    ends = arrays[f"slice.{when}.segments"].astype(np.float64).round(7).reshape(-1, 4)
    segments = pd.DataFrame(ends, columns=list(ENDS))
    segments.insert(0, "dataset", dataset)
    segments.insert(1, "when", when)
    return segments


def _distances(when: str, network: Mapping[Any, Any], arrays: Mapping[str, NDArray[Any]]) -> pd.DataFrame:
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
            **{name: network[name] for name in ("id", "state", "train_accuracy")},
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
        style.title(ax, f"{panel.dataset}, {panel.when} training", _lines(panel, points, len(segments)))


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
    for x, y, image in zip(points["x"], points["y"], images, strict=True):
        style.picture(ax, image, (x, y), SIDE, LOOKS[1].colour)


def _lines(panel: Panel, points: pd.DataFrame, segments: int) -> list[str]:
    accuracy = f", train accuracy {100 * points['train_accuracy'].iloc[0]:.5g}%" if panel.when == "after" else ""
    distance, anywhere = points["distance"].mean(), points["anywhere"].iloc[0]
    found = f"{distance:.3g} at the points (mean), {anywhere:.3g} elsewhere" if segments else "no boundary"
    return [f"boundary segments: {segments:,}{accuracy}", f"distance: {found}"]
