"""The cost of a survey, on this machine or on GPUs that are not here. Trains nothing and imports no torch."""

import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ... import matmul
from ...configuration import Configuration
from ...device import matmul_path
from ...errors import InvalidInputError
from ..spec import Spec
from .cost import (
    COPIES,
    CostModel,
    Sizes,
    array_bytes,
    array_flops,
    jacobian_flops,
    number_of_weights,
    stack_bytes,
    training_flops,
    transition_flops,
    walk_bytes,
)
from .devices import Assumed, parse_devices
from .speed import Pace, Speeds, Timer
from .stacks import LIBRARIES, StackSize, kinds, stack_sizes

# Bytes of a row and of its place in the index, as SQLite stores them: 303 and 341 in the surveys `quick` and `fashion-quick`.
BYTES_A_ROW = 350
# Until a worker has loaded its libraries and its data.
START_SECONDS = 4.0
# Trainings that take longer save their state so often, and for a moment the old one and the new one are there.
SECONDS_BETWEEN_SAVES, STATES = 180.0, 2
# Width and depth, and how many networks have them.
Shapes = dict[tuple[int, int], int]


@dataclass(frozen=True)
class Plan:
    """
    The cost of a survey. Early stopping, which nobody can predict, would take it off operations and time.

    Attributes
    ----------
    networks, stacks
        How many of each.
    shapes
        Networks of each width and depth.
    too_large
        The networks that are larger than a worker's share of the memory, and are stored as failed; what follows is without them.
    flops
        Floating-point operations of training and measuring.
    seconds
        Time with `workers` workers.
    workers
        Worker processes; with `like`, GPUs.
    share
        Bytes of memory that a worker may take.
    memory
        Most bytes that the workers take together: libraries, data sets and stacks.
    rows, arrays, weights, states
        Bytes on disk: of the results file, of the arrays and the weights if they are kept, and at most of the states of trainings
        under way.
    assumed
        The source of the time if no step was measured, in words.
    """

    networks: int
    stacks: int
    shapes: Shapes
    too_large: Shapes
    flops: float
    seconds: float
    workers: int
    share: int
    memory: int
    rows: int
    arrays: int
    weights: int
    states: int
    assumed: str | None = None

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


def choose_stack_sizes(
    spec: Spec,
    configurations: Sequence[Configuration],
    workers: int,
    device: str,
    timer: Timer | None = None,
    sharing: int | None = None,
) -> dict[str, StackSize]:
    """
    Choose the stack sizes of configurations of a survey, by steps measured by `timer`, or on this machine.

    `sharing` of the workers share the memory of the device that is measured; all of them when None.
    """
    path = matmul.choose().path if device == "cpu" else matmul_path(device)
    with Speeds(path, device, timer) as speeds:
        return _stack_sizes(spec, configurations, speeds, workers, sharing)


def _stack_sizes(
    spec: Spec, configurations: Sequence[Configuration], pace: Pace, workers: int, sharing: int | None = None
) -> dict[str, StackSize]:
    cost = CostModel(spec.sizes(), pace, checked=spec.training.stop_at_accuracy is not None)
    return stack_sizes(configurations, cost, workers, sharing)


def plan(spec: Spec, *, workers: int | None = None, like: str | None = None) -> Plan:
    """
    Return what the survey takes.

    Parameters
    ----------
    workers
        Worker processes on this machine; one a processor when None.
    like
        GPUs to plan for instead, such as `8xH200`, each with one worker. Nothing is measured: their steps take what
        `devices.Assumed` says.

    Raises
    ------
    InvalidInputError
        `like` names no device of `devices.DEVICES`, or `workers` is given too.
    """
    if like is None:
        with Speeds(matmul.choose().path) as speeds:
            return _plan(spec, speeds, workers or default_workers())
    if workers is not None:
        raise InvalidInputError("workers and like exclude each other: each GPU has one worker")
    assumed = Assumed(*parse_devices(like))
    return _plan(spec, assumed, assumed.count, str(assumed))


def _plan(spec: Spec, pace: Pace, workers: int, assumed: str | None = None) -> Plan:
    configurations = list(spec.configurations())
    sizes = spec.sizes()
    share = pace.memory() // workers
    base = LIBRARIES + sum(4 * of.inputs * (of.train_points + of.test_points) for of in sizes.values())
    of_kind = kinds(configurations)
    fitting = {kind: alike for kind, alike in of_kind.items() if base + _bytes(alike[0], 1, sizes) <= share}
    chosen = _stack_sizes(spec, [one for alike in fitting.values() for one in alike], pace, workers)
    stacks = sum(math.ceil(len(alike) / chosen[kind].networks) for kind, alike in fitting.items())
    stack_seconds = {kind: size.networks * size.seconds for kind, size in chosen.items()}
    all_seconds = sum(len(alike) * chosen[kind].seconds for kind, alike in fitting.items())
    largest = max((_bytes(alike[0], chosen[kind].networks, sizes) for kind, alike in fitting.items()), default=0)
    saved = (
        4 * COPIES[alike[0].optimizer] * chosen[kind].networks * _weights(alike[0], sizes)
        for kind, alike in fitting.items()
        if stack_seconds[kind] > SECONDS_BETWEEN_SAVES
    )
    kept = sum(4 * len(alike) * _weights(alike[0], sizes) for alike in fitting.values()) if spec.survey.keep_weights else 0
    return Plan(
        networks=len(configurations),
        stacks=stacks,
        shapes=_shapes(of_kind),
        too_large=_shapes({kind: alike for kind, alike in of_kind.items() if kind not in fitting}),
        flops=sum(len(alike) * _flops(alike[0], sizes) for alike in fitting.values()),
        # No division of the stacks among workers can beat either of these.
        seconds=START_SECONDS + max(max(stack_seconds.values(), default=0.0), all_seconds / workers),
        workers=workers,
        share=share,
        memory=workers * (base + largest),
        rows=BYTES_A_ROW * len(configurations),
        arrays=sum(len(alike) * array_bytes(alike[0], sizes[alike[0].dataset]) for alike in fitting.values()),
        weights=kept,
        states=STATES * workers * max(saved, default=0),
        assumed=assumed,
    )


def _bytes(one: Configuration, networks: int, sizes: Mapping[str, Sizes]) -> int:
    return stack_bytes(one, networks, sizes[one.dataset]) + walk_bytes(one, sizes[one.dataset])


def _weights(one: Configuration, sizes: Mapping[str, Sizes]) -> int:
    return number_of_weights(one, *sizes[one.dataset][:2])


def _flops(one: Configuration, sizes: Mapping[str, Sizes]) -> float:
    of = sizes[one.dataset]
    measured = jacobian_flops(one, of.inputs, of.classes, of.measured_points) + transition_flops(one, of)
    return training_flops(one, of.inputs, of.classes, of.train_points) + measured + array_flops(one, of)


def _shapes(of_kind: Mapping[str, Sequence[Configuration]]) -> Shapes:
    counts: Counter[tuple[int, int]] = Counter()
    for alike in of_kind.values():
        counts[alike[0].width, alike[0].depth] += len(alike)
    return dict(sorted(counts.items()))
