"""What a survey takes on this machine: counts, operations, time, memory, disk. Trains nothing and imports no torch."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from .. import matmul
from ..configuration import Configuration
from ..data.sources import find_source
from .cost import jacobian_flops, number_of_weights, stack_bytes, stack_seconds, training_flops
from .spec import Spec
from .stacks import make_stacks

# Of a row and its place in the index, as SQLite stores them: 303 and 341 in the surveys `quick` and `fashion-quick`.
BYTES_A_ROW = 350


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
        Most bytes that the workers' data sets and stacks take together.
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


class CostModel:
    """The costs of the stacks of one survey, at a given rate of the matrix products in GFLOP/s."""

    def __init__(self, spec: Spec, peak: float) -> None:
        self.sizes = spec.image_sizes()
        self.points = {
            name: find_source(name).test.points if spec.measure.jacobian == "all" else spec.measure.jacobian
            for name in spec.data.names
        }
        self.peak = peak

    def seconds(self, stack: Sequence[Configuration]) -> float:
        """Return the time of a stack on one worker, in seconds."""
        name = stack[0].dataset
        return stack_seconds(stack, *self.sizes[name], self.points[name], self.peak)

    def flops(self, configuration: Configuration) -> float:
        """Return the floating-point operations of training and measuring one network."""
        inputs, classes = self.sizes[configuration.dataset]
        points = self.points[configuration.dataset]
        return training_flops(configuration, inputs, classes) + jacobian_flops(configuration, inputs, classes, points)

    def memory(self, stack: Sequence[Configuration]) -> int:
        """Return the memory of a stack in training, in bytes."""
        return stack_bytes(stack, *self.sizes[stack[0].dataset])


def default_workers(device: str = "cpu") -> int:
    """Return how many workers to start unless told otherwise: one a processor that this process may use, or one on a GPU."""
    if device.startswith("cuda"):
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def plan(spec: Spec, *, workers: int | None = None) -> Plan:
    """Return what the survey takes on this machine, with so many workers; one a processor when None."""
    workers = workers or default_workers()
    cost = CostModel(spec, matmul.choose().peak)
    configurations = list(spec.configurations())
    stacks = make_stacks(configurations)
    seconds = [cost.seconds(stack) for stack in stacks]
    return Plan(
        networks=len(configurations),
        stacks=len(stacks),
        flops=sum(cost.flops(one) for one in configurations),
        # No division of the stacks among workers can beat either of these.
        seconds=max(max(seconds), sum(seconds) / workers),
        workers=workers,
        memory=workers * (_dataset_bytes(spec) + max(cost.memory(stack) for stack in stacks)),
        disk=BYTES_A_ROW * len(configurations) + (_weight_bytes(spec, configurations) if spec.survey.keep_weights else 0),
    )


def _dataset_bytes(spec: Spec) -> int:
    points = {name: find_source(name) for name in spec.data.names}
    return sum(
        4 * spec.image_sizes()[name][0] * ((spec.data.train_points or source.train.points) + source.test.points)
        for name, source in points.items()
    )


def _weight_bytes(spec: Spec, configurations: Sequence[Configuration]) -> int:
    sizes = spec.image_sizes()
    return sum(4 * number_of_weights(one, *sizes[one.dataset]) for one in configurations)
