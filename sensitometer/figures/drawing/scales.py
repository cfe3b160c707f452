"""The scales of axes: logarithmic ones with a place for 0, and shares, with an empty stretch shortened."""

import math
from typing import Literal

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from .style import GREY, TICKS, in_paper, panel_scale

EMPTY = "#f0f0f0"
# Smaller values are as good as 0, and their logarithm has no meaning left.
SMALLEST = 1e-300
# An axis of fewer decades has ticks at 2 and 5 as well, or where these do not fit at 3.
FEW_DECADES = 1.8
# Powers of ten that fit under a panel, written as 10 to the minus 15.
MOST_POWERS = 6
# Most stretches between numbers that lie side by side, on an axis of shares.
FEW_TICKS = 5
# An empty stretch of an axis of shares that is worth shortening; shorter ones lie between the points of a small survey.
LONG_EMPTY = 0.2
# The room that the number of a tick takes, as a share of a panel, from the tick "0" on: across it, and up.
_ROOM_FOR_NUMBERS = {"x": 0.1, "y": 0.05}


def log_positions(values: pd.Series) -> pd.Series:
    """
    Return where to draw `values`, 0 or more, on a logarithmic axis.

    A value below 1e-300, such as a train loss of exactly 0, has no place there: it is drawn before all others, at the tick
    "0" of a shaded band (see `log_axis`). Everything else is drawn where it is.
    """
    return values.where(values >= SMALLEST, _zero_position(values))


def _zero_position(values: pd.Series) -> float:
    shown = values[values >= SMALLEST]
    if shown.empty:
        return 1.0
    decades = math.log10(shown.max()) - math.log10(shown.min())
    return float(shown.min() / 10 ** min(max(0.14 * decades, 0.3), 4))


def log_axis(ax: Axes, values: pd.Series, sems: pd.Series | None = None, on: Literal["x", "y"] = "x") -> Axis:
    """
    Make one axis of `ax` logarithmic, fit it to `values` with one standard error each way, and return it.

    The lower end of a bar counts down to half of its value only: one that reaches to nearly 0 would take the whole axis, and
    is cut at the edge instead.
    """
    positions = log_positions(values)
    spread = 0.0 if sems is None else sems.fillna(0.0)
    low = math.log10((positions - spread).clip(lower=positions / 2).min())
    high = math.log10((positions + spread).max())
    # At least a decade, so that a single point has ticks on both sides.
    margin = max(0.05 * (high - low), (1 - (high - low)) / 2)
    low, high = max(low - margin, -307.0), high + margin
    getattr(ax, f"set_{on}scale")("log", nonpositive="clip")
    getattr(ax, f"set_{on}lim")(10**low, 10**high)
    axis: Axis = getattr(ax, f"{on}axis")
    # How many numbers fit, in units of those that fit in our own look.
    room = panel_scale(ax) * 9 / float(mpl.rcParams["font.size"])
    if high - low < FEW_DECADES:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high - low < room * FEW_DECADES else (1, 3)))
        axis.set_major_formatter(FuncFormatter(_short_number))
    else:
        axis.set_major_locator(LogLocator(numticks=int(room * MOST_POWERS)))
    axis.set_minor_formatter(NullFormatter())
    if not (values < SMALLEST).any():
        return axis
    # The band of the values of 0, with the tick "0" in place of the logarithmic ones there.
    zero, shown = _zero_position(values), values[values >= SMALLEST]
    left, right = axis.get_view_interval()
    border = right if shown.empty else math.sqrt(zero) * math.sqrt(shown.min())
    number = axis.get_major_formatter()
    ticks = [tick for tick in axis.get_major_locator().tick_values(border, right) if border < tick <= right]
    axis.set_major_locator(FixedLocator([zero, *ticks]))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda tick, _: "0" if tick == zero else number(tick)))
    getattr(ax, f"ax{'v' if on == 'x' else 'h'}span")(left, border, color=EMPTY, zorder=0)
    return axis


def linear_axis(ax: Axes, values: pd.Series, sems: pd.Series | None = None, on: Literal["x", "y"] = "x") -> None:
    """Fit a linear axis of `ax` to `values` with one standard error each way."""
    spread = 0.0 if sems is None else sems.fillna(0.0)
    low, high = float((values - spread).min()), float((values + spread).max())
    margin = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    getattr(ax, f"set_{on}lim")(low - margin, high + margin)


def _short_number(tick: float, _: int | None = None) -> str:
    """Write a digit times a power of ten: in full where that is short, else as a product."""
    if 1e-4 <= tick < 1e5:
        return f"{tick:g}"
    digit, exponent = f"{tick:.0e}".split("e")
    factor = "" if digit == "1" else rf"{digit}\times "
    return rf"${factor}10^{{{int(exponent)}}}$"


def share_axis(ax: Axes, values: pd.Series, sems: pd.Series | None) -> None:
    """
    Fit the vertical axis of `ax` to shares (0 to 1), one standard error each way, and number it in percentage points.

    Where most of the axis would be empty, as it is between networks trained on true and on random labels, the empty stretch is
    shortened, shaded and said to be so; above and below it a percentage point is equally long. In the paper's look no stretch
    is shortened, and the numbers are shares.
    """
    spread = 0.0 if sems is None else sems.fillna(0.0)
    lows, highs = values - spread, values + spread
    low, high = float(lows.min()), float(highs.max())
    margin = _share_margin(low, high)
    bottom, top = _longest_empty(lows, highs)
    used = (high - low) - (top - bottom)
    if top - bottom > max(used, LONG_EMPTY) and not in_paper():
        margin = max(0.08 * used, 0.005)
        _shorten(ax, bottom + margin, top - margin, to=0.15 * used + margin)
        ticks = _ticks_around(low - margin, bottom + margin, top - margin, high + margin)
        ax.yaxis.set_major_locator(FixedLocator(ticks))
    else:
        ax.yaxis.set_major_locator(MaxNLocator(TICKS, steps=[1, 2, 5, 10]))
    ax.set_ylim(low - margin, high + margin)
    ax.yaxis.set_major_formatter(_share_formatter())


def share_label(name: str) -> str:
    """Return the name of a share with the unit in which axes are numbered."""
    return name if in_paper() else f"{name} (percentage points)"


def _share_formatter() -> FuncFormatter:
    """Return the formatter of shares; the data stay shares, as in the table."""
    factor = 1 if in_paper() else 100
    return FuncFormatter(lambda tick, _: f"{factor * tick:.6g}".replace("-", "−"))


def _share_margin(low: float, high: float) -> float:
    """Return the room beside shares from `low` to `high`, with which an axis has at least two percentage points."""
    return max(0.06 * (high - low), (0.02 - (high - low)) / 2)


def equal_axes(ax: Axes, values: pd.Series, *, logarithmic: bool) -> None:
    """
    Fit both axes of `ax` to the same `values`, and draw the diagonal.

    Logarithmic axes are those of `log_axis`; others are for shares (0 to 1), numbered as those of `share_axis`.
    """
    if logarithmic:
        log_axis(ax, values, on="x")
        log_axis(ax, values, on="y")
    else:
        low, high = float(values.min()), float(values.max())
        margin = _share_margin(low, high)
        ax.set(xlim=(low - margin, high + margin), ylim=(low - margin, high + margin))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(FEW_TICKS, steps=[1, 2, 5, 10]))
            axis.set_major_formatter(_share_formatter())
    ax.set_box_aspect(1)
    # Over the points: where there are many of them it would be hidden.
    ax.plot([0, 1], [0, 1], transform=ax.transAxes, color="black", linewidth=0.8, linestyle=(0, (5, 3)), zorder=4)


def _longest_empty(lows: pd.Series, highs: pd.Series) -> tuple[float, float]:
    """Return the ends of the longest stretch between the lowest and the highest value that no bar touches."""
    order = lows.sort_values().index
    ends = highs[order].cummax()
    lengths = (lows[order].shift(-1) - ends).fillna(0.0).to_numpy()
    longest = int(lengths.argmax())
    bottom = float(ends.iloc[longest])
    return bottom, bottom + max(float(lengths[longest]), 0.0)


def _shorten(ax: Axes, bottom: float, top: float, to: float) -> None:
    """Draw the stretch of the vertical axis from `bottom` to `top` as if it were only `to` long."""
    true = [bottom - 10, bottom, top, top + 10]
    drawn = [bottom - 10, bottom, bottom + to, bottom + to + 10]
    ax.set_yscale("function", functions=(lambda y: np.interp(y, true, drawn), lambda y: np.interp(y, drawn, true)))
    ax.axhspan(bottom, top, color=EMPTY, zorder=0)
    middle, coordinates = (0.5, (bottom + top) / 2), ("axes fraction", "data")
    ax.annotate("axis shortened here", middle, xycoords=coordinates, size=7, color=GREY, ha="center", va="center")


def _ticks_around(low: float, bottom: float, top: float, high: float) -> list[float]:
    """Return evenly spaced ticks from `low` to `bottom`, and from `top` to `high`."""
    length = (bottom - low) + (high - top)
    step = float(np.diff(MaxNLocator(TICKS, steps=[1, 2, 5, 10]).tick_values(0, length))[0])
    multiples = step * np.arange(math.ceil(low / step), math.floor(high / step) + 1)
    return [float(tick) for tick in multiples if tick <= bottom or tick >= top]


def log_axes(ax: Axes, x: pd.Series, y: pd.Series) -> None:
    """Make both axes of `ax` logarithmic and fit them to points of tens of decades, without numbers that would meet the "0"."""
    axes: dict[Literal["x", "y"], pd.Series] = {"x": x, "y": y}
    for on, values in axes.items():
        axis = log_axis(ax, values, on=on)
        axis.set_minor_locator(NullLocator())
        if (values < SMALLEST).any():
            low, high = axis.get_view_interval()
            zero, *ticks = axis.get_major_locator().tick_values(low, high)
            nearest = math.log10(zero) + _ROOM_FOR_NUMBERS[on] * (math.log10(high) - math.log10(low))
            axis.set_major_locator(FixedLocator([zero, *(tick for tick in ticks if math.log10(tick) > nearest)]))
