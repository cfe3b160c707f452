"""Lines with bands of one standard error: along a path, or from step to step of a training."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes

from . import scales, style

# Markers on a line: enough to name it, too few to hide it; and their size in a panel of our own look, in typographic points.
MARKERS, MARKER_SIZE = 12, 4
ANCHORS = {"π/3": math.pi / 3, "π": math.pi, "5π/3": 5 * math.pi / 3}


class Profile(NamedTuple):
    """A line through the points `x`, `y`, with the standard errors of `y`; nan where there is none."""

    x: pd.Series
    y: pd.Series
    sem: pd.Series


def draw_profiles(
    ax: Axes, profiles: Mapping[style.Look, Profile], dashes: Mapping[style.Look, Any], *, logarithmic: bool = True
) -> None:
    """Draw lines with bands on a vertical axis that is fitted to them; their markers take turns."""
    values, sems = (pd.concat([profile[place] for profile in profiles.values()], ignore_index=True) for place in (1, 2))
    positions, size = values, MARKER_SIZE * style.panel_scale(ax)
    if logarithmic:
        scales.log_axis(ax, values, sems, "y")
        positions = scales.log_positions(values)
    else:
        scales.linear_axis(ax, values, sems, "y")
    start = 0
    for place, (look, (x, y, sem)) in enumerate(profiles.items()):
        middle = positions.iloc[start : start + len(y)].set_axis(y.index)
        start += len(y)
        step = max(1, len(y) // MARKERS)
        (line,) = ax.plot(x, middle, color=look.colour, label=look.name, linewidth=1.2, linestyle=dashes[look], zorder=3)
        # No marker at the angle of one on another line.
        line.set(marker=look.marker, markersize=size, markevery=(place * step // len(profiles), step))
        if sem.notna().all():
            # Where all networks but one have 0, the error is as large as the mean, and 0 has no place on the axis.
            low = (middle - sem).clip(lower=ax.get_ylim()[0])
            ax.fill_between(x, low, middle + sem, color=look.colour, alpha=0.22, linewidth=0, label=look.name, zorder=2)


def angle_axis(ax: Axes, *, anchors: bool) -> None:
    """Make the horizontal axis one turn from left to right; with the angles of the three points of a fitted ellipse, if asked."""
    if anchors:
        names = [f"{name}\npoint {number}" for number, name in enumerate(ANCHORS, 1)]
        ax.set_xticks([0, *ANCHORS.values(), 2 * math.pi], ["0", *names, "2π"])
        ax.grid(visible=False, axis="x")
        for angle in ANCHORS.values():
            ax.axvline(angle, color=style.GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
    else:
        ax.set_xticks([quarter * math.pi / 2 for quarter in range(5)], ["0", "π/2", "π", "3π/2", "2π"])
    ax.set_xlim(0, 2 * math.pi)
