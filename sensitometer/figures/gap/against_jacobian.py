"""Figure 5: the generalization gap against the Jacobian norm. A panel per data set, a point per configuration."""

from ...store import Store
from ..drawing.interface import FigureData
from .panels import collect_gaps, draw

__all__ = ["CAPTION", "collect", "draw"]

CAPTION = (
    "A point is a configuration: mean over its fitted seeds ± one standard error.\n"
    "Kendall's τ over n fitted networks (95% interval, configurations resampled)."
)


def collect(store: Store) -> FigureData:
    """Return the averages of gap and Jacobian norm: see `collect_gaps`."""
    return collect_gaps(store, "5", ["jacobian_norm"], average=True)
