"""
Figure 1: the generalization gap against the number of weights, and against the train loss. A point per network.

As in the paper, seeds are not averaged: the figure's point is which single models generalise best, and the train losses of
one configuration's seeds can be orders of magnitude apart, where a mean would show the largest only.
"""

from ...store import Store
from ..drawing.interface import FigureData
from .panels import collect_gaps, draw

__all__ = ["CAPTION", "collect", "draw"]

CAPTION = (
    "A point is a network of 100% train accuracy.\nKendall's τ over n fitted networks (95% interval, configurations resampled)."
)


def collect(store: Store) -> FigureData:
    """Return number of weights, train loss and gap of each fitted network: see `collect_gaps`."""
    return collect_gaps(store, "1", ["weights", "train_loss"], average=False)
