"""What training and measuring networks takes: floating-point operations, memory, time. Imports no torch."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..configuration import Configuration
from .speed import Shape, Speeds

# Wider layers run at the rate of these.
WIDEST_MEASURED = 1024
# Depths at which steps are measured; between and beyond them each layer costs the same.
SHALLOW, DEEP = 2, 5
# Points of a chunk of the full batch, for its time.
CHUNK = 256
# Of L-BFGS: nearly all iterations take their first trial step (measured on digits: 1.01 to 1.3).
EVALUATIONS_AN_ITERATION = 1.1
# Of L-BFGS: the two loops over a full history, a weight; 85 to 130 ns on a busy core.
SECONDS_A_WEIGHT = 9e-8
# A forward pass costs a third of a step; train accuracy is looked at every fifth epoch.
FORWARD_SHARE = 1 / 3
CHECKS_SHARE = FORWARD_SHARE / 5
# Copies of the weights that a training holds: the weights, what the optimizer keeps, and those that have left.
COPIES = {"sgd": 2, "momentum": 3, "adam": 5, "rmsprop": 5, "lbfgs": 38}
# Of the evaluation and the Jacobian pass, which follow: the stack again, and a layer or all of it in float64.
COPIES_MEASURED = 7


class Sizes(NamedTuple):
    """The sizes of a data set: inputs D, classes C, points, and the test points at which Jacobian norms are taken."""

    inputs: int
    classes: int
    train_points: int
    test_points: int
    measured_points: int


def number_of_weights(configuration: Configuration, inputs: int, classes: int) -> int:
    """Return the number of weights of a network with `inputs` D and `classes` C."""
    W = configuration.width
    return inputs * W + (configuration.depth - 2) * W * W + W * classes


def training_flops(configuration: Configuration, inputs: int, classes: int, train_points: int) -> float:
    """Return the floating-point operations of a whole training, early stopping apart."""
    return configuration.steps * step_flops(configuration, inputs, classes, train_points)


def step_flops(configuration: Configuration, inputs: int, classes: int, train_points: int) -> float:
    """
    Return the floating-point operations of a step of one network; of L-BFGS, of an iteration.

    A step takes 2 B a weight forward, 2 B for the weights' gradients, 2 B for the activations' except at the inputs; B is the
    whole training set for L-BFGS, which evaluates it EVALUATIONS_AN_ITERATION times.
    """
    c = configuration
    weights = number_of_weights(c, inputs, classes)
    points = EVALUATIONS_AN_ITERATION * train_points if c.batch_size is None else c.batch_size
    return float(points) * (6 * weights - 2 * inputs * c.width)


def jacobian_flops(configuration: Configuration, inputs: int, classes: int, points: int) -> float:
    """Return the operations of the Jacobian pass: a block of rows carried through the layers, a forward pass in float64."""
    c = configuration
    columns = min(c.width, inputs)
    rows = min(columns, classes)
    chain = 2 * rows * c.width * ((c.depth - 2) * c.width + max(columns, classes))
    # float64 products run at half the rate.
    return float(points) * (chain + 4 * number_of_weights(c, inputs, classes))


def stack_bytes(configuration: Configuration, networks: int, sizes: Sizes) -> int:
    """Return the memory of a stack: weights and the optimizer's state, or the measures' copies; buffers, minibatches, labels."""
    c = configuration
    weights = number_of_weights(c, sizes.inputs, sizes.classes)
    points = c.batch_size or 1024
    buffers = points * (c.width * (c.depth + 1) + 3 * sizes.classes + 2 * sizes.inputs)
    labels = 2 * (2 if c.augmentation == "none" else 3) * sizes.train_points
    return 4 * networks * (max(COPIES[c.optimizer], COPIES_MEASURED) * weights + buffers + labels)


class CostModel:
    """
    Predicts times from measured steps.

    Parameters
    ----------
    sizes
        Of each data set, by name.
    speeds
        Measured steps.
    checked
        Whether networks stop at an accuracy, which has to be looked at.
    """

    def __init__(self, sizes: Mapping[str, Sizes], speeds: Speeds, *, checked: bool) -> None:
        self.sizes, self.speeds, self.checked = sizes, speeds, checked

    def stack_seconds(self, stack: Sequence[Configuration]) -> float:
        """Return the seconds that training and measuring a stack takes one worker, early stopping apart."""
        c, networks, seeds = stack[0], len(stack), len({one.seed for one in stack})
        inputs, classes, train_points, test_points, measured = self.sizes[c.dataset]
        step = self.step_seconds(c, networks, seeds)
        points = c.batch_size or train_points
        rate = networks * step_flops(c, inputs, classes, train_points) / step
        fit = FORWARD_SHARE * step * (train_points + test_points) / points
        jacobian = networks * jacobian_flops(c, inputs, classes, measured) / rate
        return c.steps * step * (1 + CHECKS_SHARE * self.checked) + fit + jacobian

    def step_seconds(self, configuration: Configuration, networks: int, seeds: int) -> float:
        """Return the seconds of a step of a stack of so many networks of so many seeds; of L-BFGS, of an iteration."""
        c = configuration
        inputs, classes, train_points, _, _ = self.sizes[c.dataset]
        batch_size = c.batch_size or CHUNK
        if c.full_batch:
            # All see the same points, or each its own.
            seeds = 1 if c.augmentation == "none" else networks
        seconds = self._plain_step(c, networks, seeds, batch_size)
        units = networks * batch_size * c.width * (c.depth - 1)
        seconds += units * (self.speeds.part("activation", c.activation) - self.speeds.part("activation", "relu"))
        if c.augmentation != "none":
            seconds += seeds * batch_size * inputs * self.speeds.part("augmentation", c.augmentation)
        weights = networks * number_of_weights(c, inputs, classes)
        if c.full_batch:
            evaluations = EVALUATIONS_AN_ITERATION + (c.augmentation != "none")
            return evaluations * seconds * train_points / batch_size + weights * SECONDS_A_WEIGHT
        return seconds + weights * (self.speeds.part("optimizer", c.optimizer) - self.speeds.part("optimizer", "momentum"))

    def _plain_step(self, c: Configuration, networks: int, seeds: int, batch_size: int) -> float:
        """Return the seconds of a step with ReLU, Momentum and no augmentation."""
        inputs, classes = self.sizes[c.dataset][:2]
        width = min(c.width, WIDEST_MEASURED)
        shape = Shape(networks, seeds, inputs, width, SHALLOW, classes, batch_size)
        seconds = self.speeds.step(shape)
        if c.depth > SHALLOW:
            layer = (self.speeds.step(shape._replace(depth=DEEP)) - seconds) / (DEEP - SHALLOW)
            seconds += (c.depth - SHALLOW) * max(0.0, layer)
        if c.width > width:
            measured = inputs * width + (c.depth - 2) * width * width + width * classes
            seconds *= number_of_weights(c, inputs, classes) / measured
        return seconds
