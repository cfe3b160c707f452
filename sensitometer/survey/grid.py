"""The product of a survey's axes, of which no list is ever made, and samples of its places. Imports no torch."""

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..configuration import Configuration
from .scheduling.cost import Sizes, training_flops

# Places of a grid that are drawn from at once.
DRAWN_AT_ONCE = 2**20
# The axes that the operations of a training depend on.
COSTLY = ("dataset", "width", "depth", "optimizer", "batch_size")


class Grid:
    """
    The product of the axes, seeds apart, of which no list is ever made.

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
        self.first, self.second = (math.prod(len(values) for values in product.values()) for product in self.products)

    def __len__(self) -> int:
        return self.first + self.second

    def configuration(self, index: int, seed: int) -> Configuration:
        """Return the configuration at the place `index`, the last axis varying fastest."""
        product = self.products[0]
        if index >= self.first:
            product, index = self.products[1], index - self.first
        chosen = {}
        for name, values in reversed(product.items()):
            index, place = divmod(index, len(values))
            chosen[name] = values[place]
        return Configuration(**chosen, steps=self.steps, seed=seed)

    def training_flops(self, sizes: Mapping[str, Sizes]) -> "Costs":
        """Return `cost.training_flops` of every place, from the axes that it depends on alone."""
        tables = []
        for product in self.products:
            few = {name: values if name in COSTLY else values[:1] for name, values in product.items()}
            values = (dict(zip(few, one, strict=True)) for one in itertools.product(*few.values()))
            chosen = (Configuration(**one, steps=self.steps) for one in values)
            flops = np.array([training_flops(one, *sizes[one.dataset][:3]) for one in chosen])
            whole = tuple(len(values) for values in product.values())
            tables.append(np.broadcast_to(flops.reshape([len(values) for values in few.values()]), whole))
        return Costs(self.first, *tables)


class Costs(NamedTuple):
    """A number for each place of a grid: a table for each of its products, of which the first has `first` places."""

    first: int
    minibatch: NDArray[np.float64]
    full_batch: NDArray[np.float64]

    def of(self, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the numbers of these places, `[n]`."""
        found = np.empty(len(places))
        for mine, table, start in (
            (places < self.first, self.minibatch, 0),
            (places >= self.first, self.full_batch, self.first),
        ):
            if mine.any():
                found[mine] = table[np.unravel_index(places[mine] - start, table.shape)]
        return found


def draw_places(places: int, count: int, seed: int, costs: Costs | None) -> list[int]:
    """
    Return `count` of so many places, without repetition, in the order of their random keys.

    With `costs` each is drawn with probability in inverse proportion to its own.
    """
    keys, drawn = np.zeros(0), np.zeros(0, dtype=np.int64)
    # So that the memory is that of the sample, not of the grid.
    for start in range(0, places, DRAWN_AT_ONCE):
        some = np.arange(start, min(start + DRAWN_AT_ONCE, places))
        digests = (hashlib.blake2b(f"{seed}:{place}".encode(), digest_size=8).digest() for place in some.tolist())
        new = np.fromiter((-math.log((int.from_bytes(digest, "big") + 1) / (2**64 + 1)) for digest in digests), np.float64)
        if costs is not None:
            new *= costs.of(some)
        keys, drawn = np.concatenate([keys, new]), np.concatenate([drawn, some])
        lowest = np.argsort(keys, kind="stable")[:count]
        keys, drawn = keys[lowest], drawn[lowest]
    found: list[int] = drawn.tolist()
    return found
