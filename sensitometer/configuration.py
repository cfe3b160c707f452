"""One network of a survey: everything that decides how it is built and trained. Imports neither torch nor ray."""

import hashlib
import json
import sys
from dataclasses import dataclass, field, fields
from numbers import Real
from typing import Any

from .errors import InvalidInputError, check_whole_number

ACTIVATIONS = ("relu", "relu6", "tanh", "hardtanh", "hardsigmoid")
OPTIMIZERS = ("sgd", "momentum", "adam", "rmsprop", "lbfgs")
LABELS = ("true", "random")
AUGMENTATIONS = ("none", "shift-flip", "shift-flip-rotate")
LOSSES = ("cross-entropy", "l2")
_ALLOWED = {"activation": ACTIVATIONS, "optimizer": OPTIMIZERS, "labels": LABELS, "augmentation": AUGMENTATIONS, "loss": LOSSES}
# Paper, A.5.5: the most iterations of L-BFGS.
MOST_LBFGS_ITERATIONS = 2684


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
        One of `sgd`, `momentum`, `adam`, `rmsprop`, `lbfgs`. L-BFGS is full batch with a line search: it has neither a learning
        rate nor a batch size, and both become None whatever is given.
    learning_rate
        Step size before any decay.
    batch_size
        Points in a minibatch.
    labels
        `true`, or `random`: one fixed, uniformly random relabelling of the training set per seed.
    augmentation
        `none`; `shift-flip`: translations by up to 4 pixels, wrapping, and horizontal flips (paper, A.5.4); `shift-flip-rotate`:
        flips along both axes and rotations by 90 degrees too (paper, A.5.3).
    loss
        `cross-entropy`, or `l2`: half the squared distance of the logits from the one-hot label.
    steps
        Most minibatches to train on; 0 leaves the network as it was initialised. For L-BFGS the most iterations, which become
        2684 where more are given (paper, A.5.5).
    seed
        Drives the initial weights, the shuffling, the augmentation and the random labels (paper, A.5.1).

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
    learning_rate: float | None = 0.005
    batch_size: int | None = 256
    labels: str = "true"
    augmentation: str = "none"
    loss: str = "cross-entropy"
    steps: int = 2**18
    seed: int = 1
    # The id, once it was asked for.
    _id: str | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.dataset, str) or not self.dataset:
            raise InvalidInputError(f"dataset must be the name of a data set; got {self.dataset!r}")
        for name, allowed in _ALLOWED.items():
            if getattr(self, name) not in allowed:
                raise InvalidInputError(f"{name} must be one of {', '.join(allowed)}; got {getattr(self, name)!r}")
        self._check_whole_numbers(width=1, depth=2, steps=0, seed=0)
        self._check_positive("init_scale")
        if self.full_batch:
            # A setting that does not apply must not make two configurations of one network.
            for name, value in (("learning_rate", None), ("batch_size", None), ("steps", min(self.steps, MOST_LBFGS_ITERATIONS))):
                object.__setattr__(self, name, value)
        else:
            self._check_whole_numbers(batch_size=1)
            self._check_positive("learning_rate")

    def _check_whole_numbers(self, **least: int) -> None:
        for name, smallest in least.items():
            value = getattr(self, name)
            if type(value) is int and smallest <= value < 2**63:
                continue
            number = check_whole_number(name, value, least=smallest)
            if number >= 2**63:
                raise InvalidInputError(f"{name} must be below 2^63; got {number}")
            object.__setattr__(self, name, number)

    def _check_positive(self, name: str) -> None:
        value = number = getattr(self, name)
        if type(value) is float and 0 < value <= sys.float_info.max:
            return
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < number <= sys.float_info.max:
            raise InvalidInputError(f"{name} must be a number above 0; got {value!r}")
        # 1 and 1.0 are one configuration, and must have one id.
        object.__setattr__(self, name, float(value))

    @property
    def full_batch(self) -> bool:
        """Whether each step takes the whole training set (L-BFGS) rather than a minibatch."""
        return self.optimizer == "lbfgs"

    @property
    def id(self) -> str:
        """Hash of the content, 16 hexadecimal digits: the same on every machine and in every version."""
        if self._id is None:
            content = json.dumps({name: getattr(self, name) for name in SORTED_FIELDS})
            object.__setattr__(self, "_id", hashlib.sha256(content.encode()).hexdigest()[:16])
            assert self._id is not None
        return self._id

    @property
    def stack_key(self) -> tuple[str | int | None, ...]:
        """The settings that the networks of one stack share: all but seed, learning rate, initial scale and labels."""
        shape = (self.dataset, self.width, self.depth, self.activation)
        return (*shape, self.optimizer, self.batch_size, self.augmentation, self.loss, self.steps)

    @property
    def kind(self) -> str:
        """The `stack_key` in words."""
        return " ".join(map(str, self.stack_key))

    def with_seed(self, seed: int) -> "Configuration":
        """Return this configuration with another seed, a whole number of at least 0, unchecked: in a fifth of the time."""
        other = object.__new__(Configuration)
        for name in FIELDS:
            object.__setattr__(other, name, getattr(self, name))
        object.__setattr__(other, "seed", seed)
        object.__setattr__(other, "_id", None)
        return other

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, in the order of their definition."""
        return {name: getattr(self, name) for name in FIELDS}


FIELDS = tuple(field.name for field in fields(Configuration) if field.init)
SORTED_FIELDS = tuple(sorted(FIELDS))
