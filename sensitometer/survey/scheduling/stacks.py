"""
Which networks are trained together: by their shape, optimizer and minibatch alone, the same wherever a survey begins.

A step of many narrow networks takes hardly longer than that of one, as long as what it works on stays in the cache. The limits
are from `benchmarks/stack_sizes.py`.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...configuration import Configuration
from .cost import CHUNK, Sizes, number_of_weights, stack_bytes


class Limits(NamedTuple):
    """The largest stack: numbers that a step works on, networks, and bytes that the training holds."""

    numbers: int
    networks: int
    memory: int


# On a processor: a network's share of a step is the shortest in the median over shapes, and steps on more numbers are slower:
# they leave the cache. On GPUs, not measured: an A100 reads and writes 2^26 numbers in about the time that a step's kernels take.
LIMITS = {
    "cpu": Limits(numbers=2**20, networks=128, memory=10**9),
    "cuda": Limits(numbers=2**26, networks=4096, memory=4 * 10**9),
}


def kinds(configurations: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    """Return the networks of each `Configuration.kind`, those of one seed together; repeated ones once."""
    by_kind: dict[str, dict[str, Configuration]] = defaultdict(dict)
    for configuration in configurations:
        by_kind[configuration.kind][configuration.id] = configuration
    return {
        kind: sorted(alike.values(), key=lambda configuration: (configuration.seed, configuration.id))
        for kind, alike in sorted(by_kind.items())
    }


def choose_stack_sizes(configurations: Sequence[Configuration], sizes: Mapping[str, Sizes], device: str) -> dict[str, int]:
    """
    Choose how many networks are trained in one stack, by `Configuration.kind`.

    `sizes` holds the sizes of each data set by name; `device` is `cpu`, `cuda` or `cuda:INDEX`.
    """
    limits = LIMITS[device.partition(":")[0]]
    return {
        kind: min(len(alike), _largest_stack(alike[0], sizes[alike[0].dataset], limits))
        for kind, alike in kinds(configurations).items()
    }


def _largest_stack(configuration: Configuration, sizes: Sizes, limits: Limits) -> int:
    """Return the largest power of 2 within the limits."""
    c = configuration
    batch_size = c.batch_size or CHUNK
    units = batch_size * c.width * (c.depth - 1)
    # Networks of one seed share their minibatches; about every second is of another seed.
    pixels = batch_size * sizes.inputs // 2
    numbers = number_of_weights(c, sizes.inputs, sizes.classes) + units + pixels
    most = min(limits.numbers // numbers, limits.networks, limits.memory // stack_bytes(c, 1, sizes))
    return 1 << max(1, most).bit_length() - 1


def make_stacks(configurations: Sequence[Configuration], sizes: Mapping[str, int]) -> list[list[Configuration]]:
    """
    Divide configurations into stacks, of at most as many networks as `sizes` has for their kind, those of one seed together.

    The division depends on the set of configurations and on the sizes alone, not on the order.
    """
    stacks = []
    for kind, alike in kinds(configurations).items():
        stacks += [alike[start : start + sizes[kind]] for start in range(0, len(alike), sizes[kind])]
    return stacks


def is_saved_state(name: str) -> bool:
    """Return whether a file's name is one that `saved_state` gives."""
    return re.fullmatch(r"[0-9a-f]{16}\.safetensors", name) is not None


def saved_state(folder: Path, stack: Sequence[Configuration]) -> Path:
    """Return the file for the state of a stack in training; another one for any other stack."""
    digest = hashlib.sha256(" ".join(configuration.id for configuration in stack).encode()).hexdigest()
    return folder / f"{digest[:16]}.safetensors"
