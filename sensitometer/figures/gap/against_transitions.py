"""Figure App. 8: the generalization gap against the transitions. A panel per data set, a point per configuration."""

from ...store import Store
from ..drawing.interface import FigureData
from .against_jacobian import CAPTION, draw
from .panels import collect_gaps

__all__ = ["CAPTION", "collect", "draw"]


def collect(store: Store) -> FigureData:
    """Return the averages of gap and transitions: see `collect_gaps`."""
    return collect_gaps(store, "8", ["transitions"], average=True)
