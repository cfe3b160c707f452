"""Which networks are trained together. Imports no torch."""

from collections.abc import Sequence
from itertools import groupby

from ..configuration import Configuration

# Activations in a training stack, in numbers: larger ones leave the cache.
STACK_SIZE = 2**17
MOST_NETWORKS_IN_A_STACK = 64


def stack_size(width: int, batch_size: int) -> int:
    """Return how many networks of one width to train in one stack: the narrower, the more."""
    return max(1, min(MOST_NETWORKS_IN_A_STACK, STACK_SIZE // (width * batch_size)))


def make_stacks(configurations: Sequence[Configuration]) -> list[list[Configuration]]:
    """
    Divide configurations into stacks of at most `stack_size`, alike in `Configuration.stack_key`, those of one seed together.

    The division depends on the set of configurations alone, not on their order.
    """
    stacks = []
    distinct = {configuration.id: configuration for configuration in configurations}.values()
    ordered = sorted(distinct, key=lambda c: (c.stack_key, c.seed, c.id))
    for _, group in groupby(ordered, key=lambda c: c.stack_key):
        alike = list(group)
        size = stack_size(alike[0].width, alike[0].batch_size)
        stacks += [alike[start : start + size] for start in range(0, len(alike), size)]
    return stacks
