"""The work itself: train a stack of networks, measure it, and say where and with what that was done."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import torch
from numpy.typing import NDArray

from ...configuration import Configuration
from ...data import Dataset
from ...device import arithmetic, check_device, matmul_path
from ...errors import InvalidInputError
from ...networks import MLP
from ...store.schema import COLUMNS
from ...training import Saver, Schedule, Trained, train_stack
from ..scheduling.cost import TRANSITION_SAMPLES, CostModel, number_of_weights
from ..scheduling.speed import Speeds
from ..scheduling.stacks import make_stacks, stack_networks
from ..scheduling.step_timer import StepTimer
from .arrays import measure_arrays
from .means import Measures, measure_sound


@dataclass(frozen=True)
class Result:
    """
    One network, trained and measured.

    Attributes
    ----------
    network
        The trained network.
    row
        The row that a survey stores for it, by column.
    arrays
        The arrays that it keeps beside the row, by name (`store/arrays.py`); nothing with `train`, which keeps the network.
    """

    # The numbers would fill pages.
    network: MLP = field(repr=False)
    row: dict[str, Any]
    arrays: dict[str, NDArray[Any]] = field(repr=False)


def train(
    configurations: Sequence[Configuration],
    dataset: Dataset,
    *,
    schedule: Schedule | None = None,
    jacobian_points: int | None = None,
    transition_points: int | None = 0,
    transition_samples: int = TRANSITION_SAMPLES,
    device: str = "cpu",
) -> list[Result]:
    """
    Train and measure networks, as a survey does, in this process and on one thread.

    Networks of one shape are trained together, in stacks; a network's result does not depend, beyond float32 rounding, on what
    else is trained.

    Parameters
    ----------
    configurations
        The networks to train, all on `dataset`.
    schedule
        Learning-rate decay and early stopping; the paper's when None.
    jacobian_points
        Test points at which the Jacobian norms are taken, from the first; all when None, none when 0.
    transition_points
        Test points along whose translation loops transitions are counted (paper, S3), from the first; all when None, none when 0.
    transition_samples
        Points of each loop at which networks of tanh are sampled; their transitions cannot be counted exactly.
    device
        `cpu`, or a CUDA device.

    Returns
    -------
    list of Result
        In the order of `configurations`.

    Raises
    ------
    InvalidInputError
        A configuration names another data set, a minibatch is larger than the training set, the device is not there, or the
        images are too narrow for a translation.
    """
    check_device(device)
    measures = Measures(jacobian_points, transition_points, transition_samples)
    _check(configurations, dataset)
    measures.check(dataset)
    results: dict[str, Result] = {}
    for stack in _stacks(configurations, dataset, schedule, measures, device):
        for result in train_and_measure(stack, dataset, schedule=schedule, measures=measures, device=device):
            results[result.row["id"]] = result
    return [results[configuration.id] for configuration in configurations]


def _check(configurations: Sequence[Configuration], dataset: Dataset) -> None:
    """Raise InvalidInputError unless all of them are configurations for this data set."""
    if not isinstance(dataset, Dataset):
        raise InvalidInputError(f"dataset must be a Dataset, as load_dataset returns it; got {dataset!r}")
    if not isinstance(configurations, Sequence):
        raise InvalidInputError(f"configurations must be a list of Configuration; got {configurations!r}")
    for configuration in configurations:
        if not isinstance(configuration, Configuration):
            raise InvalidInputError(f"configurations must be a list of Configuration; got {configuration!r} in it")
        if configuration.dataset != dataset.name:
            raise InvalidInputError(
                f"the data set is {dataset.name}; configuration {configuration.id} is for {configuration.dataset}"
            )


def _stacks(
    configurations: Sequence[Configuration], dataset: Dataset, schedule: Schedule | None, measures: Measures, device: str
) -> list[list[Configuration]]:
    """Divide configurations into stacks, by steps that are measured here where they are not known yet."""
    sizes = measures.sizes(dataset)
    with arithmetic(device), Speeds(matmul_path(device), device, StepTimer(device)) as speeds:
        cost = CostModel({dataset.name: sizes}, speeds, checked=schedule is not None and schedule.stop_at_accuracy is not None)
        return make_stacks(configurations, stack_networks(configurations, cost, workers=1))


def train_and_measure(
    stack: Sequence[Configuration],
    dataset: Dataset,
    *,
    schedule: Schedule | None = None,
    measures: Measures | None = None,
    saver: Saver | None = None,
    device: str = "cpu",
) -> list[Result]:
    """Train and measure one stack; see `train`, for `saver` `train_stack`, and for what is measured when None `Measures`."""
    with arithmetic(device):
        trained = train_stack(stack, dataset, schedule=schedule, saver=saver, device=device)
        measures = measures or Measures()
        means = measure_sound(trained, dataset, measures)
        arrays = [measure_arrays(one, dataset, measures) for one in trained]
    return [
        Result(one.network, _row(one, dataset, own_means, device), own_arrays)
        for one, own_means, own_arrays in zip(trained, means, arrays, strict=True)
    ]


def _row(trained: Trained, dataset: Dataset, means: dict[str, float], device: str) -> dict[str, Any]:
    measured = {
        "train_accuracy": trained.train_accuracy,
        "test_accuracy": trained.test_accuracy,
        "gap": trained.train_accuracy - trained.test_accuracy,
        "train_loss": trained.train_loss,
        "test_loss": trained.test_loss,
        **means,
    }
    configuration = trained.configuration
    return {
        # A column that was not measured is null, and there.
        **dict.fromkeys(name for name in COLUMNS if name != "stored_at"),
        "id": configuration.id,
        **configuration.as_dict(),
        "state": trained.state,
        # No measure of a network that diverged means anything.
        **(measured if trained.state != "diverged" else {}),
        "weights": number_of_weights(configuration, dataset.train.x.shape[1], dataset.classes),
        "steps_done": trained.steps_done,
        "seconds": trained.seconds,
        **provenance(device),
    }


def provenance(device: str) -> dict[str, str]:
    """Return where and with what a result was made: version, torch, device, matrix-product path and host."""
    cuda = device.startswith("cuda")
    return {
        "version": version("sensitometer"),
        # A plain string: torch has a kind of its own.
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "matmul_path": matmul_path(device),
        "host": platform.node(),
    }
