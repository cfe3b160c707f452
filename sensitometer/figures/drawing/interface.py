"""The interface of a figure: `collect(store)` makes plain tables, `draw(data, axes)` draws nothing but these."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ...errors import InvalidInputError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas as pd
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from .style import Look


class Store(Protocol):
    """All that a figure asks of a survey's store."""

    def frame(self, columns: Collection[str]) -> pd.DataFrame:
        """Return these columns, one row per network."""
        ...

    def kept(self) -> set[str]:
        """Return the ids of the networks of which arrays are kept: measures of single points, along paths, or on slices."""
        ...

    def arrays(self, id_: str, prefix: str | tuple[str, ...] = "") -> dict[str, NDArray[Any]]:
        """Return the arrays kept of a network whose names begin so, by name: see `sensitometer.store.arrays`."""
        ...


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
        check_axes(axes, self.panels)
        return zip(self.panels, axes, strict=True)


class FigureModule(Protocol):
    """A file of this package that holds one figure."""

    CAPTION: str

    def collect(self, store: Store) -> Any:
        """Return the figure's data, a `FigureData`, or raise MissingDataError."""
        ...

    def draw(self, data: Any, axes: Sequence[Axes]) -> None:
        """Draw the data that `collect` returned on one axes per panel."""
        ...


def check_axes(axes: Sequence[Axes], panels: Sequence[object]) -> None:
    """Raise InvalidInputError unless there is one axes for each panel."""
    if len(axes) != len(panels):
        raise InvalidInputError(f"axes must be one for each of the {len(panels)} panels; got {len(axes)}")


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
