"""
Pictures of what was measured, in one line each: `profile`, `slice`, `scatter`, `points`.

A function draws on the axes that it is given, or in a new figure of pyplot, and returns the axes. The panels are those of the
paper's figures, and look alike.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib import pyplot as plt
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from numpy.typing import ArrayLike, NDArray

from .analysis.rank_correlation import kendall
from .errors import InvalidInputError, check_whole_number, counted, described
from .figures.drawing import images as pictures
from .figures.drawing import scales, slices, style
from .figures.drawing.correlations import tau_words
from .figures.drawing.profiles import Profile, angle_axis, draw_profiles
from .measures import ExactBoundaries, PathProfile, SampledBoundaries
from .paths import ANCHOR_ANGLES, ANCHOR_DISTANCE

__all__ = ["points", "profile", "records", "scatter", "slice"]

# The quantities along a path, and those of a training: the panel's name, and what its vertical axis says.
ALONG_PATHS = {
    "jacobian_norm": ("Jacobian norm", r"Jacobian norm $\|\partial g\,/\,\partial x\|_F$"),
    "transition_density": ("Transition density", "Transitions per radian"),
}
DURING_TRAINING = {
    "jacobian_norm": ("Jacobian norm", "Jacobian norm"),
    "local_complexity": ("Local complexity", "Units with a boundary nearby"),
    "transitions": ("Transitions", "Transitions along the path"),
}
COLUMNS = ("label", "predicted", "confidence", "jacobian_norm")
LOOK = style.Look("", "#16588e", "o")
# Values that span more than this factor have a logarithmic axis.
WIDE = 10


def profile(profile: PathProfile, *, quantity: str = "jacobian_norm", anchors: bool = False, ax: Axes | None = None) -> Axes:
    """
    Draw a quantity along a path against the angle, as in Figure 2: the mean over networks, with a band of one standard error.

    Parameters
    ----------
    profile
        The result of `path_profile`.
    quantity
        `jacobian_norm` or `transition_density`.
    anchors
        Whether to mark the angles of the three points that a fitted ellipse goes through.
    ax
        Where to draw; None: in a new figure.

    Raises
    ------
    InvalidInputError
        An argument is not as above.

    Examples
    --------
    >>> from sensitometer.measures import path_profile
    >>> from sensitometer.paths import Polyline
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> profile(path_profile(model, Polyline(torch.randn(4, 2)), bins=32)).get_xlabel()
    'Angle on the path (radians)'
    """
    if not isinstance(profile, PathProfile):
        raise InvalidInputError(f"profile must be a PathProfile, which path_profile returns; got {type(profile).__name__}")
    if quantity not in ALONG_PATHS:
        raise InvalidInputError(f"quantity must be one of {', '.join(ALONG_PATHS)}; got {quantity!r}")
    values = getattr(profile, quantity)
    networks = len(values)
    sem = values.std(0) / math.sqrt(networks) if networks > 1 else torch.full_like(values[0], math.nan)
    name, label = ALONG_PATHS[quantity]
    with style.drawing():
        (ax,) = _axes(ax)
        line = Profile(*(pd.Series(column.numpy()) for column in (profile.angle, values.mean(0), sem)))
        draw_profiles(ax, {LOOK: line}, {LOOK: "solid"})
        angle_axis(ax, anchors=anchors)
        ax.set(xlabel="Angle on the path (radians)", ylabel=label)
        style.title(ax, name, [f"mean over {networks:,} networks, ± one standard error"] if networks > 1 else [])
    return ax


def slice(  # noqa: A001  the paper's word
    boundaries: ExactBoundaries | SampledBoundaries, *, images: ArrayLike | None = None, ax: Axes | None = None
) -> Axes:
    """
    Draw the boundaries on a slice, as in Figure 3, and the three points that the slice goes through.

    Parameters
    ----------
    boundaries
        The result of `sm.boundaries`.
    images
        Images of the three points, `[3, channels, height, width]`, as in `points`; None: the points are marked alone.
    ax
        Where to draw; None: in a new figure.

    Raises
    ------
    InvalidInputError
        An argument is not as above.

    Examples
    --------
    >>> from sensitometer import boundaries, paths
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> plane = paths.Slice(torch.zeros(2), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    >>> slice(boundaries(model, plane)).get_xlim()
    (np.float64(-1.0), np.float64(1.0))
    """
    if not isinstance(boundaries, ExactBoundaries | SampledBoundaries):
        raise InvalidInputError(f"boundaries must be what sm.boundaries returns; got {type(boundaries).__name__}")
    shown = None if images is None else _displayable("images", images)
    if shown is not None and len(shown) != len(slices.CENTRES):
        raise InvalidInputError(
            f"images must be those of the three points, [3, channels, height, width]; got {list(shown.shape)}"
        )
    anchors = ANCHOR_DISTANCE * np.column_stack([np.cos(ANCHOR_ANGLES), np.sin(ANCHOR_ANGLES)])
    layers = counted(len(boundaries.layers), "layer")
    with style.drawing():
        (ax,) = _axes(ax)
        if isinstance(boundaries, ExactBoundaries):
            ends = boundaries.segments.numpy()
            slices.draw_segments(ax, ends, float(slices.lengths(ends).sum()))
            line = f"{counted(len(ends), 'segment')} of {layers}"
            line += f", {counted(boundaries.faces, 'face')}" if boundaries.faces else ""
        else:
            pixels = boundaries.pixels.numpy()
            ax.imshow(pixels, cmap="gray_r", vmin=0, vmax=1, origin="lower", extent=(-1, 1, -1, 1))
            line = f"sampled at {len(pixels):,} x {len(pixels):,} points, {layers}"
        slices.square_axes(ax)
        ax.set_aspect("equal")
        for number, anchor in enumerate(anchors):
            slices.draw_point(ax, anchor)
            if shown is not None:
                image = shown[number] if shown.dtype == np.uint8 else np.rint(255 * shown[number]).astype(np.uint8)
                slices.draw_image(ax, anchor, image, slices.CENTRES[number])
        style.title(ax, "Boundaries on a slice", [line])
    return ax


def scatter(
    x: ArrayLike,
    y: ArrayLike,
    *,
    label_x: str = "",
    label_y: str = "",
    clusters: ArrayLike | None = None,
    ax: Axes | None = None,
) -> Axes:
    """
    Draw one quantity against another, as in Figure 5, with Kendall's tau and its 95% interval.

    The horizontal axis is logarithmic if no number is negative and the largest is more than ten times the smallest above 0.

    Parameters
    ----------
    x, y
        The two quantities, `[n]`, finite, such as two columns of a survey's frame.
    label_x, label_y
        Labels of the axes; empty: the names of the columns.
    clusters
        The cluster of each network, `[n]`, for the interval: networks that differ in the seed alone share one. None: one each.
    ax
        Where to draw; None: in a new figure.

    Raises
    ------
    InvalidInputError
        An argument is not as above.

    Examples
    --------
    >>> ax = scatter([0.1, 1.0, 20.0, 30.0], [0.01, 0.05, 0.07, 0.2], label_x="Jacobian norm", label_y="gap")
    >>> ax.texts[0].get_text()
    'τ = 1.00 (1.00 to 1.00), n = 4'
    """
    labels = [label or str(getattr(values, "name", "") or "") for label, values in ((label_x, x), (label_y, y))]
    correlation = kendall(x, y, np.arange(np.size(np.asarray(y))) if clusters is None else clusters)
    if not correlation.networks:
        raise InvalidInputError("x and y must have at least one point")
    across, up = (pd.Series(np.asarray(values, np.float64)) for values in (x, y))
    smallest, largest = across[across > 0].min(), across.max()
    with style.drawing():
        (ax,) = _axes(ax)
        if across.min() >= 0 and largest > WIDE * smallest:
            scales.log_axis(ax, across)
            across = scales.log_positions(across)
        else:
            scales.linear_axis(ax, across, on="x")
        scales.linear_axis(ax, up, on="y")
        lines = style.points(ax, {LOOK: pd.DataFrame({"x": across, "y": up})}, style.MOST_POINTS)
        ax.set(xlabel=labels[0], ylabel=labels[1])
        style.title(ax, "", [tau_words(*correlation[:4]), *lines])
    return ax


def points(
    images: ArrayLike,
    frame: pd.DataFrame,
    maps: ArrayLike | Callable[[NDArray[np.intp]], ArrayLike] | None = None,
    *,
    most: int = 8,
    least: int = 8,
    class_names: Sequence[str] = (),
    axes: Sequence[Axes] | None = None,
) -> list[Axes]:
    r"""
    Draw the images of the highest and of the lowest Jacobian norms, and below each its input-sensitivity map.

    Parameters
    ----------
    images
        `[N, channels, height, width]`, of 1 or 3 channels. uint8, and numbers that are all from 0 to 1, are shown as they are; of
        others, such as normalised images, each is stretched from its smallest number to its largest.
    frame
        One row per image: `label` (the true class, -1 if it is not known), `predicted`, `confidence` and `jacobian_norm`. Points
        whose norm is not finite are left out.
    maps
        `[N, height, width]`, as from `sensitivity_maps`; or a function that returns them for the images at places `[n]`, so that
        only those drawn are computed, such as `lambda places: sensitivity_maps(model, x[places])`; None: no maps.
    most, least
        How many images of each kind. Where there are fewer points, no image is shown twice.
    class_names
        Names of the classes; empty: their numbers.
    axes
        Where to draw: for each kind the images from left to right, then their maps. None: in a new figure.

    Returns
    -------
    list
        The axes, in this order.

    Raises
    ------
    InvalidInputError
        An argument is not as above.

    Examples
    --------
    >>> columns = {"label": [0, 1], "predicted": [0, 0], "confidence": [0.9, 0.6], "jacobian_norm": [0.2, 1.5]}
    >>> axes = points(np.zeros((2, 1, 8, 8)), pd.DataFrame(columns), class_names=["cat", "dog"])
    >>> axes[0].get_xlabel().splitlines()
    ['dog', '→ cat', '60.0%', 'norm 1.50']
    """
    shown = _displayable("images", images)
    if not isinstance(frame, pd.DataFrame) or not set(COLUMNS) <= set(frame.columns) or len(frame) != len(shown):
        got = (
            f"{len(frame)} rows of {', '.join(map(str, frame.columns))}"
            if isinstance(frame, pd.DataFrame)
            else type(frame).__name__
        )
        raise InvalidInputError(f"frame must be a table of {len(shown)} rows with the columns {', '.join(COLUMNS)}; got {got}")
    kinds = _extremes(frame, check_whole_number("most", most, least=0), check_whole_number("least", least, least=0))
    blocks = {name: places for name, places in kinds.items() if len(places)}
    if not blocks:
        raise InvalidInputError("there is no image to draw: most and least are 0, or no Jacobian norm is finite")
    places = np.concatenate(list(blocks.values()))
    values = None if maps is None else _maps(maps, places, shown.shape)
    rows = 1 if values is None else 2
    count = rows * sum(map(len, blocks.values()))
    if axes is not None and len(axes) != count:
        raise InvalidInputError(f"axes must be {count}: {rows} for each of the {count // rows} images; got {len(axes)}")
    ratio, labelled = shown.shape[2] / shown.shape[3], bool((frame["label"] >= 0).any())
    with style.drawing():
        panels = list(
            axes or _image_figure({name: len(places) for name, places in blocks.items()}, rows, ratio, labelled=labelled)
        )
        start = 0
        for block in blocks.values():
            for column, place in enumerate(block):
                point, ax = frame.iloc[place], panels[rows * start + column]
                pictures.draw_image(ax, shown[place], correct=point["label"] in (point["predicted"], -1))
                if values is not None:
                    ax = panels[rows * start + len(block) + column]
                    pictures.draw_map(ax, values[start + column])
                pictures.describe(ax, point, class_names)
            start += len(block)
    return panels


def records(frame: pd.DataFrame, details: Mapping[str, str], *, axes: Sequence[Axes] | None = None) -> list[Axes]:
    """
    Draw the records of a `Monitor` against the step, one panel per quantity; see `Monitor.plot`.

    Parameters
    ----------
    frame
        As from `Monitor.frame`.
    details
        The line above the panel of each quantity, by its column.
    axes
        One per quantity; None: a new figure.

    Raises
    ------
    InvalidInputError
        There are other axes than quantities.
    """
    if axes is not None and len(axes) != len(details):
        raise InvalidInputError(f"axes must be one for each of {', '.join(details)}; got {len(axes)}")
    with style.drawing():
        panels = _new_figure(len(details)) if axes is None else list(axes)
        for ax, (quantity, detail) in zip(panels, details.items(), strict=True):
            name, label = DURING_TRAINING[quantity]
            finite = frame[np.isfinite(frame[quantity])]
            if finite.empty:
                ax.annotate("no finite value", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
            else:
                sem = finite.get(f"{quantity}_sem", pd.Series(math.nan, finite.index))
                line = Profile(finite["step"], finite[quantity], sem)
                # Counts change by percents, norms by factors.
                draw_profiles(ax, {LOOK: line}, {LOOK: "solid"}, logarithmic=quantity == "jacobian_norm")
            ax.set(xlabel="Optimizer step", ylabel=label)
            style.title(ax, name, [detail])
    return panels


def _axes(ax: Axes | None) -> list[Axes]:
    """Return the axes given, or those of a new figure."""
    if ax is not None and not isinstance(ax, Axes):
        raise InvalidInputError(f"ax must be matplotlib axes or None; got {type(ax).__name__}")
    return _new_figure(1) if ax is None else [ax]


def _new_figure(panels: int) -> list[Axes]:
    """Return the axes of a new figure of pyplot, side by side; inside `style.drawing()`."""
    _, axes = style.new_figure(panels, panels, plt.figure)
    for ax in axes:
        # Ticks are made when the figure is drawn: with the user's settings, unless these are fixed.
        size, colour, labels = rcParams["xtick.labelsize"], rcParams["xtick.color"], rcParams["xtick.labelcolor"]
        ax.tick_params(which="both", labelsize=size, color=colour, labelcolor=labels)
        ax.tick_params(which="both", grid_color=rcParams["grid.color"], grid_linewidth=rcParams["grid.linewidth"])
    return axes


def _image_figure(blocks: Mapping[str, int], rows: int, ratio: float, *, labelled: bool) -> list[Axes]:
    """Return the axes of a new figure for images of the `ratio` height to width: each block's rows, from left to right."""
    columns = max(blocks.values())
    # In inches: a picture with the gap beside it, the four lines below, a block's title, and the caption.
    wide, text, title, caption = 0.95, 0.7, 0.25, 0.35
    width = max(columns * wide, 4.9)
    height = len(blocks) * (rows * wide * ratio + text + title) + caption
    figure = plt.figure(figsize=(width + 0.1, height), layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.04, hspace=0, wspace=0))
    panels: list[Axes] = []
    for part, (name, count) in zip(
        figure.subfigures(len(blocks), 1, squeeze=False, hspace=0.04)[:, 0], blocks.items(), strict=True
    ):
        grid = part.add_gridspec(rows, columns)
        panels += [part.add_subplot(grid[row, column]) for row in range(rows) for column in range(count)]
        part.suptitle(name, x=0.01, ha="left", size=rcParams["axes.titlesize"], weight="bold")
    order = "→ predicted class, its confidence, Jacobian norm"
    lines = [f"true class, {order}; thick frames: wrongly classified" if labelled else order]
    lines += (
        ["maps: norm of the Jacobian at each pixel, from 0 (black) to the 99th percentile of each image"] if rows == 2 else []
    )
    figure.supxlabel("\n".join(lines), size=pictures.TEXT_SIZE, color="#333333")
    return panels


def _extremes(frame: pd.DataFrame, most: int, least: int) -> dict[str, NDArray[np.intp]]:
    """Return the places of the highest norms, falling, and of the lowest, rising, none in both."""
    norms = frame["jacobian_norm"].to_numpy(np.float64)
    finite = np.flatnonzero(np.isfinite(norms))
    falling = finite[np.argsort(-norms[finite], kind="stable")]
    highest = falling[:most]
    return {"Highest Jacobian norms": highest, "Lowest Jacobian norms": falling[max(len(highest), len(falling) - least) :][::-1]}


def _maps(
    maps: ArrayLike | Callable[[NDArray[np.intp]], ArrayLike], places: NDArray[np.intp], shape: tuple[int, ...]
) -> NDArray[np.generic]:
    """Return the maps of the images at some places, `[n, height, width]`, of images of a `shape`; or raise InvalidInputError."""
    of_all = not callable(maps)
    values = np.asarray(maps(places) if callable(maps) else maps)
    expected = [shape[0] if of_all else len(places), *shape[2:]]
    if list(values.shape) != expected:
        raise InvalidInputError(f"maps must be {expected}, one per image; got {list(values.shape)}")
    return values[places] if of_all else values


def _displayable(name: str, images: ArrayLike) -> NDArray[np.generic]:
    """Return images as they are shown, or raise InvalidInputError."""
    array = np.asarray(images)
    if array.ndim != 4 or array.shape[1] not in (1, 3) or not len(array) or array.dtype.kind not in "uif":
        expected = "[N, channels, height, width] of 1 or 3 channels, numbers"
        raise InvalidInputError(f"{name} must be {expected}; got {described(array)}")
    if not np.isfinite(array).all():
        raise InvalidInputError(f"{name} must be finite; some are not")
    return pictures.displayable(array)
