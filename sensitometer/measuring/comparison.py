"""Compares several models on the same points: paired differences, their standard errors, and what can be told from them."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import pandas as pd
from torch import Tensor, nn

from ..analysis.error_detection import paired_difference
from ..data import Dataset
from ..errors import InvalidInputError, counted, described
from .measurement import Measurement, mean
from .model_on_data import GENERIC_POINTS, data_of, measure

CAUTION = (
    "These are different architectures, whose Jacobian norms do not order them: three checkpoints of one data set had accuracies "
    "of 0.836, 0.822 and 0.789 at norms of 0.221, 0.138 and 0.230."
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """
    Several models, measured on the same points.

    Attributes
    ----------
    measurements
        The measurement of each model, by its name; all of the same test points.
    caution
        A sentence of caution where the models are of different architectures; else empty.
    """

    measurements: Mapping[str, Measurement]
    caution: str = ""

    def __repr__(self) -> str:
        points = counted(len(next(iter(self.measurements.values())).points), "point")
        return f"Comparison({', '.join(self.measurements)}, {points})"

    def table(self) -> pd.DataFrame:
        """
        Return the paired differences of every two models, one row per quantity and pair.

        The columns: `quantity`, `a` and `b` (names), `value_a` and `value_b` (means over the points), `difference` (of a from b),
        `standard_error` (paired), `low` and `high` (95% interval), `points`, and `verdict`: the name of the model with the higher
        value, or `cannot tell` where the interval spans zero.
        """
        rows = []
        columns = {name: _columns(measurement) for name, measurement in self.measurements.items()}
        for a, b in combinations(columns, 2):
            for quantity in columns[a]:
                if quantity not in columns[b]:
                    continue
                values_a, values_b = columns[a][quantity], columns[b][quantity]
                difference = paired_difference(values_a.cpu().numpy(), values_b.cpu().numpy())
                higher = {"A higher": f"{a} is higher", "B higher": f"{b} is higher"}.get(difference.verdict, difference.verdict)
                rows.append(
                    {
                        "quantity": quantity,
                        "a": a,
                        "b": b,
                        "value_a": mean(values_a).value,
                        "value_b": mean(values_b).value,
                        **difference._asdict(),
                        "points": len(values_a),
                        "verdict": higher,
                    }
                )
        return pd.DataFrame(rows)


def _columns(measurement: Measurement) -> dict[str, Tensor]:
    """Return the values at the points, by the name of the quantity."""
    values = measurement.values
    columns = {
        "accuracy": values.correct,
        "cross-entropy": values.cross_entropy,
        "squared error": values.squared_error,
        "Jacobian norm": values.jacobian_norm,
        "logit Jacobian norm": values.logit_jacobian_norm,
        "transitions": measurement.transitions,
        "local complexity": measurement.local_complexity,
    }
    return {name: column.double() for name, column in columns.items() if column is not None}


def compare(
    models: Mapping[str, Callable[..., Any]],
    data: Dataset | str | os.PathLike[str],
    *,
    points: int | None = None,
    normalise: str | None = None,
    **options: Any,
) -> Comparison:
    """
    Measure models on the same test points, and compare them point by point.

    Parameters
    ----------
    models
        Two models or more, by their names.
    data, normalise
        As in `measure`.
    points
        The number of test points; None for 1,000, or all, if there are fewer.
    options
        Others of `measure`, the same for all models.

    Raises
    ------
    InvalidInputError
        There are fewer than two models, or `measure` refuses one; the message begins with its name.

    Examples
    --------
    >>> import torch
    >>> data = Dataset.from_arrays(torch.rand(40, 6), torch.arange(40) % 3)
    >>> comparison = compare({"first": torch.nn.Linear(6, 3), "second": torch.nn.Linear(6, 3)}, data)
    >>> comparison
    Comparison(first, second, 40 points)
    >>> list(comparison.table().quantity)
    ['accuracy', 'cross-entropy', 'Jacobian norm', 'logit Jacobian norm']
    """
    if not isinstance(models, Mapping) or len(models) < 2:
        got = counted(len(models), "model") if isinstance(models, Mapping) else described(models)
        raise InvalidInputError(f"models must be two models or more by their names, such as {{'first': model}}; got {got}")
    dataset = data_of(models, data, normalise)
    points = min(GENERIC_POINTS, len(dataset.test.y)) if points is None else points
    measurements = {}
    for name, model in models.items():
        try:
            measurements[name] = measure(model, dataset, points=points, **options)
        except InvalidInputError as error:
            raise InvalidInputError(f"{name}: {error}") from error
    return Comparison(measurements, CAUTION if len(set(map(_architecture, models.values()))) > 1 else "")


def _architecture(model: Callable[..., Any]) -> tuple[Any, ...]:
    """Return the shapes of a model's parameters, in order; of another callable its class."""
    return tuple(tuple(weight.shape) for weight in model.parameters()) if isinstance(model, nn.Module) else (type(model),)
