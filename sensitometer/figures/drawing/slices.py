"""Boundaries on a slice through three points, and these points."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import Circle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from . import style

LOOKS = (style.Look("boundary", "black", "_"), style.Look("training point", "#f08a1c", "o"))
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


def square_axes(ax: Axes) -> None:
    """Give a panel the coordinates of a slice, from -1 to 1."""
    ax.grid(visible=False)
    ax.spines[:].set_visible(True)
    ax.set(xlim=(-1, 1), ylim=(-1, 1), xticks=(-1, 0, 1), yticks=(-1, 0, 1))


def lengths(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lengths of segments `[M, 2, 2]`; `[M]`."""
    across, up = (ends[:, 1] - ends[:, 0]).T
    total: NDArray[np.float64] = np.hypot(across, up)
    return total


def draw_segments(ax: Axes, ends: NDArray[np.float64], longest: float) -> None:
    """Draw segments `[M, 2, 2]` with the pen for boundaries of the length `longest` in all."""
    share = (LENGTH / max(longest, LENGTH)) ** 0.5
    width, opacity = (max(least, most * share) for least, most in (WIDTHS, OPACITIES))
    many = len(ends) > MOST_SEGMENTS
    lines = LineCollection(list(ends), colors=LOOKS[0].colour, linewidths=width, alpha=opacity, rasterized=many, zorder=2)
    ax.add_collection(lines)


def draw_point(ax: Axes, point: NDArray[np.float64]) -> None:
    """Mark a point of the slice by a dot and a ring, both small."""
    colour, (x, y) = LOOKS[1].colour, point
    ax.add_patch(Circle((x, y), RADIUS, fill=False, edgecolor=colour, linewidth=0.9, path_effects=_halo(), zorder=4))
    ax.plot(x, y, "o", color=colour, markersize=2.4, markeredgewidth=0.4, markeredgecolor="white", zorder=4)


def draw_image(ax: Axes, point: NDArray[np.float64], image: NDArray[np.uint8], centre: tuple[float, float]) -> None:
    """Draw the image of a marked point, joined to it."""
    away = centre - point
    start = point + RADIUS * away / np.linalg.norm(away)
    ax.plot(*zip(start, centre, strict=True), color=LOOKS[1].colour, linewidth=0.9, path_effects=_halo(), zorder=4)
    style.picture(ax, image, centre, SIDE, LOOKS[1].colour)


def _halo() -> list[Any]:
    return [Stroke(linewidth=0.9 + 2 * HALO, foreground="white"), Normal()]
