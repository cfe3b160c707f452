"""The product of a survey's axes, of which no list is made, and samples of its places. Imports no torch."""

import hashlib
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..configuration import Configuration
from .scheduling.cost import Sizes, training_flops

# Places of a grid that are drawn from at once.
DRAWN_AT_ONCE = 2**20
# Returns a number for each of places `[n]`.
Costs = Callable[[NDArray[np.int64]], NDArray[np.float64]]
# The axes that the operations of a training depend on.
COSTLY = ("dataset", "width", "depth", "optimizer", "batch_size")


class Grid:
    """
    The product of the axes, without the seeds; no list of it is made.

    L-BFGS has neither a learning rate nor a batch size: its configurations are a product of their own, without these axes, and
    come last.
    """

    def __init__(self, axes: dict[str, Sequence[Any]], steps: int) -> None:
        self.steps = steps
        minibatch = [name for name in axes["optimizer"] if name != "lbfgs"]
        full_batch = [name for name in axes["optimizer"] if name == "lbfgs"]
        self.products: list[dict[str, Sequence[Any]]] = [
            {**axes, "optimizer": minibatch},
            {**axes, "optimizer": full_batch, "learning_rate": [None], "batch_size": [None]},
        ]
        self.sizes = [math.prod(len(values) for values in product.values()) for product in self.products]

    def __len__(self) -> int:
        return sum(self.sizes)

    def configuration(self, index: int, seed: int) -> Configuration:
        """Return the configuration at the place `index`, the last axis varying fastest."""
        product = self.products[0]
        if index >= self.sizes[0]:
            product, index = self.products[1], index - self.sizes[0]
        chosen = {}
        for name, values in reversed(product.items()):
            index, place = divmod(index, len(values))
            chosen[name] = values[place]
        return Configuration(**chosen, steps=self.steps, seed=seed)

    def training_flops(self, sizes: Mapping[str, Sizes]) -> Costs:
        """Return a function that gives `cost.training_flops` of places `[n]`."""
        tables = []
        for product in self.products:
            few = {name: values if name in COSTLY else values[:1] for name, values in product.items()}
            settings = (dict(zip(few, values, strict=True)) for values in itertools.product(*few.values()))
            chosen = (Configuration(**setting, steps=self.steps) for setting in settings)
            flops = np.array([training_flops(network, *sizes[network.dataset][:3]) for network in chosen])
            lengths = tuple(len(values) for values in product.values())
            tables.append(np.broadcast_to(flops.reshape([len(values) for values in few.values()]), lengths))

        def costs(places: NDArray[np.int64]) -> NDArray[np.float64]:
            numbers = np.empty(len(places))
            start, full_batch = self.sizes[0], places >= self.sizes[0]
            for chosen, table, first in ((~full_batch, tables[0], 0), (full_batch, tables[1], start)):
                if chosen.any():
                    numbers[chosen] = table[np.unravel_index(places[chosen] - first, table.shape)]
            return numbers

        return costs


def draw_places(places: int, count: int, seed: int, costs: Costs | None) -> list[int]:
    """
    Return `count` of N = `places`, without repetition, in the order of their random keys.

    With `costs`, each is drawn with probability in inverse proportion to its own.
    """
    keys, drawn = np.zeros(0), np.zeros(0, dtype=np.int64)
    # So that the memory is that of the sample, not of the grid.
    for start in range(0, places, DRAWN_AT_ONCE):
        block = np.arange(start, min(start + DRAWN_AT_ONCE, places))
        digests = (hashlib.blake2b(f"{seed}:{place}".encode(), digest_size=8).digest() for place in block.tolist())
        new = np.fromiter((-math.log((int.from_bytes(digest, "big") + 1) / (2**64 + 1)) for digest in digests), np.float64)
        if costs is not None:
            new *= costs(block)
        keys, drawn = np.concatenate([keys, new]), np.concatenate([drawn, block])
        lowest = np.argsort(keys, kind="stable")[:count]
        keys, drawn = keys[lowest], drawn[lowest]
    return [int(place) for place in drawn]
