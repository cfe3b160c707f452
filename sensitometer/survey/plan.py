"""What a survey takes on this machine: counts, operations, time, memory, disk. Trains nothing and imports no torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from .. import matmul
from ..configuration import Configuration
from ..device import matmul_path
from .cost import CostModel, jacobian_flops, number_of_weights, stack_bytes, training_flops, transition_flops, walk_bytes
from .spec import Spec
from .speed import Speeds
from .stacks import LIBRARIES, StackSize, kinds, make_stacks, stack_sizes

# Of a row and its place in the index, as SQLite stores them: 303 and 341 in the surveys `quick` and `fashion-quick`.
BYTES_A_ROW = 350
# Until a worker has loaded its libraries and its data.
START_SECONDS = 4.0


@dataclass(frozen=True)
class Plan:
    """
    What a survey takes. Early stopping, which nobody can predict, would take it off operations and time.

    Attributes
    ----------
    networks, stacks
        How many of each.
    flops
        Floating-point operations of training and measuring.
    seconds
        Time with `workers` workers.
    workers
        Worker processes.
    memory
        Most bytes that the workers take together: libraries, data sets and stacks.
    disk
        Bytes of the results file and of the weights, if they are kept.
    """

    networks: int
    stacks: int
    flops: float
    seconds: float
    workers: int
    memory: int
    disk: int


def default_workers(device: str = "cpu") -> int:
    """Return how many workers to start unless told otherwise: one a processor that this process may use, or one on a GPU."""
    if device.startswith("cuda"):
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def choose_stack_sizes(spec: Spec, configurations: Sequence[Configuration], workers: int, device: str) -> dict[str, StackSize]:
    """Choose the stack sizes of configurations of a survey, by steps measured on this machine."""
    path = matmul.choose().path if device == "cpu" else matmul_path(device)
    with Speeds(path, device) as speeds:
        cost = CostModel(spec.sizes(), speeds, checked=spec.training.stop_at_accuracy is not None)
        return stack_sizes(configurations, cost, workers)


def plan(spec: Spec, *, workers: int | None = None) -> Plan:
    """Return what the survey takes on this machine, with so many workers; one a processor when None."""
    workers = workers or default_workers()
    configurations = list(spec.configurations())
    chosen = choose_stack_sizes(spec, configurations, workers, "cpu")
    stacks = make_stacks(configurations, {kind: size.networks for kind, size in chosen.items()})
    seconds = [chosen[stack[0].kind].seconds * len(stack) for stack in stacks]
    sizes = spec.sizes()
    flops = [
        training_flops(one, of.inputs, of.classes, of.train_points)
        + jacobian_flops(one, of.inputs, of.classes, of.measured_points)
        + transition_flops(one, of)
        for one in configurations
        for of in (sizes[one.dataset],)
    ]
    largest = max(
        stack_bytes(of[0], chosen[kind].networks, sizes[of[0].dataset]) + walk_bytes(of[0], sizes[of[0].dataset])
        for kind, of in kinds(configurations).items()
    )
    data = sum(4 * of.inputs * (of.train_points + of.test_points) for of in sizes.values())
    return Plan(
        networks=len(configurations),
        stacks=len(stacks),
        flops=sum(flops),
        # No division of the stacks among workers can beat either of these.
        seconds=START_SECONDS + max(max(seconds), sum(seconds) / workers),
        workers=workers,
        memory=workers * (LIBRARIES + data + largest),
        disk=BYTES_A_ROW * len(configurations) + (_weight_bytes(spec, configurations) if spec.survey.keep_weights else 0),
    )


def _weight_bytes(spec: Spec, configurations: Sequence[Configuration]) -> int:
    sizes = spec.sizes()
    return sum(4 * number_of_weights(one, *sizes[one.dataset][:2]) for one in configurations)
