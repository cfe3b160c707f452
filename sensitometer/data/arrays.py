"""Checks every number in arrays and loaders of anybody's data. Imports no torch."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError, check_whole_number, counted, described, dimensions
from .transforms import Raw

# Channels of an image; an axis of such a length may be that of the channels.
_CHANNELS = (1, 3, 4)
# The names under which batches that are dictionaries hold the points and the labels; the first that is there counts.
X_KEYS = ("pixel_values", "x", "input", "inputs", "image", "images")
Y_KEYS = ("labels", "label", "y", "target", "targets")

# Classes `[N]`; or targets of a regression, `[N]` or `[N, K]`.
Labels = npt.NDArray[np.int64] | npt.NDArray[np.float32]


class Part(NamedTuple):
    """Points `[N, *shape]` and their labels."""

    x: Raw
    y: Labels


@dataclass(frozen=True, slots=True, eq=False)
class Arrays:
    """A data set before its normalisation, checked; the fields are those of `Dataset`."""

    name: str
    train: Part
    test: Part
    classes: int
    shape: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Names(NamedTuple):
    """The four arrays, as messages call them."""

    x_test: str = "x_test"
    y_test: str = "y_test"
    x_train: str = "x_train"
    y_train: str = "y_train"


ARGUMENTS = Names()


def check_arrays(
    x_test: Any,
    y_test: Any = None,
    x_train: Any = None,
    y_train: Any = None,
    *,
    name: str,
    classes: int | None = None,
    names: Names = ARGUMENTS,
) -> Arrays:
    """Return the data set that the arrays hold, as `Dataset.from_arrays` takes them; `names` are what messages call them."""
    check_name(name)
    classes = None if classes is None else check_whole_number("classes", classes)
    if x_train is None and y_train is not None:
        raise InvalidInputError(f"{names.x_train} must be given where {names.y_train} is; got None")
    notes: dict[str, None] = {}
    x = _points(names.x_test, x_test, notes)
    train_x = x[:0] if x_train is None else _points(names.x_train, x_train, notes)
    if train_x.shape[1:] != x.shape[1:]:
        sizes = [dimensions(points.shape[1:]) for points in (x, train_x)]
        raise InvalidInputError(f"{names.x_train} must hold points of {sizes[0]}, as {names.x_test} does; got {sizes[1]}")
    if train_x.dtype != x.dtype:
        raise InvalidInputError(
            f"{names.x_train} must be {x.dtype}, as {names.x_test} is; got {train_x.dtype}: bytes become [0, 1], floats stay"
        )
    y = None if y_test is None else _labels(names.y_test, y_test, len(x), classes)
    train_y = None if y_train is None else _labels(names.y_train, y_train, len(train_x), classes)
    if y is not None and train_y is not None and (y.dtype, y.shape[1:]) != (train_y.dtype, train_y.shape[1:]):
        raise InvalidInputError(f"{names.y_train} must be labels of the kind of {names.y_test}, {_kind(y)}; got {_kind(train_y)}")
    given = [labels for labels in (y, train_y) if labels is not None]
    if classes is None:
        classes = max((_count_classes(labels) for labels in given), default=0)
        if any(_array("", labels).dtype == bool for labels in (y_test, y_train) if labels is not None):
            classes = 2
    if train_y is None:
        train_y = np.full(len(train_x), -1) if len(train_x) or y is None else y[:0]
    y = np.full(len(x), -1) if y is None else y
    return Arrays(name, Part(train_x, train_y), Part(x, y), classes, x.shape[1:], notes=tuple(notes))


def check_name(name: object) -> str:
    """Return the name of a data set; InvalidInputError unless it is a line of text."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise InvalidInputError(f"name must be printable text, what the data are called; got {name!r}")
    return name


def read_loader(argument: str, loader: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return all points, and all labels where there are any, of a loader, in its order; see `Dataset.from_loader`."""
    xs: list[npt.NDArray[Any]] = []
    ys: list[npt.NDArray[Any]] = []
    for place, batch in enumerate(_batches(argument, loader)):
        x, y = _divided(f"batch {place} of {argument}", batch)
        if xs and x.shape[1:] != xs[0].shape[1:]:
            raise InvalidInputError(
                f"batch {place} of {argument} must hold points of {dimensions(xs[0].shape[1:])}, as those before it; "
                f"got {dimensions(x.shape[1:])}"
            )
        if (y is None) != (len(ys) < len(xs)) and xs:
            raise InvalidInputError(f"batch {place} of {argument} must have labels if and only if those before it have")
        xs.append(x)
        if y is not None:
            if len(y) != len(x):
                raise InvalidInputError(
                    f"batch {place} of {argument} must have a label per point; got {len(y)} of {len(x)} points"
                )
            ys.append(y)
    if not xs:
        raise InvalidInputError(f"{argument} must give at least one batch; it gave none")
    return np.concatenate(xs), np.concatenate(ys) if ys else None


def _batches(argument: str, loader: Any) -> Iterator[Any]:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(loader, torch.utils.data.Dataset):
        raise InvalidInputError(
            f"{argument} must be a loader of batches; got the data set {type(loader).__name__}: "
            "wrap it, DataLoader(dataset, batch_size=256)"
        )
    if isinstance(loader, Mapping | str) or hasattr(loader, "dtype") or not isinstance(loader, Iterable):
        raise InvalidInputError(
            f"{argument} must be a DataLoader, or another iterable of batches x or (x, y); got {described(loader)}; "
            "arrays go to Dataset.from_arrays"
        )
    return iter(loader)


def _divided(place: str, batch: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """Return the points and the labels of a batch."""
    x, y = batch, None
    if isinstance(batch, Mapping):
        x = next((batch[key] for key in X_KEYS if key in batch), None)
        y = next((batch[key] for key in Y_KEYS if key in batch), None)
        if x is None:
            keys = ", ".join(map(str, batch)) or "nothing"
            raise InvalidInputError(f"{place} must hold points under one of {', '.join(X_KEYS)}; it holds {keys}")
    elif isinstance(batch, Sequence) and not isinstance(batch, str):
        if len(batch) not in (1, 2):
            raise InvalidInputError(f"{place} must be x or (x, y); got {counted(len(batch), 'part')}")
        x, y = batch[0], batch[1] if len(batch) == 2 else None
    for part, value in (("points", x), ("labels", y)):
        if value is not None and not hasattr(value, "dtype"):
            raise InvalidInputError(f"{place} must hold {part} as a tensor or an array; got {described(value)}")
    points = _array(place, x)
    if points.ndim < 2:
        raise InvalidInputError(f"{place} must hold points [n, ...]; got {described(x)}")
    return points, None if y is None else np.atleast_1d(_array(f"labels of {place}", y))


def _array(argument: str, value: Any) -> npt.NDArray[Any]:
    """Return a tensor or an array as an array."""
    try:
        if hasattr(value, "detach"):
            value = value.detach().cpu()
            # numpy has no bfloat16.
            value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise InvalidInputError(f"{argument} must be a tensor or an array of numbers; got {described(value)}") from error


def _shown(array: npt.NDArray[Any], value: Any) -> str:
    """Return what a message says of an array that was refused."""
    return f"{array.dtype} {list(array.shape)}" if array.ndim else described(value)


def _points(argument: str, value: Any, notes: dict[str, None]) -> Raw:
    """Return a copy of the points, uint8 or float32, channels first."""
    x = _array(argument, value)
    shown = _shown(x, value)
    if x.dtype != np.uint8 and x.dtype.kind != "f":
        cure = "; pixels are x.astype('uint8'), all else x.astype('float32')" if x.dtype.kind in "biu" else ""
        raise InvalidInputError(f"{argument} must hold floats, or pixels as uint8; got {shown}{cure}")
    if x.ndim < 2:
        raise InvalidInputError(f"{argument} must be points [N, ...]; got {shown}; for points of one number, x[:, None]")
    if x.size == 0:
        raise InvalidInputError(f"{argument} must hold at least one point of one number; got {shown}")
    if x.dtype == np.uint8:
        return _channels_first(argument, x, notes)
    with np.errstate(over="ignore"):  # numbers too large for float32 are named below
        points = x.astype(np.float32)
    finite = np.isfinite(points.reshape(len(points), -1)).all(axis=1)
    if not finite.all():
        point = int(finite.argmin())
        wrong = x[point][~np.isfinite(points[point])][0]
        raise InvalidInputError(
            f"{argument} must hold finite numbers of float32; point {point} has {wrong} "
            f"({counted(int((~finite).sum()), 'such point')})"
        )
    if points.ndim > 2 and points.min() >= 0 and 1 < points.max() <= 255 and (points == np.rint(points)).all():
        notes[f"{argument}: whole numbers up to {points.max():g} are taken as they are; pixels as uint8 would become [0, 1]"] = (
            None
        )
    if _channels_seem_last(points):
        sizes = dimensions(points.shape[1:])
        notes[
            f"{argument}: points of {sizes} are taken as they are, {points.shape[1]} channels first; if the channels are last, "
            "transpose them: x.transpose(0, 3, 1, 2)"
        ] = None
    return points


def _channels_first(argument: str, x: npt.NDArray[np.uint8], notes: dict[str, None]) -> npt.NDArray[np.uint8]:
    """Return pixels `[N, height, width]` and `[N, height, width, channels]` as `[N, channels, height, width]`, a copy."""
    if x.ndim == 3:
        notes[f"{argument}: pixels {list(x.shape)} are taken as images of one channel, {dimensions((1, *x.shape[1:]))}"] = None
        x = x[:, None]
    elif _channels_seem_last(x):
        moved = np.moveaxis(x, -1, 1)
        notes[
            f"{argument}: pixels {list(x.shape)} have their channels last, and are taken as images of "
            f"{dimensions(moved.shape[1:])}"
        ] = None
        x = moved
    return x.copy(order="C")


def _channels_seem_last(x: npt.NDArray[Any]) -> bool:
    return x.ndim == 4 and x.shape[3] in _CHANNELS and x.shape[1] not in _CHANNELS


def _labels(argument: str, value: Any, points: int, classes: int | None) -> Labels:
    """Return classes as int64 `[N]`, floats as targets, float32 `[N]` or `[N, K]`."""
    y = _array(argument, value)
    shown = _shown(y, value)
    if y.dtype.kind not in "biuf":
        cure = "; whole numbers for names: numpy.unique(y, return_inverse=True)[1]" if y.dtype.kind in "US" else ""
        raise InvalidInputError(f"{argument} must hold whole numbers, classes, or floats, targets; got {shown}{cure}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind != "f" and y.ndim == 2:
        raise InvalidInputError(f"{argument} must be classes [N]; got {shown}; for one-hot labels, y.argmax(1)")
    if y.ndim not in (1, 2) or y.shape[1:] == (0,):
        raise InvalidInputError(f"{argument} must be classes [N], or targets [N] or [N, K]; got {shown}")
    if len(y) != points:
        raise InvalidInputError(f"{argument} must have a label per point, {points:,}; got {shown}")
    if y.dtype.kind == "f":
        return _targets(argument, y, classes)
    wrong = (y < 0) | (y >= (2**31 if classes is None else classes))
    if wrong.any():
        point = int(wrong.argmax())
        expected = "classes from 0" if classes is None else f"classes from 0 to {classes - 1}"
        cure = "; points without labels have none, not -1" if y[point] == -1 else ""
        raise InvalidInputError(f"{argument} must hold {expected}; point {point} has {y[point]}{cure}")
    return y.astype(np.int64)


def _targets(argument: str, y: npt.NDArray[Any], classes: int | None) -> npt.NDArray[np.float32]:
    if classes is not None:
        raise InvalidInputError(
            f"{argument} must hold whole numbers, as classes={classes}; got {y.dtype}, targets of a regression; for classes, "
            "y.astype('int64')"
        )
    with np.errstate(over="ignore"):
        targets = y.astype(np.float32)
    finite = np.isfinite(targets.reshape(len(targets), -1)).all(axis=1)
    if not finite.all():
        point = int(finite.argmin())
        raise InvalidInputError(f"{argument} must hold finite numbers of float32; point {point} has {y[point]}")
    return targets


def _kind(y: Labels) -> str:
    return "classes" if y.dtype == np.int64 else f"{counted(y.shape[1] if y.ndim == 2 else 1, 'float')} per point"


def _count_classes(y: Labels) -> int:
    return int(y.max()) + 1 if y.dtype == np.int64 else 0
