"""Figure App. 9: Figure 6 for Fashion-MNIST and CIFAR100."""

from .drawing.interface import Store
from .jacobian_against_loss import CAPTION, ELSEWHERE, LossData, draw, loss_data

__all__ = ["CAPTION", "collect", "draw"]


def collect(store: Store) -> LossData:
    """
    Return the points of random networks of Fashion-MNIST and CIFAR100.

    Raises
    ------
    MissingDataError
        The survey has no such points.
    """
    return loss_data(store, "9", " or ".join(ELSEWHERE), lambda dataset: dataset in ELSEWHERE)
