"""One network of a survey: everything that decides how it is built and trained. Imports neither torch nor ray."""

import hashlib
import json
import operator
import sys
from dataclasses import asdict, dataclass, fields
from numbers import Real
from typing import Any

from .errors import InvalidInputError

ACTIVATIONS = ("relu", "relu6", "tanh", "hardtanh", "hardsigmoid")
OPTIMIZERS = ("sgd", "momentum")
LABELS = ("true", "random")
AUGMENTATIONS = ("none",)
LOSSES = ("cross-entropy",)


@dataclass(frozen=True, slots=True)
class Configuration:
    """
    Everything that decides one trained network, apart from the settings that a whole survey shares.

    Parameters
    ----------
    dataset
        Name of the data set, as in `load_dataset`.
    width
        Units in each hidden layer, 1 or more.
    depth
        Number of weight matrices, 2 or more; depth 2 is one hidden layer.
    activation
        One of `relu`, `relu6`, `tanh`, `hardtanh`, `hardsigmoid` (paper, A.4).
    init_scale
        Multiplies the standard deviation of the initial weights (paper, A.5.5).
    optimizer
        One of `sgd`, `momentum`.
    learning_rate
        Step size before any decay.
    batch_size
        Points in a minibatch.
    labels
        `true`, or `random`: one fixed, uniformly random relabelling of the training set per seed.
    augmentation
        `none`.
    loss
        `cross-entropy`.
    steps
        Most minibatches to train on; 0 leaves the network as it was initialised.
    seed
        Drives the initial weights, the shuffling and the random labels (paper, A.5.1).

    Raises
    ------
    InvalidInputError
        A value is not one that is listed above.
    """

    dataset: str
    width: int
    depth: int
    activation: str = "relu"
    init_scale: float = 1.0
    optimizer: str = "momentum"
    learning_rate: float = 0.005
    batch_size: int = 256
    labels: str = "true"
    augmentation: str = "none"
    loss: str = "cross-entropy"
    steps: int = 2**18
    seed: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.dataset, str) or not self.dataset:
            raise InvalidInputError(f"dataset must be the name of a data set; got {self.dataset!r}")
        for name, least in (("width", 1), ("depth", 2), ("batch_size", 1), ("steps", 0), ("seed", 0)):
            self._check_integer(name, least)
        for name in ("init_scale", "learning_rate"):
            self._check_positive(name)
        for name, allowed in (
            ("activation", ACTIVATIONS),
            ("optimizer", OPTIMIZERS),
            ("labels", LABELS),
            ("augmentation", AUGMENTATIONS),
            ("loss", LOSSES),
        ):
            if getattr(self, name) not in allowed:
                raise InvalidInputError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")

    def _check_integer(self, name: str, least: int) -> None:
        value = getattr(self, name)
        # numpy's whole numbers, which loops over arrays bring, have an index too.
        number = operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else -1
        if not least <= number < 2**63:
            raise InvalidInputError(f"{name} must be a whole number of at least {least}, below 2^63; got {value!r}")
        object.__setattr__(self, name, number)

    def _check_positive(self, name: str) -> None:
        value = number = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < number <= sys.float_info.max:
            raise InvalidInputError(f"{name} must be a number above 0; got {value!r}")
        # 1 and 1.0 are one configuration, and must have one id.
        object.__setattr__(self, name, float(value))

    @property
    def id(self) -> str:
        """Hash of the content, 16 hexadecimal digits: the same on every machine and in every version."""
        content = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    @property
    def stack_key(self) -> tuple[str | int, ...]:
        """What the networks of one stack have in common: all but seed, learning rate, initial scale and labels."""
        shape = (self.dataset, self.width, self.depth, self.activation)
        return (*shape, self.optimizer, self.batch_size, self.augmentation, self.loss, self.steps)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, in the order of their definition."""
        return asdict(self)


FIELDS = tuple(field.name for field in fields(Configuration))
