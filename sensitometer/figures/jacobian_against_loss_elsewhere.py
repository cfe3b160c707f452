"""Figure App. 9: Figure 6 for Fashion-MNIST and CIFAR100."""

from ..store import Store
from .drawing.interface import FigureData
from .jacobian_against_loss import CAPTION, collect_points, draw

__all__ = ["CAPTION", "collect", "draw"]


def collect(store: Store) -> FigureData:
    """Return the points of random networks of Fashion-MNIST and CIFAR100: see `collect_points`."""
    return collect_points(store, "9", elsewhere=True)
