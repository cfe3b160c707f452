"""Figure 5: the generalization gap against the Jacobian norm. A panel a data set, a point a configuration."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from .drawing.gap import GapData, averages_to_draw, draw_panels
from .drawing.interface import Store

CAPTION = (
    "A point is a configuration: mean over its fitted seeds ± one standard error.\n"
    "Kendall's τ over n fitted networks (95% interval, configurations resampled)."
)


def collect(store: Store) -> GapData:
    """Return the averages of gap and Jacobian norm: see `averages_to_draw`."""
    return averages_to_draw(store, "5", "jacobian_norm")


def draw(data: GapData, axes: Sequence[Axes]) -> None:
    """Draw the data on one axes a data set."""
    draw_panels(data, axes)
