"""Figure App. 8: the generalization gap against the transitions. A panel a data set, a point a configuration."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from ..analysis.seeds import average_over_seeds
from . import gap_against_jacobian
from .gap import GapData, draw_panels, gap_data, networks_to_draw
from .interface import Store

CAPTION = gap_against_jacobian.CAPTION


def collect(store: Store) -> GapData:
    """
    Return mean and standard error of gap and transitions of each configuration, over its fitted seeds (paper, A.5.1).

    Raises
    ------
    MissingDataError
        Transitions were counted of no fitted network.
    """
    networks = networks_to_draw(store, "8", ["transitions"])
    return gap_data(networks, average_over_seeds(networks, ["transitions", "gap"]), ["transitions"])


def draw(data: GapData, axes: Sequence[Axes]) -> None:
    """Draw the data on one axes a data set."""
    draw_panels(data, axes)
