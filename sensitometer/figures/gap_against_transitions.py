"""Figure App. 8: the generalization gap against the transitions. A panel a data set, a point a configuration."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from . import gap_against_jacobian
from .drawing.gap import GapData, averages_to_draw, draw_panels
from .drawing.interface import Store

CAPTION = gap_against_jacobian.CAPTION


def collect(store: Store) -> GapData:
    """Return the averages of gap and transitions: see `averages_to_draw`."""
    return averages_to_draw(store, "8", "transitions")


def draw(data: GapData, axes: Sequence[Axes]) -> None:
    """Draw the data on one axes a data set."""
    draw_panels(data, axes)
