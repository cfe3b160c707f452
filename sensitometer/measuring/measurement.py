"""The measures of one model on a data set: means over points with their standard errors, tables, and the values at each point."""

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor

from ..analysis.error_detection import BASELINE, detection_verdict, error_detection, scores_of
from ..analysis.points import BoundShares, bound_shares
from ..data import Dataset
from ..errors import InvalidInputError, StoreError, counted
from ..files import replacing
from ..measures import sensitivity_maps
from ..measures.points import PointValues
from ..models.adapting import as_model_takes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NORM = "Jacobian norm"


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over points, its standard error (nan for fewer than 2) and their number."""

    value: float
    standard_error: float
    count: int


@dataclass(frozen=True, eq=False)
class Measurement:
    """
    The measures of a model on a data set.

    Attributes
    ----------
    dataset
        The data, normalised as they were measured.
    of
        The output whose Jacobian norm was measured, as in `jacobian_norm`.
    points
        The indices of the points in the test set, int64 `[N]`, in random order.
    values
        The measures at each of them.
    transitions
        Along the translation loops of the first P of them, int64 `[P]`; None if they were not counted.
    method
        `exact`, or `N samples`, of the transitions.
    local_complexity
        At each point, int64 `[N]`; None if it was not measured.
    notes
        Remarks on the numbers that the reader should know, a line each.
    """

    dataset: Dataset
    of: str
    points: Tensor
    values: PointValues
    transitions: Tensor | None = None
    method: str = ""
    local_complexity: Tensor | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        loops = "" if self.transitions is None else f", transitions on {counted(len(self.transitions), 'loop')}"
        return f"Measurement({counted(len(self.points), 'point')} of {self.dataset.name}{loops})"

    def table(self) -> dict[str, Mean]:
        """Return the means over the points by their names: fit, norms, and what else was measured."""
        values, correct = self.values, self.values.correct
        of = "" if self.of == "probabilities" else f" of the {'sigmoid' if self.of == 'sigmoid' else self.of}"
        norm = f"{NORM}{of}"
        rows: dict[str, Tensor | None] = {
            "accuracy": correct,
            "cross-entropy": values.cross_entropy,
            "squared error": values.squared_error,
            norm: values.jacobian_norm,
            "  of correct points": None if correct is None else values.jacobian_norm[correct],
            "  of wrong points": None if correct is None else values.jacobian_norm[~correct],
            "logit Jacobian norm": values.logit_jacobian_norm if self.of != "logits" else None,
            f"transitions ({self.method})": self.transitions,
            "local complexity": self.local_complexity,
        }
        return {name: mean(row) for name, row in rows.items() if row is not None and len(row)}

    def frame(self) -> pd.DataFrame:
        """Return a table of one row per point: its index in the test set, and all its values and scores."""
        columns: dict[str, Any] = {"point": self.points}
        for name in ("label", "predicted", "correct", "confidence", "cross_entropy", "squared_error", "jacobian_norm"):
            columns[name] = getattr(self.values, name)
        columns |= {name: getattr(self.values, name) for name in ("label_jacobian_norm", "logit_jacobian_norm")}
        columns["local_complexity"] = self.local_complexity
        table = pd.DataFrame({name: column.cpu().numpy() for name, column in columns.items() if column is not None})
        if self.dataset.files:
            table.insert(1, "file", [self.dataset.files[point] for point in self.points.tolist()])
        for name, scores in self._confidence_scores.items():
            table[_column(name)] = scores
        if self.transitions is not None:
            table["transitions"] = pd.Series(self.transitions.tolist(), dtype="Int64")
        return table

    def per_class(self) -> pd.DataFrame:
        """
        Return a table of one row per class: its name, points, accuracy, and mean Jacobian norm, with their standard errors.

        Raises
        ------
        InvalidInputError
            The points have no classes.
        """
        correct, label = self.values.correct, self.values.label
        if correct is None or label is None:
            raise InvalidInputError("per_class needs a classifier and labels; these points were measured without")
        rows = []
        for number in range(self.dataset.classes):
            here = label == number
            accuracy, norm = mean(correct[here]), mean(self.values.jacobian_norm[here])
            name = self.dataset.class_names[number] if self.dataset.class_names else str(number)
            rows.append(
                {
                    "class": name,
                    "points": accuracy.count,
                    "accuracy": accuracy.value,
                    "accuracy_error": accuracy.standard_error,
                    "jacobian_norm": norm.value,
                    "jacobian_norm_error": norm.standard_error,
                }
            )
        return pd.DataFrame(rows)

    @cached_property
    def detection(self) -> pd.DataFrame | None:
        """How well the norm and the model's confidence find wrong points (`error_detection`); None where nobody can tell."""
        correct = self.values.correct
        if correct is None or not self._confidence_scores or bool(correct.all()) or not bool(correct.any()):
            return None
        finite = self.values.jacobian_norm.isfinite()
        if not bool(finite.all()):
            return None
        scores = {NORM: self.values.jacobian_norm.cpu().numpy(), **self._confidence_scores}
        return error_detection(scores, ~correct.cpu().numpy())

    @property
    def verdict(self) -> str:
        """A sentence that says whether the norm finds errors better than plain confidence; empty where nobody can tell."""
        return "" if self.detection is None else detection_verdict(self.detection)

    @cached_property
    def _confidence_scores(self) -> Mapping[str, Any]:
        logits = self.values.class_logits
        if logits is None or not bool(logits.isfinite().all()):
            return {}
        scores = scores_of(logits.cpu().numpy())
        if self.of not in ("probabilities", "logits"):
            # The logits are made up from probabilities, up to a constant.
            del scores["energy"]
        return scores

    @property
    def bounds(self) -> BoundShares | None:
        """The shares of the points that lie to the bounds as the paper derives (A.3); None without labels or probabilities."""
        values = self.values
        columns = (values.cross_entropy, values.label_jacobian_norm, values.jacobian_norm, values.logit_jacobian_norm)
        losses, label_norms, norms, logit_norms = (None if column is None else column.cpu().numpy() for column in columns)
        if losses is None or label_norms is None or norms is None or logit_norms is None or values.class_logits is None:
            return None
        return bound_shares(losses, label_norms, norms, logit_norms, values.class_logits.shape[1])

    def plot(
        self,
        model: Callable[..., Any] | None = None,
        *,
        output: str | int | None = None,
        most: int = 8,
        least: int = 8,
        axes: "Sequence[Axes] | None" = None,
    ) -> "list[Axes]":
        """
        Draw the images of the highest and of the lowest Jacobian norms with their scores, as `sm.plot.points` does.

        Parameters
        ----------
        model, output
            The model that was measured: below each image stands its input-sensitivity map (`measures.sensitivity_maps`). None: no
            maps.
        most, least
            How many images of each kind.
        axes
            As in `sm.plot.points`.

        Raises
        ------
        InvalidInputError
            The points are no images of one or three channels, or an argument is not as above.
        """
        from ..plot import points as draw_points  # matplotlib takes a second to import

        shape, test = self.dataset.image_shape, self.dataset.test
        order = self.values.jacobian_norm.cpu().argsort(descending=True, stable=True)
        extremes = torch.cat([order[:most], order[max(most, len(order) - least) :]])
        rows = self.points[extremes]
        images = (test.x if test.raw is None else test.raw)[rows].reshape(-1, *shape)
        maps = None
        if model is not None:
            x = as_model_takes(model, test.x[rows]).view(-1, *shape)
            maps = sensitivity_maps(model, x, of=self.of, output=output).cpu()
        frame = self.frame().iloc[extremes.numpy()]
        if "label" not in frame:
            frame = frame.assign(label=-1)
        return draw_points(images, frame, maps, most=most, least=least, class_names=self.dataset.class_names, axes=axes)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the single points as plain values, as `--json` prints them; nan is None."""
        detection = self.detection
        result = {
            "data": self.dataset.name,
            "normalise": self.dataset.normalise,
            "of": self.of,
            "points": len(self.points),
            "test_points": len(self.dataset.test.y),
            "means": {
                name.strip(): {field.name: getattr(row, field.name) for field in fields(Mean)}
                for name, row in self.table().items()
            },
            "per_class": [] if self.values.correct is None else self.per_class().to_dict("records"),
            "error_detection": {} if detection is None else detection.to_dict("index"),
            "verdict": self.verdict,
            "bounds": self.bounds._asdict() if self.bounds else None,
            "notes": list(self.notes),
        }
        plain: dict[str, Any] = json.loads(json.dumps(result, default=float), parse_constant=lambda _: None)
        return plain

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write `frame()` to a `.csv` or `.parquet` file; InvalidInputError for another ending, StoreError if that fails."""
        path = Path(path)
        if path.suffix not in (".csv", ".parquet"):
            raise InvalidInputError(f"the file of the points must end in .csv or .parquet; got {path}")
        try:
            with replacing(path) as unfinished:
                if path.suffix == ".parquet":
                    self.frame().to_parquet(unfinished, index=False)
                else:
                    self.frame().to_csv(unfinished, index=False, lineterminator="\n")
        except OSError as error:
            raise StoreError(f"cannot write the points to {path}: {error.strerror or error}") from error


def _column(name: str) -> str:
    return {BASELINE: "one_minus_max_p", "-margin": "minus_margin"}.get(name, name)


def mean(values: Tensor) -> Mean:
    """Return the mean of `values` `[n]`; nan if there are none."""
    values, count = values.double(), len(values)
    error = float(values.std()) / math.sqrt(count) if count > 1 else math.nan
    return Mean(float(values.mean()), error, count)
