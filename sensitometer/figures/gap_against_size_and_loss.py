"""
Figure 1: the generalization gap against the number of weights, and against the train loss. A point a network.

As in the paper, seeds are not averaged: the figure's point is which single models generalise best, and the train losses of
one configuration's seeds can be orders of magnitude apart, where a mean would show the largest only.
"""

from collections.abc import Sequence

from matplotlib.axes import Axes

from ..analysis.seeds import configuration_columns
from .drawing.gap import GapData, draw_panels, gap_data, networks_to_draw
from .drawing.interface import Store

CAPTION = (
    "A point is a network of 100% train accuracy.\nKendall's τ over n fitted networks (95% interval, configurations resampled)."
)
QUANTITIES = ["weights", "train_loss"]


def collect(store: Store) -> GapData:
    """
    Return number of weights, train loss and gap of each fitted network.

    Raises
    ------
    MissingDataError
        No fitted network has all three.
    """
    networks = networks_to_draw(store, "1", QUANTITIES)
    points = networks[["id", *configuration_columns(networks), "seed", *QUANTITIES, "gap"]]
    return gap_data(networks, points, QUANTITIES)


def draw(data: GapData, axes: Sequence[Axes]) -> None:
    """Draw the data on two axes a data set: the number of weights, then the train loss."""
    draw_panels(data, axes)
