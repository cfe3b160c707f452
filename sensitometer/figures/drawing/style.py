"""The style of all figures: colours, panels, axes, points, legends. Only this file and `paper_style` know of two looks."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from .paper_style import GREY as GREY
from .paper_style import PAPER_WIDTH, in_paper, paper_label
from .paper_style import drawing as drawing


class Look(NamedTuple):
    """How one kind of network is drawn."""

    name: str
    colour: str
    marker: str


# Told apart by hue for most eyes, by lightness in grey print (L* 36 and 67), and by shape where both fail.
LABELS = {
    "true": Look("true labels", "#16588e", "o"),
    "random": Look("random labels", "#f08a1c", "^"),
}
# Data sets have other colours, in which neither kind of labels is seen. The first two, of most figures, differ most in grey.
_DATASETS = (("#432371", "o"), ("#2fa36b", "^"), ("#c4477f", "s"), ("#5aa9e6", "v"), ("#b8860b", "D"))
EMPTY = "#f0f0f0"
# Points of a panel beyond which they hide each other: then they are counted in cells.
MOST_POINTS = 20_000
# How many cells lie side by side across a panel, and one above the other: each is 3 to 5 typographic points wide.
CELLS = (60, 44)
# In square points, the area of the fullest cell's marker, nearly as wide as the cell, and the least that is easily seen.
LARGEST_MARKER, SMALLEST_MARKER = 11.0, 1.1
# Smaller values are as good as 0, and their logarithm has no meaning left.
SMALLEST = 1e-300
# An axis of fewer decades has ticks at 2 and 5 as well, or where these do not fit at 3.
FEW_DECADES = 1.8
# Powers of ten that fit under a panel, written as 10 to the minus 15.
MOST_POWERS = 6
# Most stretches between the ticks of an axis of shares, and between numbers that lie side by side.
TICKS, FEW_TICKS = 9, 5
# An empty stretch of an axis of shares that is worth shortening; shorter ones lie between the points of a small survey.
LONG_EMPTY = 0.2


def dataset_looks(names: Iterable[str]) -> dict[str, Look]:
    """Return how the networks of each data set are drawn. Beyond five, looks come again."""
    return {name: Look(name, *_DATASETS[index % len(_DATASETS)]) for index, name in enumerate(sorted(names))}


def new_figure(panels: int, columns: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with `panels` axes, `columns` side by side."""
    rows = math.ceil(panels / columns)
    size = _width(columns), 3.3 * rows + 0.7
    if in_paper():
        # Panels shrink more than the type around them.
        size = PAPER_WIDTH, (2.4 * PAPER_WIDTH / size[0] + 0.6) * rows + 0.3
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=size, layout=layout)
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(panels)]


def _width(columns: int) -> float:
    """Return how wide a figure is in our own look, in inches."""
    return {1: 5.0, 2: 7.6}.get(columns, 3.5 * columns)


def panel_scale(ax: Axes) -> float:
    """Return how wide a panel is, in units of its width in our own look."""
    spec, figure = ax.get_subplotspec(), ax.get_figure()
    assert spec is not None and isinstance(figure, Figure)
    return float(figure.get_figwidth() / _width(spec.get_gridspec().ncols))


def label_outer(axes: Sequence[Axes], columns: int) -> None:
    """Keep no vertical label that the panel to the left has, no horizontal one that the panel below has; let others fit."""
    for ax in axes:
        ax.set(xlabel=fitting(ax.get_xlabel(), columns), ylabel=fitting(ax.get_ylabel(), columns))
    across, up = [ax.get_xlabel() for ax in axes], [ax.get_ylabel() for ax in axes]
    for index, ax in enumerate(axes):
        if index % columns and up[index] == up[index - 1]:
            ax.set_ylabel("")
        if index + columns < len(axes) and across[index] == across[index + columns]:
            ax.set_xlabel("")


def fitting(label: str, columns: int) -> str:
    """Return a label as it fits where `columns` panels stand side by side: in the paper's look, as `paper_label` says."""
    return paper_label(label, columns) if in_paper() else label


def add_legend(figure: Figure, looks: Iterable[Look], caption: str) -> None:
    """
    Explain the markers and the points below the panels, never over data.

    Markers that do not fit side by side stand one above the other. The paper's look has no caption here.
    """
    handles = [Line2D([], [], linestyle="none", marker=look.marker, color=look.colour, label=look.name) for look in looks]
    if in_paper() and not handles:
        return
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    if legend.get_window_extent().width > figure.bbox.width:
        legend.remove()
        legend = figure.legend(handles=handles, loc="outside lower center")
    if not in_paper():
        legend.set_title(caption, FontProperties(size=mpl.rcParams["legend.title_fontsize"]))
        legend.get_title().set_multialignment("center")


def title(ax: Axes, name: str, lines: Sequence[str]) -> None:
    """Write the panel's name, and, but in the paper's look, smaller lines under it, above the axes, where no data are."""
    size = 7.5
    if in_paper():
        lines = ()
    if lines:
        ax.annotate("\n".join(lines), (0, 1), (0, 4), "axes fraction", "offset points", size=size, color="#333333", va="bottom")
    ax.set_title(name, loc="left", pad=7 + 1.25 * size * len(lines))


def points(ax: Axes, kinds: Mapping[Look, pd.DataFrame], most: int, noun: str = "points") -> list[str]:
    """
    Draw points of several kinds: a marker each, and bars of one standard error where it is known.

    More than `most` points would hide each other. Then there are no bars, and markers say how many points lie where (`density`).

    Parameters
    ----------
    ax
        With its scales and limits.
    kinds
        By kind one row per point: `x`, `y`, and where known `x_sem` and `y_sem`.
    most, noun
        The most points that are drawn singly, and their name in the lines.

    Returns
    -------
    list of str
        The lines that explain the markers.
    """
    number = sum(map(len, kinds.values()))
    bars = any("x_sem" in kind or "y_sem" in kind for kind in kinds.values())
    if number > most:
        largest = density(ax, kinds)
        return [f"markers: 1 (small) to {largest:,} (large) {noun}{', no bars' if bars else ''}"]
    for look, kind in kinds.items():
        if bars:
            sems = kind.get("y_sem"), kind.get("x_sem")
            ax.errorbar(kind["x"], kind["y"], *sems, fmt="none", ecolor=look.colour, elinewidth=0.7, alpha=0.45, zorder=2)
        ax.scatter(
            kind["x"],
            kind["y"],
            s=min(max(6000 / number, 5), 26) * panel_scale(ax) ** 2,
            c=look.colour,
            marker=look.marker,
            alpha=0.8,
            linewidths=0.3,
            edgecolors="white",
            label=look.name,
            zorder=3,
        )
    return []


def density(ax: Axes, kinds: Mapping[Look, pd.DataFrame]) -> int:
    """
    Draw how many points lie where: one marker per cell, its area as the root of the number, and return the largest number.

    The cells are diamonds. Two kinds of points have their centres in different places, the one at the corners of the cells of the
    other, so that kinds that overlap can be told apart.
    """
    to_panel = ax.transScale + ax.transLimits
    cells = {}
    for index, (look, kind) in enumerate(kinds.items()):
        shift = index / len(kinds)
        across, up = (to_panel.transform(kind[["x", "y"]].to_numpy()) * CELLS).T
        diagonals = np.rint(np.column_stack([across + up, across - up]) - shift)
        corners, counts = np.unique(diagonals, axis=0, return_counts=True)
        centres = (corners + shift) @ [[0.5, 0.5], [0.5, -0.5]] / CELLS
        cells[look] = to_panel.inverted().transform(centres).T, counts
    most = max(int(counts.max()) for _, counts in cells.values())
    for look, ((x, y), counts) in cells.items():
        areas = np.maximum(LARGEST_MARKER * np.sqrt(counts / most), SMALLEST_MARKER) * panel_scale(ax) ** 2
        # In a vector file thousands of markers, each of its own size, would take longer to write and to open than a bitmap.
        ax.scatter(x, y, s=areas, c=look.colour, marker=look.marker, linewidths=0, label=look.name, rasterized=True, zorder=3)
    return most


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
    ax.annotate(
        "axis shortened here",
        (0.5, (bottom + top) / 2),
        xycoords=("axes fraction", "data"),
        size=7,
        color=GREY,
        ha="center",
        va="center",
    )


def _ticks_around(low: float, bottom: float, top: float, high: float) -> list[float]:
    """Return evenly spaced ticks from `low` to `bottom`, and from `top` to `high`."""
    length = (bottom - low) + (high - top)
    step = float(np.diff(MaxNLocator(TICKS, steps=[1, 2, 5, 10]).tick_values(0, length))[0])
    multiples = step * np.arange(math.ceil(low / step), math.floor(high / step) + 1)
    return [float(tick) for tick in multiples if tick <= bottom or tick >= top]


def picture(ax: Axes, image: NDArray[np.uint8], centre: tuple[float, float], size: float, frame: str = GREY) -> None:
    """
    Draw an image, uint8 `[channels, height, width]` of 1 or 3 channels, in a thin frame on axes whose units are equally long.

    `centre` is in the axes' units, as is `size`, the longer side of the image; `frame` is a colour. The axes keep their limits.
    """
    height, width = (size * side / max(image.shape[1:]) for side in image.shape[1:])
    left, bottom = centre[0] - width / 2, centre[1] - height / 2
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    limits = ax.get_xlim(), ax.get_ylim()
    extent = (left, left + width, bottom, bottom + height)
    ax.imshow(pixels, cmap="gray", vmin=0, vmax=255, interpolation="nearest", extent=extent, zorder=5)
    ax.set(xlim=limits[0], ylim=limits[1])
    ax.add_patch(Rectangle((left, bottom), width, height, fill=False, edgecolor=frame, linewidth=0.8, zorder=6))


# Single networks of one panel, which no legend names. Their lightness, L* 49, 68, 22, 61 and 32, differs in grey print, and for
# each kind of colour blindness any two are 31 units of CIELAB apart or more.
NETWORKS = ("#4477aa", "#d0a000", "#332288", "#ee6677", "#7a3b00")
# The room that the number of a tick takes, as a share of a panel, from the tick "0" on: across it, and up.
_ROOM_FOR_NUMBERS = {"x": 0.1, "y": 0.05}


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
