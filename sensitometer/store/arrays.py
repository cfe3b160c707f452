r"""
The arrays that a survey keeps for a network beside its row, in `DIR/arrays/ID.safetensors`. Imports no torch.

Their names say what measured them (the keys of `[measure]`) and what they are. N are points, B bins of angle, M segments, and an
image is uint8 `[channels, height, width]`, stretched so that its darkest pixel is 0 and its brightest 255.

`points`, at N random test points, other ones for each network (paper, A.5.6):

- `points.index`: which points of the test set, int32 `[N]`; `points.label` and `points.predicted`: classes, int16 `[N]`;
- `points.confidence`: the probability of the predicted class; `points.cross_entropy` and `points.l2_loss`; float64 `[N]`;
- `points.jacobian_norm`, `points.label_jacobian_norm`, `points.logit_jacobian_norm`: $\|J\|_F$, $\|J_y\|_2$ and
  $\|\partial f / \partial x^T\|_F$; float64 `[N]`.

`paths`, along three ellipses of the network's own (paper, A.5.2), KIND being `random`, `different` (through three training points
of different classes) or `same` (of one class), the points at the angles $\pi/3$, $\pi$ and $5\pi/3$:

- `paths.KIND.transition_density`: transitions a radian in each of B equal bins, from angle 0 on; float64 `[B]`;
- `paths.KIND.jacobian_norm`: at the middle of each bin; float64 `[B]`;
- `paths.KIND.images`, `[3, channels, height, width]`, and `paths.KIND.labels`, int16 `[3]`: the three points; not of `random`.

For piecewise-linear networks, there is also the translation loop of a random test point (paper, S3, Figure App. 7), projected on
a plane, in units of the inputs, with the mean of the loop at 0. All shifts of an image are alike: on the plane of the largest
variance they would lie on a circle. The plane takes half of each of the two strongest waves along the loop: shift s of W is at
$\sum_k A_k (\cos(2 \pi k s / W), \sin(2 \pi k s / W)) / \sqrt{2}$.

- `paths.translation.curve`: the loop, from vertex to vertex in equal steps, closed; float32 `[K, 2]`;
- `paths.translation.crossings`: where boundaries of some units of the first hidden layer cross it; float32 `[n, 2]`;
- `paths.translation.directions`: unit vectors along each of these boundaries there; float32 `[n, 2]`;
- `paths.translation.unit`: whose boundaries these are; int32 `[n]`;
- `paths.translation.transitions`: of all units of each hidden layer along the loop; int64 `[L - 1]`;
- `paths.translation.images`, `[4, channels, height, width]`, and `paths.translation.places`, float32 `[4, 2]`: four of its
  vertices, and where on the curve these are.

`slice`, on the slice through the points of `paths.different` (paper, A.5.3), WHEN being `before` or `after` training; of a slice
of more than ten million linear regions only the last three:

- `slice.WHEN.segments`: the boundaries of the last hidden layer, in the coordinates of the slice, within [-1, 1]^2; float32
  `[M, 2, 2]`, two end points each;
- `slice.WHEN.distance`: from each of the three points to the nearest boundary; float64 `[3]`;
- `slice.WHEN.anywhere`: the mean of that distance over points all over the triangle between the three; float64 `[1]`;
- `slice.anchors`: the coordinates of the three points, float64 `[3, 2]`; `slice.images` and `slice.labels`, as with `paths`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from .. import array_files
from ..array_files import ADDED, DIGESTS, DamagedError, check_array, read_digests
from ..errors import StoreError
from ..files import check_regular

SUFFIX = ".safetensors"
# Bins of an ellipse: of fewer none may be within 0.2 radians of the middle between two of its three points.
FEWEST_BINS = 16
# Bytes of the largest file: a slice of ten million regions has a tenth of it.
LARGEST = 4 * 10**9
_NORMS = ("jacobian_norm", "label_jacobian_norm", "logit_jacobian_norm")
# Measures that are taken together are kept together, one entry per point, or per bin.
TOGETHER = {
    "points": ("index", "label", "predicted", "confidence", "cross_entropy", "l2_loss", *_NORMS),
    **{f"paths.{kind}": ("transition_density", "jacobian_norm") for kind in ("random", "different", "same")},
}
# Kept together, too, of lengths of their own.
_COMPLETE = TOGETHER | {
    **{f"paths.{kind}": ("transition_density", "jacobian_norm", "images", "labels") for kind in ("different", "same")},
    "paths.translation": ("curve", "crossings", "directions", "unit", "transitions", "images", "places"),
    **{f"slice.{when}": ("distance", "anywhere") for when in ("before", "after")},
    "slice": ("anchors", "images", "labels"),
}
_PLACES = (".curve", ".places", ".crossings", ".directions", ".segments", ".anchors")
# The type of each array, by the last part of its name, and its shape; None: any length, -1: any but 0.
_FORMS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    **dict.fromkeys(("confidence", "cross_entropy", "l2_loss", "transition_density", *_NORMS), ("float64", (-1,))),
    "index": ("int32", (-1,)),
    "label": ("int16", (-1,)),
    "predicted": ("int16", (-1,)),
    "labels": ("int16", (-1,)),
    "images": ("uint8", (-1, -1, -1, -1)),
    "curve": ("float32", (-1, 2)),
    "places": ("float32", (-1, 2)),
    "crossings": ("float32", (None, 2)),
    "directions": ("float32", (None, 2)),
    "unit": ("int32", (None,)),
    "transitions": ("int64", (None,)),
    "segments": ("float32", (None, 2, 2)),
    "anchors": ("float64", (3, 2)),
    "distance": ("float64", (3,)),
    "anywhere": ("float64", (1,)),
}


def write_arrays(file: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """
    Write arrays to a file, which appears under its name only when it is whole, and replaces an earlier one.

    Raises
    ------
    StoreError
        The file cannot be written.
    """
    try:
        array_files.write(file, arrays)
    except (OSError, KeyError) as error:  # KeyError: a type that no array has
        raise StoreError(f"cannot write arrays to {file}: {error}") from error


def read_arrays(file: Path, prefix: str | tuple[str, ...] = "") -> dict[str, NDArray[Any]]:
    """
    Return the arrays of a file whose names begin with `prefix`, or with one of several, by name; the others are not read.

    Raises
    ------
    StoreError
        The file is not there, is none that `write_arrays` wrote, or lacks some of what is measured together; or an array is not
        as it was written, by its digest.
    """
    try:
        check_regular(file, LARGEST)
        with safe_open(file, framework="numpy") as whole:
            names = list(whole.keys())
            shapes = {name: whole.get_slice(name).get_shape() for name in names}
            if not names:
                raise DamagedError("nothing is in it")
            _check_together(names, shapes)
            digests = read_digests(names, whole.metadata() or {})
            arrays = {}
            for name in names:
                if name.startswith(prefix):
                    code = whole.get_slice(name).get_dtype()
                    _check_form(name, code, shapes[name])
                    arrays[name] = whole.get_tensor(name)
                    check_array(name, code, shapes[name], arrays[name].tobytes(), digests)
                    _check_values(name, arrays[name])
            return arrays
    except (OSError, SafetensorError, DamagedError) as error:
        raise StoreError(f"cannot read the arrays in {file}: {error}") from error


def find_fault(file: Path, *, arrays: bool = True) -> str | None:
    """
    Return what is wrong with a file of arrays, or of weights; None if it is whole.

    Raises
    ------
    StoreError
        It cannot be read, which says nothing about it.
    """
    try:
        array_files.verify(file)
        with safe_open(file, framework="numpy") as whole:
            names = list(whole.keys())
            shapes = {name: whole.get_slice(name).get_shape() for name in names}
            if not names:
                raise DamagedError("nothing is in it")
            if arrays:
                _check_together(names, shapes)
            for place, name in enumerate(names):
                code = whole.get_slice(name).get_dtype()
                if arrays:
                    _check_form(name, code, shapes[name])
                    _check_values(name, whole.get_tensor(name))
                elif f"weights.{place}" not in names or len(shapes[name]) != 2 or code not in ("F32", "F64"):
                    raise DamagedError("it holds no weights of a network")
    except FileNotFoundError:
        return "it is not there"
    except (SafetensorError, DamagedError) as error:
        return str(error)
    except OSError as error:
        if not file.is_file() or file.is_symlink():
            return "it is no file"
        raise StoreError(f"cannot read {file}: {error.strerror or error}") from error
    return None


def has_digests(file: Path) -> tuple[bool, str | None]:
    """Return whether a file of arrays or weights has digests, and the day on which they were added; None: with the file."""
    metadata = array_files.read_metadata(file)
    return DIGESTS in metadata, metadata.get(ADDED)


def add_digests(file: Path) -> None:
    """Write a file that an earlier version wrote anew, with digests of what it holds now, and the day."""
    with safe_open(file, framework="numpy") as whole:
        arrays = {name: whole.get_tensor(name) for name in whole.keys()}  # noqa: SIM118  it is no mapping
        metadata = whole.metadata() or {}
    array_files.write(file, arrays, {**metadata, ADDED: datetime.now(UTC).strftime("%Y-%m-%d")})


def _check_form(name: str, code: str, shape: Sequence[int]) -> None:
    """Raise DamagedError if an array is of another type or shape than its name says."""
    form = _FORMS.get(name.rpartition(".")[2])
    if form is None:
        raise DamagedError(f"it has {name!a:.60}, which no version of Sensitometer measures")
    kind, lengths = form
    fits = len(shape) == len(lengths) and all(
        wanted is None or (length > 0 if wanted == -1 else length == wanted)
        for length, wanted in zip(shape, lengths, strict=False)
    )
    if code != array_files.TYPES[kind] or not fits:
        wanted = ", ".join("N" if length in (None, -1) else str(length) for length in lengths)
        raise DamagedError(f"{name!a:.60} must be {kind} [{wanted}]; got {code!a:.20} {list(shape)!s:.60}")


def _check_values(name: str, values: NDArray[Any]) -> None:
    """Raise DamagedError if a place is nowhere, or what counts from 0 is negative."""
    if name.endswith(_PLACES) and not np.isfinite(values).all():
        raise DamagedError(f"{name!a:.60} has places that are no numbers")
    if values.dtype.kind == "i" and (values < 0).any():
        raise DamagedError(f"{name!a:.60} has negative numbers")


def _check_together(names: Sequence[str], shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise DamagedError if a file lacks some of the arrays that are measured together, or has them of different lengths."""
    for begin, ends in _COMPLETE.items():
        there = {end for end in ends if f"{begin}.{end}" in names}
        if there and there != set(ends):
            raise DamagedError(f"{begin}.{min(set(ends) - there)} is missing")
        lengths = {tuple(shapes[f"{begin}.{end}"][:1]) for end in there & set(TOGETHER.get(begin, ()))}
        if len(lengths) > 1:
            raise DamagedError(f"those of {begin} are of different lengths")
