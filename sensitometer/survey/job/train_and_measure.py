"""Train a stack of networks, measure it, and say where and with which versions that was done."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from numpy.typing import NDArray

from ...configuration import Configuration
from ...data import Dataset
from ...device import arithmetic, matmul_path
from ...networks import MLP
from ...store.schema import COLUMNS
from ...training import Saver, Schedule, Trained, train_stack
from ..scheduling.cost import Measures, number_of_weights
from .arrays import measure_arrays
from .means import measure_sound


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

    network: MLP
    row: dict[str, Any]
    arrays: dict[str, NDArray[Any]]

    def __repr__(self) -> str:
        return f"Result({self.row['id']}, {self.row['state']}, {self.network})"


def train_and_measure(
    stack: Sequence[Configuration],
    dataset: Dataset,
    *,
    schedule: Schedule | None = None,
    measures: Measures | None = None,
    saver: Saver | None = None,
    device: str = "cpu",
) -> list[Result]:
    """Train and measure one stack; see `train`, for `saver` `train_stack`, and for the defaults of `measures` `Measures`."""
    with arithmetic(device):
        trained = train_stack(stack, dataset, schedule=schedule, saver=saver, device=device)
        measures = measures or Measures()
        means = measure_sound(trained, dataset, measures)
        arrays = [measure_arrays(network, dataset, measures) for network in trained]
    return [
        Result(network.network, _row(network, dataset, columns, device), kept)
        for network, columns, kept in zip(trained, means, arrays, strict=True)
    ]


def _row(trained: Trained, dataset: Dataset, means: dict[str, float], device: str) -> dict[str, Any]:
    fit = {name: getattr(trained, name) for name in ("train_accuracy", "test_accuracy", "train_loss", "test_loss")}
    measured = {**fit, "gap": trained.train_accuracy - trained.test_accuracy, **means}
    configuration = trained.configuration
    return {
        # A column that was not measured is null.
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
    """Return the origin of a result: version, torch, device, matrix-product path and host."""
    cuda = device.startswith("cuda")
    return {
        "version": version("sensitometer"),
        # A plain string: torch has a kind of its own.
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if cuda else "cpu",
        "matmul_path": matmul_path(device),
        "host": platform.node(),
    }
