"""The optimizers. Each steps a whole stack, every network with its own learning rate."""

from ..errors import InvalidInputError
from ._interface import Optimizer
from .momentum import Momentum
from .sgd import SGD

__all__ = ["SGD", "Momentum", "Optimizer", "optimizer_class"]

_BY_NAME: dict[str, type[Optimizer]] = {"sgd": SGD, "momentum": Momentum}


def optimizer_class(name: str) -> type[Optimizer]:
    """Return the optimizer called `name`, or raise InvalidInputError."""
    if name not in _BY_NAME:
        raise InvalidInputError(f"optimizer must be one of {', '.join(_BY_NAME)}; got {name!r}")
    return _BY_NAME[name]
