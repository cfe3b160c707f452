"""The optimizers. Each steps a whole stack, every network with its own learning rate or step length."""

from ._interface import Optimizer, views
from .adam import Adam
from .lbfgs import LBFGS
from .momentum import Momentum
from .rmsprop import RMSProp
from .sgd import SGD

__all__ = ["LBFGS", "MINIBATCH_OPTIMIZERS", "SGD", "Adam", "Momentum", "Optimizer", "RMSProp", "views"]

# All but L-BFGS, which takes the whole training set.
MINIBATCH_OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "momentum": Momentum, "adam": Adam, "rmsprop": RMSProp}
