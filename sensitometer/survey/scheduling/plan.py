"""The cost of a survey, on this machine or on GPUs that are not here. Trains nothing and imports no torch."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...configuration import Configuration
from ...errors import InvalidInputError, check_whole_number
from ..spec import Spec
from .cost import BYTES, COPIES, Sizes, array_bytes, network_flops, number_of_weights, stack_bytes, stack_seconds, walk_bytes
from .machines import Machine, parse_gpus, this_machine
from .stacks import choose_stack_sizes, kinds

# Bytes of a row and of its place in the index, as SQLite stores them: 303 and 341 in the surveys `quick` and `fashion-quick`.
BYTES_PER_ROW = 350
# Bytes of a worker's libraries.
LIBRARIES = 500_000_000
# Until a worker has loaded its libraries and its data.
START_SECONDS = 4.0
# Trainings that take longer save their state so often, and for a moment the old one and the new one are there.
SECONDS_BETWEEN_SAVES, STATES = 180.0, 2
# Width and depth, and how many networks have them.
Shapes = dict[tuple[int, int], int]


@dataclass(frozen=True)
class Plan:
    """The cost of a survey. Early stopping, which nobody can predict, would take it off operations and time."""

    networks: int
    stacks: int
    shapes: Shapes
    too_large: Shapes  # larger than a worker's share of the memory, and stored as failed; what follows is without them
    flops: float  # floating-point operations of training and measuring
    seconds: float  # with `workers` workers
    workers: int  # worker processes; with `like`, GPUs
    share: int  # bytes of memory that a worker may take
    memory: int  # most bytes that the workers take together: libraries, data sets and stacks
    rows: int  # bytes on disk of the results file
    arrays: int  # bytes on disk of the arrays that are kept
    weights: int  # bytes on disk of the weights, if they are kept
    states: int  # most bytes on disk of the states of trainings under way
    machine: Machine  # that one worker computes on, from whose numbers the time is predicted

    @property
    def disk(self) -> int:
        """Bytes on disk, all together."""
        return self.rows + self.arrays + self.weights + self.states


def default_workers(device: str = "cpu") -> int:
    """Return how many workers to start unless told otherwise: one a processor that this process may use, or one on a GPU."""
    if device.startswith("cuda"):
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def plan(spec: Spec, *, workers: int | None = None, like: str | None = None) -> Plan:
    """
    Return what the survey takes.

    Parameters
    ----------
    workers
        Worker processes on this machine; one per processor when None.
    like
        GPUs to plan for instead, such as `8xH200`, each with one worker, by the table in `machines.py`.

    Raises
    ------
    InvalidInputError
        `like` names no GPU of `machines.GPUS`, or `workers` is given too.
    """
    if like is None:
        machine = this_machine()
        workers = default_workers() if workers is None else check_whole_number("workers", workers)
        share = machine.memory // workers
    elif workers is None:
        workers, machine = parse_gpus(like)
        share = machine.memory
    else:
        raise InvalidInputError("workers and like exclude each other: each GPU has one worker")
    sizes = spec.sizes()
    base = LIBRARIES + sum(BYTES * data.inputs * (data.train_points + data.test_points) for data in sizes.values())
    by_kind = kinds(list(spec.configurations()))
    fitting = {kind: alike for kind, alike in by_kind.items() if base + _bytes(alike[0], 1, sizes) <= share}
    chosen = choose_stack_sizes([network for alike in fitting.values() for network in alike], sizes, machine.kind)
    # One full stack per kind; the last stack of a kind may have fewer networks, and takes a share of the time.
    stacks = {kind: alike[: chosen[kind]] for kind, alike in fitting.items()}
    seconds = {kind: stack_seconds(stack, sizes[stack[0].dataset], machine) for kind, stack in stacks.items()}
    all_seconds = sum(len(alike) * seconds[kind] / chosen[kind] for kind, alike in fitting.items())
    states = [
        BYTES * COPIES[stack[0].optimizer] * len(stack) * _weights(stack[0], sizes)
        for kind, stack in stacks.items()
        if seconds[kind] > SECONDS_BETWEEN_SAVES
    ]
    kept = sum(BYTES * len(alike) * _weights(alike[0], sizes) for alike in fitting.values()) if spec.survey.keep_weights else 0
    return Plan(
        networks=sum(map(len, by_kind.values())),
        stacks=sum(math.ceil(len(alike) / chosen[kind]) for kind, alike in fitting.items()),
        shapes=_shapes(by_kind),
        too_large=_shapes({kind: alike for kind, alike in by_kind.items() if kind not in fitting}),
        flops=sum(len(alike) * network_flops(alike[0], sizes[alike[0].dataset]) for alike in fitting.values()),
        # No division of the stacks among workers can beat either of these.
        seconds=START_SECONDS + max(max(seconds.values(), default=0.0), all_seconds / workers),
        workers=workers,
        share=share,
        memory=workers * (base + max((_bytes(stack[0], len(stack), sizes) for stack in stacks.values()), default=0)),
        rows=BYTES_PER_ROW * sum(map(len, by_kind.values())),
        arrays=sum(len(alike) * array_bytes(alike[0], sizes[alike[0].dataset]) for alike in fitting.values()),
        weights=kept,
        states=STATES * workers * max(states, default=0),
        machine=machine,
    )


def _bytes(configuration: Configuration, networks: int, sizes: Mapping[str, Sizes]) -> int:
    data = sizes[configuration.dataset]
    return stack_bytes(configuration, networks, data) + walk_bytes(configuration, data)


def _weights(configuration: Configuration, sizes: Mapping[str, Sizes]) -> int:
    data = sizes[configuration.dataset]
    return number_of_weights(configuration, data.inputs, data.classes)


def _shapes(by_kind: Mapping[str, Sequence[Configuration]]) -> Shapes:
    counts: Counter[tuple[int, int]] = Counter()
    for alike in by_kind.values():
        counts[alike[0].width, alike[0].depth] += len(alike)
    return dict(sorted(counts.items()))
