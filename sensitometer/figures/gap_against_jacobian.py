"""Figure 5: the generalization gap against the Jacobian norm. A panel a data set, a point a configuration."""

from collections.abc import Sequence

from matplotlib.axes import Axes

from ..analysis.seeds import average_over_seeds
from .gap import GapData, draw_panels, gap_data, networks_to_draw
from .interface import Store

CAPTION = (
    "A point is a configuration: mean over its fitted seeds ± one standard error.\n"
    "Kendall's τ over n fitted networks (95% interval, configurations resampled)."
)


def collect(store: Store) -> GapData:
    """
    Return mean and standard error of gap and Jacobian norm of each configuration, over its fitted seeds (paper, A.5.1).

    Raises
    ------
    MissingDataError
        No fitted network has a Jacobian norm.
    """
    networks = networks_to_draw(store, "5", ["jacobian_norm"])
    return gap_data(networks, average_over_seeds(networks, ["jacobian_norm", "gap"]), ["jacobian_norm"])


def draw(data: GapData, axes: Sequence[Axes]) -> None:
    """Draw the data on one axes a data set."""
    draw_panels(data, axes)
