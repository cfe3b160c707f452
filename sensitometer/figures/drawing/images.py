"""Images with what a network makes of them, and the maps of its sensitivity below them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from ...errors import InvalidInputError

# Perceptually uniform, rising in lightness: it is read in grey print, and by the colour-blind.
MAP_COLOURS = "magma"
MAP_QUANTILE = 0.99
# Colours of the frames: correctly and wrongly classified. They differ in lightness (L* 36 and 67), and in width.
FRAMES = {True: ("#16588e", 0.8), False: ("#f08a1c", 2.0)}
TEXT_SIZE = 7.0


def displayable(images: NDArray[np.generic]) -> NDArray[np.generic]:
    """
    Return images `[N, channels, height, width]` of 1 or 3 channels as matplotlib shows them, uint8 or from 0 to 1.

    Images of uint8, or from 0 to 1 already, stay as they are; others are stretched, each from its smallest number to its largest.
    """
    if images.dtype == np.uint8:
        return images
    values = images.astype(np.float64)
    low, high = (end(values, axis=(1, 2, 3), keepdims=True) for end in (np.min, np.max))
    if low.min() >= 0 and high.max() <= 1:
        return values
    stretched: NDArray[np.generic] = (values - low) / np.where(high > low, high - low, 1.0)
    return stretched


def draw_image(ax: Axes, image: NDArray[np.generic], *, correct: bool) -> None:
    """Draw a displayable image `[channels, height, width]` in a frame that says whether it is correctly classified."""
    top = 255 if image.dtype == np.uint8 else 1
    ax.imshow(image[0] if len(image) == 1 else image.transpose(1, 2, 0), cmap="gray", vmin=0, vmax=top)
    _frame(ax, *FRAMES[correct])


def draw_map(ax: Axes, values: NDArray[np.generic]) -> None:
    """Draw a map `[height, width]`, in colours from 0 to its own `MAP_QUANTILE`: a few pixels would leave the others dark."""
    top = float(np.quantile(values.astype(np.float64), MAP_QUANTILE))
    ax.imshow(values, cmap=MAP_COLOURS, vmin=0, vmax=max(top, np.finfo(np.float64).tiny))
    _frame(ax, "black", 0.4)


def _frame(ax: Axes, colour: str, width: float) -> None:
    ax.set(xticks=[], yticks=[])
    ax.grid(visible=False)
    ax.spines[:].set(visible=True, edgecolor=colour, linewidth=width)


def describe(ax: Axes, point: pd.Series, names: Sequence[str]) -> None:
    """Write below an image its class, the predicted one, its confidence, and the Jacobian norm."""
    lines = [] if point["label"] < 0 else [class_name(point["label"], names)]
    lines += [
        f"→ {class_name(point['predicted'], names)}",
        _percent(point["confidence"]),
        f"norm {number(point['jacobian_norm'])}",
    ]
    ax.set_xlabel("\n".join(lines), size=TEXT_SIZE, labelpad=3, linespacing=1.15)


def class_name(label: float, names: Sequence[str]) -> str:
    """Return the name of a class, or its number where there are no names."""
    place = int(label)
    if names and not 0 <= place < len(names):
        raise InvalidInputError(f"class_names must name every class; got {len(names)} names, and a point of class {place}")
    return names[place] if names else str(place)


def _percent(share: float) -> str:
    """Return a share in percent, 100% only where it is exactly 1."""
    return ">99.9%" if 0.9995 <= share < 1 else f"{100 * share:.1f}%"


def number(value: float) -> str:
    """Return a finite number with three digits, as a product with a power of ten where it is very small or large."""
    if value == 0 or 1e-3 <= abs(value) < 1e4:
        return f"{value:#.3g}".rstrip(".")
    digits, exponent = f"{value:.1e}".split("e")
    return rf"${digits}\times 10^{{{int(exponent)}}}$"
