"""Measures one trained model on a data set: opens the data, fits points and model together, and says how it is going."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple, cast

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from ..data import Dataset, Points, open_data, usual_normalisations
from ..errors import InvalidInputError, check_whole_number, counted, described
from ..measures import local_complexity as complexity_of
from ..measures.loops import counting_method, loop_transitions
from ..measures.points import PointValues, gives_probabilities, point_values
from ..models.adapting import AdaptedModel, Inputs, as_model_takes, check_mode, first_line, shape_taken, unwrapped
from ..networks import MLP
from ..randomness import generator
from .measurement import Measurement

# Test points when the caller does not say, for models whose Jacobians take a backward pass per class.
GENERIC_POINTS = 1000
# Parts of the points between which the progress is shown, and points of a part: each begins with a few forward passes.
PARTS, PART = 50, 64
# Points at which the accuracy under other normalisations is looked at, and by how much one must be better to be named.
LOOKED_AT, BETTER = 500, 0.05


def measure(
    model: Callable[..., Any],
    data: Dataset | str | os.PathLike[str],
    *,
    of: str = "probabilities",
    output: str | int | None = None,
    inputs: Inputs | None = None,
    points: int | None = None,
    transitions: int = 0,
    method: str | None = None,
    samples: int = 2**14,
    local_complexity: bool = False,
    normalise: str | None = None,
    progress: bool = True,
) -> Measurement:
    """
    Measure a model on the test points of a data set.

    Parameters
    ----------
    model, of, output
        As in `jacobian_norm`. The model takes the points in their shape, or flattened.
    data
        A `Dataset`, or what `open_data` opens: a known name, an `.npz` file, a folder of images, `package.module:factory`. Points
        without labels are measured without accuracy and loss.
    inputs
        Further inputs, as in `jacobian_norm`; tensors have a row per test point of the data.
    points
        The number of test points, a random choice that is the same for every model; None for all of them for an `MLP`, and
        for 1,000 (or all, if there are fewer) for any other model.
    transitions
        The number of these points along whose translation loops transitions are counted; the points must be images.
    method, samples
        As in `transitions`: `exact`, or `sampled` at `samples` points per loop. None for `exact` for an `MLP` of piecewise-linear
        activation, and `sampled` for any other model.
    local_complexity
        Whether to measure `measures.local_complexity` at each point.
    normalise
        As in `Dataset.renormalised`; None for `sphere` for known names, `none` for data of one's own, and a `Dataset` as it is.
    progress
        Whether to show a progress bar in a terminal.

    Raises
    ------
    InvalidInputError
        The model does not take the points, gives outputs that do not fit `of` or the labels, mixes points or depends on chance; a
        number is too large; or transitions are asked for that cannot be counted.
    DataError
        The data are missing or damaged.

    Examples
    --------
    >>> import torch
    >>> data = Dataset.from_arrays(torch.rand(40, 6), torch.arange(40) % 3)
    >>> measurement = measure(torch.nn.Linear(6, 3), data)
    >>> measurement
    Measurement(40 points of data)
    >>> measurement.table()["accuracy"].count
    40
    """
    dataset = data_of(model, data, normalise)
    model = unwrapped(model)
    check_mode(model)
    available = len(dataset.test.y)
    default = available if isinstance(model, MLP) else min(available, GENERIC_POINTS)
    count = check_whole_number("points", default if points is None else points, most=available)
    loops = check_whole_number("transitions", transitions, least=0, most=count)
    chosen = torch.randperm(available, generator=generator(0, "measured points"))[:count]
    subject = _Subject(model, output, inputs)
    x, further = _points_for(subject, dataset, chosen)
    if inputs is not None and (loops or local_complexity):
        raise InvalidInputError("inputs must be None for transitions and local complexity, which take models of points alone")
    if output is not None and loops:
        raise InvalidInputError("output must be None for transitions, which take models of one output")
    y = dataset.test.y[chosen] if dataset.is_regression or dataset.has_labels else None
    notes = [*dataset.notes]
    if y is None and bool((dataset.test.y >= 0).any()):
        notes.append("some points have no label: accuracy and loss are left out")
    adapted = AdaptedModel(model, x[:1], output=output, inputs=_rows(further, slice(0, 1)))
    notes += [adapted.note] if adapted.note else []
    # A copy in float32 is made once.
    subject = subject._replace(model=adapted.model)
    if y is not None and of in ("probabilities", "logits"):
        notes += _note_of_classes(adapted.example, dataset)
    if y is not None and of == "outputs" and not (y.is_floating_point() or gives_probabilities(adapted.example)):
        y = None
        notes.append("the outputs are no probabilities of classes: labels, accuracy and loss are left out")
    bar = _Progress(progress)
    values = _values(subject._replace(inputs=further), x, y, of, bar)
    notes += [*_better_normalisations(subject, dataset, values, chosen), *_notes_of_values(values, of)]
    counts, how = (None, "")
    if loops:
        how = method or counting_method(model)
        loop_points = bar.over([x[place : place + 1] for place in range(loops)], "transitions")
        counts = torch.cat(
            [loop_transitions(model, point, dataset.image_shape, samples=samples, method=how) for point in loop_points]
        )
        how = how if how == "exact" else f"{samples:,} samples"
    complexity = complexity_of(model, x, output=output) if local_complexity else None
    return Measurement(dataset, of, chosen, values, counts, how, complexity, tuple(notes))


def data_of(model: object, data: Dataset | str | os.PathLike[str], normalise: str | None) -> Dataset:
    """Return the data set that is meant, normalised as asked; InvalidInputError if it is none."""
    if isinstance(data, Dataset):
        return data if normalise is None else data.renormalised(normalise)
    if not isinstance(cast(object, data), str | os.PathLike):
        swapped = "; model and data are swapped" if isinstance(model, Dataset | str | os.PathLike) else ""
        raise InvalidInputError(
            f"data must be a Dataset, a known name or a path; got {described(data)}{swapped}: make a Dataset with "
            "Dataset.from_arrays(x, y) or Dataset.from_loader(loader)"
        )
    return open_data(data, normalise=normalise)


class _Subject(NamedTuple):
    """A model, which of its outputs is measured, and its further inputs, a row per point."""

    model: Callable[..., Any]
    output: str | int | None
    inputs: Inputs | None


class _Progress:
    """A progress bar in a terminal, or none."""

    def __init__(self, shown: bool) -> None:
        self._console = Console(stderr=True)
        self._shown = shown and self._console.is_terminal

    def over(self, items: Sequence[Any], name: str) -> Iterable[Any]:
        """Yield the items, and show how many are done."""
        # A bar that is disabled prints an empty line in versions of Rich before 14.3.
        return track(items, name, console=self._console, transient=True) if self._shown else items


def _points_for(subject: _Subject, dataset: Dataset, chosen: Tensor) -> tuple[Tensor, Inputs | None]:
    """Return the chosen test points in the shape, of the type and on the device in which a model takes them, and their inputs."""
    x = dataset.test.x[chosen]
    if isinstance(subject.model, MLP):
        return as_model_takes(subject.model, x), subject.inputs
    moved = as_model_takes(subject.model, x).view(-1, *dataset.shape)
    further = None if subject.inputs is None else _rows(_checked(subject.inputs, len(dataset.test.y)), chosen)

    def tried(points: Tensor) -> Any:
        few = _rows(further, torch.arange(len(points)) % len(moved)) or ()
        return subject.model(points, **few) if isinstance(few, Mapping) else subject.model(points, *few)

    shape = shape_taken(tried, moved)
    # Half precision is left to the model's float32 copy.
    x = moved if moved.dtype in (torch.float32, torch.float64) else x.to(moved.device)
    return x.view(-1, *shape), further


def _checked(inputs: Inputs, count: int) -> Inputs:
    values = inputs.values() if isinstance(inputs, Mapping) else inputs
    for value in values:
        if isinstance(value, Tensor) and (not value.ndim or len(value) != count):
            raise InvalidInputError(f"inputs must have one row per test point, [{count}, ...]; got {described(value)}")
    return inputs


def _rows(inputs: Inputs | None, rows: Tensor | slice) -> Inputs | None:
    """Return the further inputs of some points."""
    if inputs is None:
        return None
    if isinstance(inputs, Mapping):
        return {name: value[rows] if isinstance(value, Tensor) else value for name, value in inputs.items()}
    return [value[rows] if isinstance(value, Tensor) else value for value in inputs]


def _values(subject: _Subject, x: Tensor, y: Tensor | None, of: str, bar: _Progress) -> PointValues:
    """Measure the points, part after part."""
    y = None if y is None else y.to(x.device)
    if isinstance(subject.model, MLP):
        return point_values(subject.model, x, y, of=of, output=subject.output, inputs=subject.inputs)
    size = max(PART, len(x) // PARTS)
    parts = []
    for start in bar.over(range(0, len(x), size), "Jacobians"):
        place = slice(start, start + size)
        labels = None if y is None else y[place]
        try:
            further = _rows(subject.inputs, place)
            parts.append(point_values(subject.model, x[place], labels, of=of, output=subject.output, inputs=further))
        except (RuntimeError, NotImplementedError) as error:
            raise InvalidInputError(f"the model's Jacobian cannot be computed: {first_line(error)}") from error
    columns = {field.name: [getattr(part, field.name) for part in parts] for field in fields(PointValues)}
    joined: dict[str, Any] = {name: None if column[0] is None else torch.cat(column) for name, column in columns.items()}
    return PointValues(**joined)


def _note_of_classes(example: Tensor, dataset: Dataset) -> list[str]:
    """Refuse a classifier of other classes than the data have; note one of more classes than labels of one's own data."""
    classes = example.shape[1] if example.ndim == 2 and example.shape[1] > 1 else dataset.classes
    if classes == dataset.classes or not dataset.classes:
        return []
    if classes < dataset.classes or usual_normalisations(dataset):
        raise InvalidInputError(
            f"model must give {dataset.classes} logits, one per class of {dataset.name}; it gives {classes} "
            f"(the labels of {dataset.name} go up to {dataset.classes - 1}{_from_1(dataset)})"
        )
    return [
        f"the model has {classes} classes, and the highest label is {dataset.classes - 1}{_from_1(dataset)}: check that they are "
        "the same ones"
    ]


def _from_1(dataset: Dataset) -> str:
    """Return what to say of data in which no label is 0."""
    labels = torch.cat([dataset.test.y, dataset.train.y])
    return ", and none is 0: subtract 1 if they count from 1" if len(labels) and int(labels.min()) == 1 else ""


def _notes_of_values(values: PointValues, of: str) -> list[str]:
    """Note norms that are no numbers, and a saturated softmax or sigmoid, as where inputs are not scaled as in training."""
    lost = int((~values.jacobian_norm.isfinite()).sum())
    if lost:
        return [f"WARNING: the norm is no number at {counted(lost, 'point')}: are the model's weights and outputs finite?"]
    share = float((values.jacobian_norm == 0).double().mean())
    if share < 0.5 or of not in ("probabilities", "sigmoid"):
        return []
    return [
        f"WARNING: the norm is exactly 0 at {share:.0%} of the points, where the {of} are saturated: are the inputs scaled as in "
        "training? The logits' norm is --of logits"
    ]


def _better_normalisations(subject: _Subject, dataset: Dataset, values: PointValues, chosen: Tensor) -> list[str]:
    """Note which usual normalisation of a known data set gives the model a far better accuracy than the one measured under."""
    others = [how for how in usual_normalisations(dataset) if how != dataset.normalise]
    correct, raw = values.correct, dataset.test.raw
    if correct is None or raw is None or not others:
        return []
    rows = chosen[:LOOKED_AT]
    test = Points(dataset.test.x[rows], dataset.test.y[rows], raw[rows])
    few = replace(dataset, test=test, train=Points(test.x[:0], test.y[:0], raw[:0]))
    accuracies = {}
    for how in others:
        of_few = subject._replace(inputs=_rows(subject.inputs, rows))
        x, further = _points_for(of_few, few.renormalised(how), torch.arange(len(rows)))
        with torch.no_grad():
            outputs = AdaptedModel(subject.model, x, output=subject.output, inputs=further)(x)
        predicted = outputs[:, 0] > 0 if outputs.shape[1] == 1 else outputs.argmax(1)
        accuracies[how] = float((predicted.cpu() == test.y).double().mean())
    best, now = max(accuracies, key=lambda how: accuracies[how]), float(correct[: len(rows)].double().mean())
    if accuracies[best] < now + BETTER:
        return []
    return [
        f"WARNING: the model was hardly trained on {dataset.normalise!r} inputs: its accuracy on {len(rows)} points "
        f"is {now:.1%}, and {accuracies[best]:.1%} under {best!r}; measure it with --normalise {best}"
    ]
