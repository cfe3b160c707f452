"""The cost of training and measuring networks: floating-point operations, memory, time. Imports no torch."""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import msgspec
from msgspec import Meta

from ...configuration import Configuration
from .machines import Machine

# Points that L-BFGS evaluates at once, for its time.
CHUNK = 256
# Nearly all iterations of L-BFGS take their first trial step (measured on digits: 1.01 to 1.3).
EVALUATIONS_PER_ITERATION = 1.1
# Operations of a step, as `training/backpropagation.py` takes it. A layer has its product, activation and derivative, and the two
# products of its gradients. The others: the minibatch is gathered, the loss has four, and the optimizer steps.
OPERATIONS_PER_LAYER, OPERATIONS_PER_STEP = 5, 6
# How often a step reads or writes a unit at a point, and a pixel of a minibatch.
UNIT_PASSES, PIXEL_PASSES = 11, 4
# And a weight. On a GPU these are counted. On a processor they are measured in passes of its cache's bandwidth: square roots and
# divisions take longer there, and the histories of L-BFGS, 20 vectors, lie beyond the cache.
WEIGHT_PASSES = {
    "cpu": {"sgd": 5, "momentum": 7, "rmsprop": 18, "adam": 50, "lbfgs": 1100},
    "cuda": {"sgd": 4, "momentum": 7, "rmsprop": 9, "adam": 11, "lbfgs": 100},
}
# How often a sample of a loop reads or writes a unit of tanh; measured on a core.
SAMPLE_PASSES = 31
BYTES = 4
# A forward pass costs a third of a step.
FORWARD_SHARE = 1 / 3
# Copies of the weights that a training holds: the weights, what the optimizer keeps, and those that have left.
COPIES = {"sgd": 2, "momentum": 3, "adam": 5, "rmsprop": 5, "lbfgs": 38}
# Copies that the evaluation and the measures hold afterwards: the stack again, and a layer or all of it in float64.
COPIES_MEASURED = 7
# Points of a loop at which transitions are sampled that cannot be counted exactly; as in the paper.
TRANSITION_SAMPLES = 2**20
# More bins of an ellipse than a figure could show.
MOST_BINS = 100_000
TestPoints = Annotated[int, Meta(ge=0)] | Literal["all"]
# Memory of the walk along the loops, and of each layer that it has gone down.
WALK_BYTES, LAYER_BYTES = 2**26, 2**24
# Crossings of a unit along a loop, times the square root of its vertices. Measured: 3 of a random ReLU unit with the 8 vertices
# of the digits, 6 with the 28 of MNIST; after training, the means of the networks of `quick`. Units that saturate on both sides
# have more, most of all in networks of large initial weights, which are chaotic.
CROSSINGS = {"relu": 1.1, "relu6": 1.2, "hardtanh": 3.3, "hardsigmoid": 2.2}
# Seconds of the exact counts, which a processor makes wherever the networks are trained: of a unit at a breakpoint, its product
# apart. Measured on one core of an AMD EPYC.
SECONDS_PER_BREAKPOINT = 5e-9
# Operations per second of their products in float64: 42e9; units that do not change between breakpoints save four tenths of them.
EXACT_RATE = 7e10
# The two slices of a network: seconds for each pair of its hidden units, since lines cut one another; bytes kept for each pair
# of a unit of the last hidden layer, whose boundaries these are, and any hidden unit. Measured on ReLU6 networks of 7 hidden
# layers of 100 units, 11 of 60 and 14 of 300. A processor does that, wherever the networks are trained.
SECONDS_PER_PAIR, BYTES_PER_PAIR = 7e-6, 25
# Memory of a slice whose faces are not kept, and of each pair of hidden units: 105, 164 and 485 MB for the same three networks.
SLICE_BYTES, SLICE_BYTES_PER_PAIR = 150_000_000, 20
# Ellipses along which sensitivity is measured. Counting transitions along one takes as long as along two loops of four vertices:
# its lines cross a unit as often, but their crossings are roots. Measured on untrained ReLU networks: as along 1.5 to 2.7 loops.
ELLIPSES, LOOPS_PER_ELLIPSE, ELLIPSE_VERTICES = 3, 2, 4
# Bytes kept of each point, and of each bin of an ellipse; of a picture's pixel; of the translation loop, its pictures apart.
BYTES_PER_POINT, BYTES_PER_BIN, PICTURES, BYTES_PER_TRANSLATION = 56, 16, 6, 8_000


class Measures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """
    At how many test points, from the first, Jacobian norms are taken and transitions are counted; 0 for none.

    Transitions are those along the translation loops of these points. Networks of tanh, for which they cannot be counted exactly,
    are sampled at `transition_samples` points of each path.

    Arrays are kept of each network (`store/arrays.py`): the measures of `points` random test points; sensitivity along three
    ellipses, in `paths` bins of angle; the boundaries on a `slice` before and after training.
    """

    jacobian: TestPoints = "all"
    transitions: TestPoints = 0
    transition_samples: Annotated[int, Meta(ge=2)] = TRANSITION_SAMPLES
    points: Annotated[int, Meta(ge=0)] = 0
    paths: Annotated[int, Meta(ge=0, le=MOST_BINS)] = 0
    slice: bool = False

    @property
    def keeps_arrays(self) -> bool:
        """Whether anything is kept as arrays."""
        return bool(self.points or self.paths or self.slice)


class Sizes(NamedTuple):
    """The sizes of a data set: inputs D, classes C, points, vertices of a translation loop; and the measures taken on it."""

    inputs: int
    classes: int
    train_points: int
    test_points: int
    loop_vertices: int = 2
    measures: Measures = Measures()

    @property
    def measured_points(self) -> int:
        """The test points at which Jacobian norms are taken."""
        return self.test_points if self.measures.jacobian == "all" else self.measures.jacobian

    @property
    def loops(self) -> int:
        """The translation loops along which transitions are counted."""
        return self.test_points if self.measures.transitions == "all" else self.measures.transitions


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

    B points take `point_flops` each; B is the whole training set for L-BFGS, which evaluates it EVALUATIONS_PER_ITERATION times.
    """
    c = configuration
    points = EVALUATIONS_PER_ITERATION * train_points if c.batch_size is None else c.batch_size
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


def loop_rows(configuration: Configuration, sizes: Sizes) -> list[float]:
    """
    Return at how many points of a loop each hidden layer is evaluated, expected: its vertices, and the crossings of layers below.

    A layer of W units has about as many crossings wherever it is, so that the points grow with width and depth, and the work with
    the squares of both.
    """
    c = configuration
    if c.activation == "tanh":
        return [float(sizes.measures.transition_samples)] * (c.depth - 1)
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


def transition_seconds(configuration: Configuration, sizes: Sizes, machine: Machine) -> float:
    """
    Return the seconds of counting the transitions of a network, as expected.

    Samples are taken where the networks are; exact counts on a processor.
    """
    c = configuration
    if c.activation == "tanh":
        unit, rate = SAMPLE_PASSES * BYTES / machine.bandwidth, machine.products
    else:
        unit, rate = SECONDS_PER_BREAKPOINT, EXACT_RATE
    return sizes.loops * unit * c.width * sum(loop_rows(c, sizes)) + transition_flops(c, sizes) / rate


def array_flops(configuration: Configuration, sizes: Sizes) -> float:
    """Return the operations of the Jacobian passes for what is kept as arrays: three norms at each point, one at each bin."""
    points = 3 * sizes.measures.points + ELLIPSES * sizes.measures.paths
    return jacobian_flops(configuration, sizes.inputs, sizes.classes, points)


def array_seconds(configuration: Configuration, sizes: Sizes, machine: Machine) -> float:
    """Return the seconds of what is kept of one network as arrays, as expected."""
    seconds = array_flops(configuration, sizes) / machine.products
    if sizes.measures.paths:
        ellipses = sizes._replace(loop_vertices=ELLIPSE_VERTICES, measures=Measures(transitions=LOOPS_PER_ELLIPSE * ELLIPSES))
        seconds += transition_seconds(configuration, ellipses, machine)
    if sizes.measures.slice:
        seconds += SECONDS_PER_PAIR * _hidden_units(configuration) ** 2
    return seconds


def array_bytes(configuration: Configuration, sizes: Sizes) -> int:
    """Return the bytes kept of one network as arrays, as expected."""
    count = BYTES_PER_POINT * sizes.measures.points + BYTES_PER_BIN * ELLIPSES * sizes.measures.paths
    if sizes.measures.paths:
        count += PICTURES * sizes.inputs + BYTES_PER_TRANSLATION
    if sizes.measures.slice:
        count += PICTURES * sizes.inputs // 2 + BYTES_PER_PAIR * configuration.width * _hidden_units(configuration)
    return count


def _hidden_units(configuration: Configuration) -> int:
    return configuration.width * (configuration.depth - 1)


def walk_bytes(configuration: Configuration, sizes: Sizes) -> int:
    """Return the memory of counting transitions and of slices, weights apart: it does not grow with the networks of a stack."""
    slices = SLICE_BYTES + SLICE_BYTES_PER_PAIR * _hidden_units(configuration) ** 2 if sizes.measures.slice else 0
    return slices + (WALK_BYTES + LAYER_BYTES * configuration.depth if sizes.loops else 0)


def stack_bytes(configuration: Configuration, networks: int, sizes: Sizes) -> int:
    """Return the memory of a stack: weights and the optimizer's state, or the measures' copies; buffers, minibatches, labels."""
    c = configuration
    weights = number_of_weights(c, sizes.inputs, sizes.classes)
    points = c.batch_size or 1024
    buffers = points * (c.width * (c.depth + 1) + 3 * sizes.classes + 2 * sizes.inputs)
    labels = 2 * (2 if c.augmentation == "none" else 3) * sizes.train_points
    return 4 * networks * (max(COPIES[c.optimizer], COPIES_MEASURED) * weights + buffers + labels)


def step_seconds(configuration: Configuration, networks: int, seeds: int, sizes: Sizes, machine: Machine) -> float:
    """
    Return the seconds of a step of a stack: its operations, its products, and its passes over numbers in memory.

    The networks of one seed see the same minibatches.
    """
    c = configuration
    batch_size = c.batch_size or CHUNK
    if c.full_batch:
        # All see the same points, or each its own.
        seeds = 1 if c.augmentation == "none" else networks
    passes = networks * batch_size * c.width * (c.depth - 1) * UNIT_PASSES + seeds * batch_size * sizes.inputs * PIXEL_PASSES
    weights = networks * number_of_weights(c, sizes.inputs, sizes.classes)
    weight_seconds = weights * WEIGHT_PASSES[machine.kind][c.optimizer] * BYTES / machine.bandwidth
    seconds = (
        (OPERATIONS_PER_LAYER * c.depth + OPERATIONS_PER_STEP) * machine.operation
        + networks * batch_size * point_flops(c, sizes.inputs, sizes.classes) / machine.products
        + passes * BYTES / machine.bandwidth
    )
    if c.full_batch:
        evaluations = EVALUATIONS_PER_ITERATION + (c.augmentation != "none")
        return evaluations * seconds * sizes.train_points / batch_size + weight_seconds
    return seconds + weight_seconds


def stack_seconds(stack: Sequence[Configuration], sizes: Sizes, machine: Machine) -> float:
    """Return the seconds that training and measuring a stack takes one worker, early stopping and its checks apart."""
    c, networks = stack[0], len(stack)
    step = step_seconds(c, networks, len({configuration.seed for configuration in stack}), sizes, machine)
    epoch = step * (1 if c.full_batch else sizes.train_points / (c.batch_size or CHUNK))
    fit = FORWARD_SHARE * epoch * (1 + sizes.test_points / sizes.train_points)
    jacobian = jacobian_flops(c, sizes.inputs, sizes.classes, sizes.measured_points) / machine.products
    measures = jacobian + transition_seconds(c, sizes, machine) + array_seconds(c, sizes, machine)
    return c.steps * step + fit + networks * measures


def network_flops(configuration: Configuration, sizes: Sizes) -> float:
    """Return the operations of training and measuring a network, early stopping apart."""
    c = configuration
    training = training_flops(c, sizes.inputs, sizes.classes, sizes.train_points)
    jacobian = jacobian_flops(c, sizes.inputs, sizes.classes, sizes.measured_points)
    return training + jacobian + transition_flops(c, sizes) + array_flops(c, sizes)
