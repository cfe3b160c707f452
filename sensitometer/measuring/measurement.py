"""Measures one trained model on a data set, for the command `measure`: means over points, and the values at each point."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from ..analysis.points import BoundShares, bound_shares, error_auroc
from ..data import Dataset
from ..errors import InvalidInputError, StoreError, check_whole_number, counted, described
from ..measures.loops import counting_method, loop_transitions
from ..measures.points import PointValues, point_values
from ..models.adapting import REFUSALS, first_line
from ..networks import MLP
from ..randomness import generator

# Test points when the caller does not say, for models whose Jacobians take a backward pass per class.
GENERIC_POINTS = 1000
# Test points on whose loops transitions are counted when the caller does not say.
LOOPS = 10
COLUMNS = (
    *("label", "predicted", "correct", "confidence", "cross_entropy", "jacobian_norm", "label_jacobian_norm"),
    "logit_jacobian_norm",
)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over points, its standard error (nan for fewer than 2) and their number."""

    value: float
    standard_error: float
    count: int


@dataclass(frozen=True, eq=False)
class Measurement:
    """
    The measures of a model.

    Attributes
    ----------
    points
        The indices of the points in the test set, int64 `[N]`, in random order.
    values
        The measures at each of them.
    classes
        The number of classes, C.
    transitions
        Along the translation loops of the first P of them, int64 `[P]`; None if they were not counted.
    uncounted
        Why they were not; empty if they were, or if none were asked for.
    method
        `exact` or `sampled`, of the transitions.
    """

    points: Tensor
    values: PointValues
    classes: int
    transitions: Tensor | None
    uncounted: str
    method: str

    def __repr__(self) -> str:
        loops = 0 if self.transitions is None else len(self.transitions)
        return f"Measurement({counted(len(self.points), 'point')}, transitions on {counted(loops, 'loop')})"

    def table(self, samples: int) -> dict[str, Mean]:
        """Return the means over the points by their names; `samples` is the number of points sampled on each loop."""
        values = self.values
        rows = {
            "accuracy": values.correct,
            "cross-entropy": values.cross_entropy,
            "Jacobian norm": values.jacobian_norm,
            "  of correct points": values.jacobian_norm[values.correct],
            "  of wrong points": values.jacobian_norm[~values.correct],
            "logit Jacobian norm": values.logit_jacobian_norm,
        }
        if self.transitions is not None:
            how = "exact" if self.method == "exact" else f"{samples:,} samples"
            rows[f"transitions ({how})"] = self.transitions
        return {name: mean(row) for name, row in rows.items()}

    @property
    def auroc(self) -> float:
        """How often a wrong point has a higher Jacobian norm than a correct one, where both are finite: see `error_auroc`."""
        finite = self.values.jacobian_norm.isfinite()
        norms, wrong = (values[finite].cpu().numpy() for values in (self.values.jacobian_norm, ~self.values.correct))
        return error_auroc(norms, wrong)

    @property
    def bounds(self) -> BoundShares | None:
        """The shares of the points that lie to the bounds as the paper derives (A.3); None for a model of one class."""
        values = self.values
        columns = (values.cross_entropy, values.label_jacobian_norm, values.jacobian_norm, values.logit_jacobian_norm)
        losses, label_norms, norms, logit_norms = (column.cpu().numpy() for column in columns)
        return bound_shares(losses, label_norms, norms, logit_norms, self.classes) if self.classes > 1 else None


def mean(values: Tensor) -> Mean:
    """Return the mean of `values` `[n]`; nan if there are none."""
    values, count = values.double(), len(values)
    error = float(values.std()) / math.sqrt(count) if count > 1 else math.nan
    return Mean(float(values.mean()), error, count)


def measure(
    model: Callable[[Tensor], Tensor],
    dataset: Dataset,
    *,
    points: int | None = None,
    transitions: int | None = None,
    samples: int = 2**14,
) -> Measurement:
    """
    Measure a model on the test points of a data set.

    Parameters
    ----------
    model
        An `MLP`, or any module or callable that maps flat points `[n, D]`, or else images `[n, channels, height, width]`, to
        logits `[n, C]`.
    dataset
        The points, normalised as the package does it: a model that was trained on other inputs is measured where it never was.
    points
        The number of test points, a random choice that is the same for every model; None for all of them for an `MLP`, and
        for 1,000 (or all, if there are fewer) for any other model.
    transitions
        The number of these points along whose translation loops transitions are counted: exactly for an `MLP` of a
        piecewise-linear activation, by sampling for any other model. None for 10 (or all), if the model has activations that
        can be seen.
    samples
        Points on each loop that is sampled.

    Raises
    ------
    InvalidInputError
        The model takes the points in neither shape or gives other classes, a number is too large, or transitions are asked for
        that cannot be counted.
    """
    available = len(dataset.test.y)
    default = available if isinstance(model, MLP) else min(available, GENERIC_POINTS)
    count = check_whole_number("points", default if points is None else points, most=available)
    loops = check_whole_number("transitions", min(LOOPS, count) if transitions is None else transitions, least=0, most=count)
    samples = check_whole_number("samples", samples, least=2, most=2**30)
    chosen = torch.randperm(available, generator=generator(0, "measured points"))[:count]
    shape = _point_shape(model, dataset)
    x, y = dataset.test.x[chosen].view(-1, *shape).to(_dtype(model)), dataset.test.y[chosen]
    try:
        values = point_values(model, x, y)
    except (RuntimeError, NotImplementedError) as error:
        raise InvalidInputError(f"the model's Jacobian cannot be computed: {first_line(error)}") from error
    counted, uncounted = None, ""
    try:
        counted = loop_transitions(model, x[:loops], dataset.image_shape, samples=samples) if loops else None
    except InvalidInputError as error:
        if transitions is not None:
            raise
        uncounted = str(error)
    return Measurement(chosen, values, dataset.classes, counted, uncounted, counting_method(model))


def _dtype(model: Callable[[Tensor], Tensor]) -> torch.dtype:
    """Return the type of numbers in which the model computes."""
    parameters = model.parameters() if isinstance(model, nn.Module) else ()
    return next((parameter.dtype for parameter in parameters if parameter.is_floating_point()), torch.float32)


@torch.no_grad()
def _point_shape(model: Callable[[Tensor], Tensor], dataset: Dataset) -> tuple[int, ...]:
    """Return the shape of a point that the model takes, `(D,)` or `(channels, height, width)`; InvalidInputError if neither."""
    x = dataset.test.x[:2].to(_dtype(model))
    expected = [len(x), dataset.classes]
    shapes: list[tuple[int, ...]] = [(x.shape[1],)] if isinstance(model, MLP) else [(x.shape[1],), dataset.image_shape]
    faults = []
    for shape in shapes:
        try:
            logits = model(x.view(-1, *shape).clone())
        except REFUSALS as error:
            fault = f"it says: {first_line(error)}"
        else:
            if not isinstance(logits, Tensor) or not logits.is_floating_point():
                fault = f"it gives {described(logits)}, not logits"
            elif list(logits.shape) != expected:
                fault = f"it gives {list(logits.shape)}, not logits {expected} of {dataset.classes} classes"
            else:
                return shape
        faults.append(f"for points {[len(x), *shape]} {fault}")
    raise InvalidInputError(f"model does not take the points of {dataset.name}: {'; '.join(faults)}")


def write_points(measurement: Measurement, path: Path) -> None:
    """Write the values at each point to a CSV file; StoreError if that fails."""
    columns = {"point": measurement.points} | {name: getattr(measurement.values, name) for name in COLUMNS}
    table = pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items()}).astype({"correct": int})
    counts = [] if measurement.transitions is None else measurement.transitions.tolist()
    table["transitions"] = pd.Series(counts, dtype="Int64")
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            table.to_csv(file, index=False, lineterminator="\n")
    except OSError as error:
        raise StoreError(f"cannot write the points to {path}: {error.strerror}") from error
