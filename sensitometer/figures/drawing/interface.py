"""The interface of a figure: `collect(store)` makes plain tables, `draw(data, axes)` draws nothing but these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from .style import Look


class Panel(NamedTuple):
    """One panel: a data set, and the quantity that the panel shows of it."""

    dataset: str
    quantity: str


@dataclass(frozen=True)
class FigureData:
    """
    The data that a figure draws.

    Parameters
    ----------
    tables
        The data drawn, by the ending of their CSV file's name: the main table first, under the empty string.
    panels
        One entry per panel, in the order of the axes.
    columns
        How many panels stand side by side.
    looks
        The entries of the legend, in its order.
    images
        Pictures in panels by data set, uint8 `[n, channels, height, width]`.
    """

    tables: Mapping[str, pd.DataFrame]
    panels: Sequence[Any]
    columns: int
    looks: Sequence[Look]
    images: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)

    def panels_on(self, axes: Sequence[Axes]) -> Iterable[tuple[Any, Axes]]:
        """Return each panel with its axes, or raise InvalidInputError unless there is one axes per panel."""
        if len(axes) != len(self.panels):
            raise InvalidInputError(f"axes must be one for each of the {len(self.panels)} panels; got {len(axes)}")
        return zip(self.panels, axes, strict=True)


@dataclass(frozen=True)
class SavedFigures:
    """
    The result of `save_figures`.

    Parameters
    ----------
    paths
        The files written, in the order of the figures: pictures first, then tables.
    skipped
        Number of each figure that the survey has no data for, and in one line what is missing.
    """

    paths: list[Path]
    skipped: dict[str, str]
