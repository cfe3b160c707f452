"""
The style of all figures: colours, panels, points, titles, legends.

There are two looks: our own, `ours.mplstyle`, and that of the paper's pages, `paper.mplstyle` on top of it. Only `drawing/` knows
of them. Nothing here touches pyplot, and matplotlib's settings are as before after `drawing()`.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import matplotlib as mpl
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

GREY = "#555555"


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
# Single networks of one panel, which no legend names. Their lightness, L* 49, 68, 22, 61 and 32, differs in grey print, and for
# each kind of colour blindness any two are 31 units of CIELAB apart or more.
NETWORKS = ("#4477aa", "#d0a000", "#332288", "#ee6677", "#7a3b00")
# Points of a panel beyond which they hide each other: then they are counted in cells.
MOST_POINTS = 20_000
# How many cells lie side by side across a panel, and one above the other: each is 3 to 5 typographic points wide.
CELLS = (60, 44)
# In square points, the area of the fullest cell's marker, nearly as wide as the cell, and the least that is easily seen.
LARGEST_MARKER, SMALLEST_MARKER = 11.0, 1.1
# Most stretches between the ticks of a linear axis.
TICKS = 9
# Width of the text on a page of the paper, in inches.
PAPER_WIDTH = 5.5
# Matplotlib has one set of settings for all threads.
_ONE_AT_A_TIME = Lock()
_PAPER: ContextVar[bool] = ContextVar("paper", default=False)


@contextmanager
def drawing(*, paper: bool = False) -> Iterator[None]:
    """
    Draw and save inside this context: our settings in place of the user's, one thread at a time.

    Parameters
    ----------
    paper
        Draw as in the paper's pages: serif and smaller type, as wide as its text, closed frames without a grid, gaps as shares
        from 0 to 1, and nothing written that a paper says in its captions.
    """
    looks = [Path(__file__).with_name(f"{look}.mplstyle") for look in (("ours", "paper") if paper else ("ours",))]
    with _ONE_AT_A_TIME, mpl.style.context(looks, after_reset=True):
        before = _PAPER.set(paper)
        try:
            yield
        finally:
            _PAPER.reset(before)


def in_paper() -> bool:
    """Return whether figures are now drawn as in the paper's pages."""
    return _PAPER.get()


def fitting(label: str, columns: int) -> str:
    """
    Return a label as it fits where `columns` panels stand side by side: unchanged in our own look.

    In the paper's it has no second line, since captions say that. The first is broken between words, where it is longer than a
    panel; mathematics between dollars stays whole.
    """
    if not in_paper():
        return label
    # The panel takes four fifths of a column, and a letter is 4 points wide.
    letters = int(0.8 * 72 * PAPER_WIDTH / columns / 4)
    lines = [""]
    for word in re.findall(r"(?:\$[^$]*\$|\S)+", label.partition("\n")[0]):
        longer = f"{lines[-1]} {word}".lstrip()
        # The names of mathematical commands, and the signs that group, are not seen.
        if len(re.sub(r"\\[a-z]+|[\\${}^_]", "", longer)) <= letters or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def dataset_looks(names: Iterable[str]) -> dict[str, Look]:
    """Return how the networks of each data set are drawn. Beyond five, looks come again."""
    return {name: Look(name, *_DATASETS[index % len(_DATASETS)]) for index, name in enumerate(sorted(names))}


def new_figure(panels: int, columns: int, make: Callable[..., Figure] = Figure) -> tuple[Figure, list[Axes]]:
    """Return a figure with `panels` axes, `columns` side by side; `make` is `Figure`, or the function of pyplot."""
    rows = math.ceil(panels / columns)
    size = _width(columns), 3.3 * rows + 0.7
    if in_paper():
        # Panels shrink more than the type around them.
        size = PAPER_WIDTH, (2.4 * PAPER_WIDTH / size[0] + 0.6) * rows + 0.3
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06, wspace=0.03, hspace=0.03)
    figure = make(figsize=size, layout=layout)
    return figure, [figure.add_subplot(rows, columns, index + 1) for index in range(panels)]


def _width(columns: int) -> float:
    """Return how wide a figure is in our own look, in inches."""
    return {1: 5.0, 2: 7.6}.get(columns, 3.5 * columns)


def panel_scale(ax: Axes) -> float:
    """Return how wide a panel is, in units of its width in our own look; 1 for axes that stand in no grid of a whole figure."""
    spec, figure = ax.get_subplotspec(), ax.get_figure()
    if spec is None or not isinstance(figure, Figure):
        return 1.0
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


def add_legend(figure: Figure, looks: Iterable[Look], caption: str) -> None:
    """
    Explain the markers and the points below the panels, never over data.

    Markers that do not fit side by side stand one above the other. The paper's look has no caption.
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
    Draw points of several kinds on axes that have their scales and limits, and return the lines that explain the markers.

    Each kind has one row per point: `x`, `y`, and, for bars of one standard error, `x_sem` and `y_sem`. More than `most` points
    would hide each other. Then there are no bars, and markers say how many points, named by `noun`, lie where (`density`).
    """
    number = sum(map(len, kinds.values()))
    bars = any("x_sem" in kind or "y_sem" in kind for kind in kinds.values())
    if number > most:
        largest = density(ax, kinds)
        return [f"markers: 1 (small) to {largest:,} (large) {noun}{', no bars' if bars else ''}"]
    size = min(max(6000 / number, 5), 26) * panel_scale(ax) ** 2
    for look, kind in kinds.items():
        x, y = kind["x"], kind["y"]
        if bars:
            sems = kind.get("y_sem"), kind.get("x_sem")
            ax.errorbar(x, y, *sems, fmt="none", ecolor=look.colour, elinewidth=0.7, alpha=0.45, zorder=2)
        markers = ax.scatter(x, y, s=size, c=look.colour, marker=look.marker, label=look.name, alpha=0.8, zorder=3)
        markers.set(linewidths=0.3, edgecolors="white")
    return []


def density(ax: Axes, kinds: Mapping[Look, pd.DataFrame]) -> int:
    """
    Draw how many points lie where: one marker per cell, its area as the root of the number, and return the largest number.

    The cells are diamonds. The centres of one kind's cells are the corners of the other's, so that kinds that overlap can be told
    apart.
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
