"""The cost of training and measuring networks: floating-point operations, memory, time. Imports no torch."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...configuration import Configuration
from .speed import Pace, Shape

# Points of a chunk of the full batch, for its time.
CHUNK = 256
# Nearly all iterations of L-BFGS take their first trial step (measured on digits: 1.01 to 1.3).
EVALUATIONS_AN_ITERATION = 1.1
# The two loops of L-BFGS over a full history, per weight; 85 to 130 ns on a busy core. These and the other seconds below are
# those of a core, and `Pace.elementwise` makes them another device's.
SECONDS_A_WEIGHT = 9e-8
# A forward pass costs a third of a step; train accuracy is looked at every fifth epoch.
FORWARD_SHARE = 1 / 3
CHECKS_SHARE = FORWARD_SHARE / 5
# Copies of the weights that a training holds: the weights, what the optimizer keeps, and those that have left.
COPIES = {"sgd": 2, "momentum": 3, "adam": 5, "rmsprop": 5, "lbfgs": 38}
# Copies that the evaluation and the measures hold afterwards: the stack again, and a layer or all of it in float64.
COPIES_MEASURED = 7
# Points of a loop at which transitions are sampled that cannot be counted exactly; as in the paper.
TRANSITION_SAMPLES = 2**20
# Numbers in the vertices of the loops that networks are taken along in one call, and how many copies of them that makes.
LOOP_NUMBERS, LOOP_COPIES = 2**22, 5
# Memory of the walk along the loops, and of each layer that it has gone down; of a sample.
WALK_BYTES, LAYER_BYTES, SAMPLE_BYTES = 2**26, 2**24, 24
# Crossings of a unit along a loop, times the square root of its vertices. Measured: 3 of a random ReLU unit with the 8 vertices
# of the digits, 6 with the 28 of MNIST; after training, the means of the networks of `quick`. Units that saturate on both sides
# have more, most of all in networks of large initial weights, which are chaotic.
CROSSINGS = {"relu": 1.1, "relu6": 1.2, "hardtanh": 3.3, "hardsigmoid": 2.2}
# Seconds of a unit at a breakpoint and at a sample, its product apart; of a layer along one loop, and of a layer of a stack. On
# one core of an AMD EPYC they predict 1.1 to 2.5 times the seconds that untrained ReLU and HardSigmoid networks of the shapes of
# `quick` take.
SECONDS_A_BREAKPOINT, SECONDS_A_SAMPLE = 5e-9, 2.5e-9
SECONDS_A_LOOP, SECONDS_A_WALK = 1.2e-5, 7e-4
# Operations per second of the exact counts' products in float64, which a core of a processor does, wherever the networks are
# trained: 42e9, of which units that do not change between breakpoints save four tenths.
EXACT_RATE = 7e10
# The two slices of a network: seconds for each pair of its hidden units, since lines cut one another; bytes kept for each pair
# of a unit of the last hidden layer, whose boundaries these are, and any hidden unit. Measured on ReLU6 networks of 7 hidden
# layers of 100 units, 11 of 60 and 14 of 300. A processor does that, wherever the networks are trained.
SECONDS_A_PAIR, BYTES_A_PAIR = 7e-6, 25
# Memory of a slice whose faces are not kept, and of each pair of hidden units: 105, 164 and 485 MB for the same three networks.
SLICE_BYTES, SLICE_BYTES_A_PAIR = 150_000_000, 20
# Ellipses along which sensitivity is measured. A line through them crosses a unit of a layer twice, about as a loop of so many
# vertices does; but its pieces have a row in the middle, too, none of it interpolated, and their crossings are roots: untrained
# ReLU networks of widths 64 to 500 and depths 4 to 15 take 1.5 to 2.7 times as long.
ELLIPSES, ELLIPSE_VERTICES, ARC = 3, 4, 2.0
# Bytes kept of each point, and of each bin of an ellipse; of a picture's pixel; of the translation loop, its pictures apart.
BYTES_A_POINT, BYTES_A_BIN, PICTURES, BYTES_A_TRANSLATION = 56, 16, 6, 8_000


class Sizes(NamedTuple):
    """
    The sizes of a data set: inputs D, classes C, points, and the test points at which Jacobian norms are taken.

    And the translation loops along which transitions are counted, their vertices, and the samples of a loop for tanh; the points
    of which the measures are kept, the bins of the ellipses, and whether there are slices.
    """

    inputs: int
    classes: int
    train_points: int
    test_points: int
    measured_points: int
    loops: int = 0
    loop_vertices: int = 2
    loop_samples: int = TRANSITION_SAMPLES
    kept_points: int = 0
    path_bins: int = 0
    slices: bool = False


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

    B points take `point_flops` each; B is the whole training set for L-BFGS, which evaluates it EVALUATIONS_AN_ITERATION times.
    """
    c = configuration
    points = EVALUATIONS_AN_ITERATION * train_points if c.batch_size is None else c.batch_size
    return float(points) * point_flops(c, inputs, classes)


def point_flops(configuration: Configuration, inputs: int, classes: int) -> int:
    """Return the operations of a point: 2 a weight forward, 2 for its gradient, 2 for the activations' except at the inputs."""
    return 6 * number_of_weights(configuration, inputs, classes) - 2 * inputs * configuration.width


def jacobian_flops(configuration: Configuration, inputs: int, classes: int, points: int) -> float:
    """Return the operations of the Jacobian pass: a block of rows carried through the layers, a forward pass in float64."""
    c = configuration
    columns = min(c.width, inputs)
    rows = min(columns, classes)
    chain = 2 * rows * c.width * ((c.depth - 2) * c.width + max(columns, classes))
    # float64 products run at half the rate.
    return float(points) * (chain + 4 * number_of_weights(c, inputs, classes))


def loops_at_once(sizes: Sizes) -> int:
    """Return along how many loops networks are taken at once, so that their vertices take little memory."""
    return max(1, LOOP_NUMBERS // (sizes.loop_vertices * sizes.inputs))


def loop_rows(configuration: Configuration, sizes: Sizes) -> list[float]:
    """
    Return at how many points of a loop each hidden layer is evaluated, expected: its vertices, and the crossings of layers below.

    A layer of W units has about as many crossings wherever it is, so that the points grow with width and depth, and the work with
    the squares of both.
    """
    c = configuration
    if c.activation == "tanh":
        return [float(sizes.loop_samples)] * (c.depth - 1)
    crossings = CROSSINGS[c.activation] * math.sqrt(sizes.loop_vertices) * c.width
    return [sizes.loop_vertices + 1 + layer * crossings for layer in range(c.depth - 1)]


def transition_flops(configuration: Configuration, sizes: Sizes) -> float:
    """
    Return the operations of counting transitions, as expected: products at each point, of the first layer at the vertices.

    Points that are crossings of the layer right below alone are interpolated.
    """
    c = configuration
    first = 2.0 * sizes.loop_vertices * sizes.inputs * c.width
    return sizes.loops * (first + 2 * c.width**2 * sum(loop_rows(c, sizes)[:-1]))


def transition_seconds(configuration: Configuration, networks: int, sizes: Sizes, rate: float, elementwise: float = 1.0) -> float:
    """
    Return the seconds of counting the transitions of a stack, as expected.

    Samples are taken where the networks are, with products at `rate` operations per second; exact counts on the processor.
    """
    if not sizes.loops:
        return 0.0
    c = configuration
    unit = SECONDS_A_BREAKPOINT
    if c.activation == "tanh":
        unit = elementwise * SECONDS_A_SAMPLE
    else:
        rate = EXACT_RATE
    loop = unit * c.width * sum(loop_rows(c, sizes)) + SECONDS_A_LOOP * (c.depth - 1)
    return networks * (sizes.loops * loop + transition_flops(c, sizes) / rate) + SECONDS_A_WALK * (c.depth - 1)


def array_flops(configuration: Configuration, sizes: Sizes) -> float:
    """Return the operations of the Jacobian passes for what is kept as arrays: three norms at each point, one at each bin."""
    points = 3 * sizes.kept_points + ELLIPSES * sizes.path_bins
    return jacobian_flops(configuration, sizes.inputs, sizes.classes, points)


def array_seconds(configuration: Configuration, sizes: Sizes, rate: float, elementwise: float = 1.0) -> float:
    """Return the seconds of what is kept of one network as arrays, as expected, with products at `rate` operations a second."""
    seconds = array_flops(configuration, sizes) / rate
    if sizes.path_bins:
        ellipses = sizes._replace(loops=ELLIPSES, loop_vertices=ELLIPSE_VERTICES)
        seconds += ARC * transition_seconds(configuration, 1, ellipses, rate, elementwise)
    if sizes.slices:
        seconds += SECONDS_A_PAIR * _hidden_units(configuration) ** 2
    return seconds


def array_bytes(configuration: Configuration, sizes: Sizes) -> int:
    """Return the bytes kept of one network as arrays, as expected."""
    found = BYTES_A_POINT * sizes.kept_points + BYTES_A_BIN * ELLIPSES * sizes.path_bins
    if sizes.path_bins:
        found += PICTURES * sizes.inputs + BYTES_A_TRANSLATION
    if sizes.slices:
        found += PICTURES * sizes.inputs // 2 + BYTES_A_PAIR * configuration.width * _hidden_units(configuration)
    return found


def _hidden_units(configuration: Configuration) -> int:
    return configuration.width * (configuration.depth - 1)


def walk_bytes(configuration: Configuration, sizes: Sizes) -> int:
    """Return the memory of counting transitions and of slices, weights apart: it does not grow with the networks of a stack."""
    slices = SLICE_BYTES + SLICE_BYTES_A_PAIR * _hidden_units(configuration) ** 2 if sizes.slices else 0
    if not sizes.loops:
        return slices
    numbers = min(sizes.loops, loops_at_once(sizes)) * sizes.loop_vertices * sizes.inputs
    samples = sizes.loop_samples if configuration.activation == "tanh" else 0
    return slices + 4 * LOOP_COPIES * numbers + WALK_BYTES + LAYER_BYTES * configuration.depth + SAMPLE_BYTES * samples


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
    Predicts times from those of steps.

    Parameters
    ----------
    sizes
        The sizes of each data set, by name.
    speeds
        The speeds of steps, measured or assumed.
    checked
        Whether networks stop at an accuracy, which has to be looked at.
    """

    def __init__(self, sizes: Mapping[str, Sizes], speeds: Pace, *, checked: bool) -> None:
        self.sizes, self.speeds, self.checked = sizes, speeds, checked

    def stack_seconds(self, stack: Sequence[Configuration]) -> float:
        """Return the seconds that training and measuring a stack takes one worker, early stopping apart."""
        c, networks, seeds = stack[0], len(stack), len({one.seed for one in stack})
        sizes = self.sizes[c.dataset]
        inputs, classes, train_points, test_points, measured = sizes[:5]
        step = self.step_seconds(c, networks, seeds)
        points = c.batch_size or train_points
        # The measures are made of products: what an optimizer or an augmentation takes of a step says nothing of theirs.
        batch_size = c.batch_size or CHUNK
        rate = networks * batch_size * point_flops(c, inputs, classes) / self._plain_step(c, networks, seeds, batch_size)
        fit = FORWARD_SHARE * step * (train_points + test_points) / points
        measures = networks * jacobian_flops(c, inputs, classes, measured) / rate
        measures += transition_seconds(c, networks, sizes, rate, self.speeds.elementwise)
        measures += networks * array_seconds(c, sizes, rate, self.speeds.elementwise)
        return c.steps * step * (1 + CHECKS_SHARE * self.checked) + fit + measures

    def step_seconds(self, configuration: Configuration, networks: int, seeds: int) -> float:
        """Return the seconds of a step of a stack of so many networks of so many seeds; of L-BFGS, of an iteration."""
        c = configuration
        inputs, classes, train_points = self.sizes[c.dataset][:3]
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
            return evaluations * seconds * train_points / batch_size + weights * SECONDS_A_WEIGHT * self.speeds.elementwise
        return seconds + weights * (self.speeds.part("optimizer", c.optimizer) - self.speeds.part("optimizer", "momentum"))

    def _plain_step(self, c: Configuration, networks: int, seeds: int, batch_size: int) -> float:
        """Return the seconds of a step with ReLU, Momentum and no augmentation."""
        inputs, classes = self.sizes[c.dataset][:2]
        return self.speeds.step(Shape(networks, seeds, inputs, c.width, c.depth, classes, batch_size))

    def minibatches(self, configuration: Configuration) -> float:
        """Return in how many minibatches a step takes its points: 1, or as many as the chunks of the full batch."""
        return self.sizes[configuration.dataset].train_points / CHUNK if configuration.full_batch else 1.0
