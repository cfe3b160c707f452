"""Which networks are trained together: by what the memory holds, and by how fast stacks were when they were measured."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ...configuration import Configuration
from .cost import CostModel, stack_bytes, walk_bytes

# The gain that makes a larger stack worth its coarser division of the work, and how many doublings without gain end the search.
WORTH_IT = 0.97
TRIES = 2
# Some tens of microseconds per layer are the same whatever the size of the stack: where a layer takes this many seconds, more
# networks gain nothing, and steps of many would take long to measure.
LONG_LAYER = 0.005
# The share of the memory that stacks may fill; the rest is for the libraries and for what was estimated too low.
MEMORY_SHARE = 0.8
LIBRARIES = 500_000_000


class StackSize(NamedTuple):
    """How many networks of one kind are trained together, and the seconds that each of them takes, predicted."""

    networks: int
    seconds: float


def kinds(configurations: Sequence[Configuration]) -> dict[str, list[Configuration]]:
    """Return the networks of each `Configuration.kind`, those of one seed together; repeated ones once."""
    of_kind: dict[str, dict[str, Configuration]] = defaultdict(dict)
    for one in configurations:
        of_kind[one.kind][one.id] = one
    return {
        kind: [one for _, _, one in sorted((one.seed, id_, one) for id_, one in alike.items())]
        for kind, alike in sorted(of_kind.items())
    }


def stack_sizes(
    configurations: Sequence[Configuration], cost: CostModel, workers: int, sharing: int | None = None
) -> dict[str, StackSize]:
    """
    Choose how many networks of each kind to train in one stack, as `stack_networks` does, and predict their times.

    `sharing` of the workers share the memory; all of them when None.
    """
    of_kind = kinds(configurations)
    sizes = _stack_networks(of_kind, cost, workers, sharing or workers)
    return {
        kind: StackSize(sizes[kind], cost.stack_seconds(networks[: sizes[kind]]) / sizes[kind])
        for kind, networks in of_kind.items()
    }


def stack_networks(configurations: Sequence[Configuration], cost: CostModel, workers: int) -> dict[str, int]:
    """
    Choose how many networks of each kind to train in one stack.

    Stacks are doubled, as long as a network's share of the measured step becomes shorter, up to what a worker's share of the
    memory holds, and up to half of a worker's share of the networks.
    """
    return _stack_networks(kinds(configurations), cost, workers, workers)


def _stack_networks(
    of_kind: Mapping[str, Sequence[Configuration]], cost: CostModel, workers: int, sharing: int
) -> dict[str, int]:
    count = sum(map(len, of_kind.values()))
    most = count if workers == 1 else math.ceil(count / (2 * workers))
    data = max(4 * sizes.inputs * (sizes.train_points + sizes.test_points) for sizes in cost.sizes.values())
    memory = MEMORY_SHARE * cost.speeds.memory() / sharing - LIBRARIES - data
    sizes = {}
    for kind, networks in of_kind.items():
        first = networks[0]
        one = stack_bytes(first, 1, cost.sizes[first.dataset])
        held = max(1, int((memory - walk_bytes(first, cost.sizes[first.dataset])) // one))
        sizes[kind] = _fastest(networks, cost, min(most, held, len(networks)))
    return sizes


def _fastest(networks: Sequence[Configuration], cost: CostModel, most: int) -> int:
    """Return the smallest stack, of a power of 2 or all, whose networks take about the shortest time each."""

    def share(size: int) -> float:
        chosen = networks[:size]
        return cost.step_seconds(chosen[0], size, len({c.seed for c in chosen})) / size

    if most == 1:
        return 1
    first = networks[0]
    long = LONG_LAYER * first.depth * cost.minibatches(first)
    size = best = 1
    now = shortest = share(1)
    while size < most and size < best * 2**TRIES and size * now < long:
        size = min(2 * size, most)
        now = share(size)
        if now < WORTH_IT * shortest:
            best, shortest = size, now
    return best


def make_stacks(configurations: Sequence[Configuration], sizes: Mapping[str, int]) -> list[list[Configuration]]:
    """
    Divide configurations into stacks, of at most as many networks as `sizes` has for their kind, those of one seed together.

    The division depends on the set of configurations and on the sizes alone, not on the order.
    """
    stacks = []
    for kind, alike in kinds(configurations).items():
        size = sizes[kind]
        stacks += [alike[start : start + size] for start in range(0, len(alike), size)]
    return stacks


def saved_state(folder: Path, stack: Sequence[Configuration]) -> Path:
    """Return the file for the state of a stack in training; another one for any other stack."""
    digest = hashlib.sha256(" ".join(one.id for one in stack).encode()).hexdigest()
    return folder / f"{digest[:16]}.safetensors"
