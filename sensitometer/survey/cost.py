"""What training and measuring a network takes: floating-point operations, memory, time. Imports no torch."""

from collections.abc import Sequence

from ..configuration import Configuration

# Share of the matrix-product peak that a stack of wide networks reaches, and the width at which it is half of that; and the
# seconds that one torch operator costs beyond its arithmetic. Measured with benchmarks/training.py.
SHARE_OF_PEAK = 0.88
HALF_WIDTH = 16
SECONDS_PER_OPERATOR = 1.5e-6
# Of L-BFGS: most iterations take their first trial step. Measured on digits.
EVALUATIONS_AN_ITERATION = 1.1


def number_of_weights(configuration: Configuration, inputs: int, classes: int) -> int:
    """Return the number of weights of a network with `inputs` D and `classes` C."""
    W = configuration.width
    return inputs * W + (configuration.depth - 2) * W * W + W * classes


def training_flops(configuration: Configuration, inputs: int, classes: int, train_points: int) -> float:
    """
    Return the floating-point operations of a whole training, early stopping apart.

    A step takes 2 B a weight forward, 2 B for the weights' gradients, 2 B for the activations' except at the inputs; B is the
    whole training set for L-BFGS, which evaluates it EVALUATIONS_AN_ITERATION times.
    """
    c = configuration
    weights = number_of_weights(c, inputs, classes)
    points = EVALUATIONS_AN_ITERATION * train_points if c.batch_size is None else c.batch_size
    return float(c.steps) * points * (6 * weights - 2 * inputs * c.width)


def jacobian_flops(configuration: Configuration, inputs: int, classes: int, points: int) -> float:
    """Return the operations of the Jacobian pass: a block of rows carried through the layers, a forward pass in float64."""
    c = configuration
    columns = min(c.width, inputs)
    rows = min(columns, classes)
    chain = 2 * rows * c.width * ((c.depth - 2) * c.width + max(columns, classes))
    # float64 products run at half the rate.
    return float(points) * (chain + 4 * number_of_weights(c, inputs, classes))


def stack_seconds(stack: Sequence[Configuration], inputs: int, classes: int, points: int, peak: float) -> float:
    """
    Predict the seconds that training and measuring a stack takes one worker, early stopping apart.

    Parameters
    ----------
    points
        Test points at which the Jacobian norms are taken.
    peak
        Rate of the matrix products, in GFLOP/s.
    """
    first = stack[0]
    rate = 1e9 * peak * SHARE_OF_PEAK * first.width / (first.width + HALF_WIDTH)
    arithmetic = sum(training_flops(c, inputs, classes) + jacobian_flops(c, inputs, classes, points) for c in stack) / rate
    operators = 14 + 6 * first.depth
    return arithmetic + first.steps * operators * SECONDS_PER_OPERATOR


def stack_bytes(stack: Sequence[Configuration], inputs: int, classes: int) -> int:
    """Return the memory of a stack in training: weights, the optimizer's state, activations, error signals, minibatches."""
    first = stack[0]
    weights = number_of_weights(first, inputs, classes)
    activations = first.batch_size * (first.width * (first.depth + 1) + 2 * classes + inputs)
    return 4 * len(stack) * (2 * weights + activations)
