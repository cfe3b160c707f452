"""The optimizers. Each steps a whole stack, every network with its own learning rate or step length."""

from ..errors import InvalidInputError
from ._interface import Optimizer, views
from .adam import Adam
from .lbfgs import LBFGS
from .momentum import Momentum
from .rmsprop import RMSProp
from .sgd import SGD

__all__ = ["LBFGS", "SGD", "Adam", "Momentum", "Optimizer", "RMSProp", "optimizer_class", "views"]

_BY_NAME: dict[str, type[Optimizer]] = {"sgd": SGD, "momentum": Momentum, "adam": Adam, "rmsprop": RMSProp}


def optimizer_class(name: str) -> type[Optimizer]:
    """Return the optimizer called `name`, or raise InvalidInputError. L-BFGS, which takes no minibatches, is not among them."""
    if name not in _BY_NAME:
        raise InvalidInputError(f"optimizer must be one of {', '.join(_BY_NAME)}; got {name!r}")
    return _BY_NAME[name]
