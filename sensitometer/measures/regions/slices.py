r"""
The boundaries of hidden units on a slice through the input space (paper, S3, S4.1, A.5.3, Figure 3).

A unit's code at a point is the number of its activation's boundaries strictly below its pre-activation; a boundary is where the
code changes. `exact` finds the straight pieces of all boundaries and the faces between them (`arrangement.py`), `sampled`
compares the codes of neighbours on a grid, and works for every activation.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...activations import activation
from ...errors import InvalidInputError, TooManyRegionsError
from ...evaluation import all_finite
from ...networks import MLP, as_stack
from ...paths import Slice
from .faces.arrangement import Segments, arrange

METHODS = ("exact", "sampled")
# Pre-activations at once on a grid, 8 MiB in float32.
BAND = 2**21
# Point-segment pairs at once.
PAIRS = 2**20
# Two faces tell of one side with coordinates that differ in the last bits only; sides this near one another are one.
SAME_SIDE = 2.0**-30
# Of a plane through 0, units in the last place of the largest of its points.
ROUNDING = 4


@dataclass(frozen=True, eq=False)
class ExactBoundaries:
    """
    The boundaries of some layers on a slice, and the linear regions of the network up to the last of these layers.

    A segment is straight, and whole within one region of the layers below its own. In a generic network it is met by another
    segment only at its ends, or where the two cross; units that are multiples of one another have coinciding segments. Chords
    thinner than about 1e-13 of a face, which float64 cannot tell from none, are left out.

    Attributes
    ----------
    layers
        The hidden layers of which these are the segments, ascending, from 0.
    segments
        The end points of each, in the coordinates of the slice; float64 `[M, 2, 2]`.
    layer, unit, boundary
        int64 `[M]`: whose boundary each segment is, and which of the activation's boundaries, from 0.
    corners
        Those of all faces, counter-clockwise, one face after the other; float64 `[I, 2]`.
    offsets
        Face i has the corners `offsets[i]` to `offsets[i + 1]`; int64 `[F + 1]`. The faces are convex and tile the square.
    """

    layers: tuple[int, ...]
    segments: Tensor
    layer: Tensor
    unit: Tensor
    boundary: Tensor
    corners: Tensor
    offsets: Tensor

    @property
    def faces(self) -> int:
        """How many faces there are, if kept: F. In each the codes of all layers up to the last of `layers` are constant."""
        return len(self.offsets) - 1

    @property
    def areas(self) -> Tensor:
        """The faces' areas, in the coordinates of the slice; they sum to 4. float64 `[F]`."""
        return self._areas_and_moments()[0]

    @property
    def centroids(self) -> Tensor:
        """The faces' centroids; float64 `[F, 2]`."""
        areas, moments = self._areas_and_moments()
        first = self.corners[self.offsets[:-1]]
        return first + moments / torch.where(areas == 0, 1.0, areas).unsqueeze(1)

    def _areas_and_moments(self) -> tuple[Tensor, Tensor]:
        """Return areas, and moments about each face's first corner: near it, or thin faces would lose their digits."""
        lengths = self.offsets.diff()
        if not len(lengths):  # they were not kept
            return torch.zeros(0, dtype=torch.float64), torch.zeros(0, 2, dtype=torch.float64)
        here = self.corners - self.corners[self.offsets[:-1]].repeat_interleave(lengths, 0)
        next_ = here.roll(-1, 0)
        next_[self.offsets[1:] - 1] = 0.0  # the first corner is the origin
        twice = here[:, 0] * next_[:, 1] - here[:, 1] * next_[:, 0]
        each = torch.cat([twice.unsqueeze(1) / 2, twice.unsqueeze(1) * (here + next_) / 6], 1)
        sums = torch.segment_reduce(each, "sum", lengths=lengths)
        return sums[:, 0], sums[:, 1:]

    def distance(self, points: Tensor) -> Tensor:
        """
        Return how far each of `points` `[n, 2]` is from the nearest segment, exactly; infinite if there is none. float64 `[n]`.

        Points and distances are in the coordinates of the slice, such as its `anchors`.

        Raises
        ------
        InvalidInputError
            `points` is no floating-point tensor `[n, 2]`.
        """
        if not isinstance(points, Tensor) or not points.is_floating_point() or points.ndim != 2 or points.shape[1] != 2:
            got = f"{points.dtype} {list(points.shape)}" if isinstance(points, Tensor) else type(points).__name__
            raise InvalidInputError(f"points must be a floating-point tensor of coordinates [n, 2]; got {got}")
        nearest = torch.full((len(points),), math.inf, dtype=torch.float64)
        if not len(self.segments):
            return nearest
        for part in torch.split(self.segments, max(1, PAIRS // max(1, len(points)))):
            nearest = torch.minimum(nearest, _distances(points.cpu().double(), part).amin(1))
        return nearest


@dataclass(frozen=True, eq=False)
class SampledBoundaries:
    """
    Where codes differ between neighbours on a grid of R x R points over a slice.

    The points are the centres of R x R pixels that tile the square. Rows belong to the second coordinate and columns to the
    first, both ascending: images are drawn with the origin below.

    Attributes
    ----------
    layers
        The hidden layers whose codes were compared, ascending, from 0.
    across
        How much the codes of each pixel and the next of its row differ: ||c - c'||_1 over all units; int32 `[R, R - 1]`.
    along
        The same for each pixel and the next of its column; int32 `[R - 1, R]`.
    """

    layers: tuple[int, ...]
    across: Tensor
    along: Tensor

    @property
    def pixels(self) -> Tensor:
        """Which pixels have another code than the next of their row or of their column; bool `[R, R]`."""
        R = len(self.across)
        marked = torch.zeros(R, R, dtype=torch.bool)
        marked[:, :-1] |= self.across > 0
        marked[:-1] |= self.along > 0
        return marked


def boundaries(
    model: MLP,
    slice: Slice,  # noqa: A002  the paper's word
    *,
    layer: int | str = -1,
    method: str = "exact",
    resolution: int = 1024,
    faces: bool = True,
    most_faces: int | None = None,
) -> ExactBoundaries | SampledBoundaries:
    """
    Return where the codes of a hidden layer's units change on a slice (paper, S3, A.5.3, Figure 3).

    Parameters
    ----------
    model
        An `MLP` of at least one hidden layer.
    slice
        The plane, through three points `[D]`.
    layer
        A hidden layer, 0 to L - 2, or from the end: -1 is the last hidden layer, as in the paper. `all` takes every one.
    method
        `exact`, for activations of linear pieces, in float64; or `sampled`, on a grid, in the type of the weights.
    resolution
        The grid has so many points along each coordinate; the paper's 2^20 points are 1024 x 1024.
    faces
        Whether `exact` keeps the faces, of which there are far more than segments of one layer. Without them there are none in
        what is returned.
    most_faces
        Where to end: deep networks of large weights that saturate on both sides have more faces than any memory holds, before
        any training. None: nowhere.

    Returns
    -------
    ExactBoundaries or SampledBoundaries
        According to the method.

    Raises
    ------
    InvalidInputError
        An argument is not as above.
    TooManyRegionsError
        There are more than `most_faces`.
    """
    _check_network(model, slice)
    if most_faces is not None and (isinstance(most_faces, bool) or not isinstance(most_faces, int) or most_faces < 1):
        raise InvalidInputError(f"most_faces must be a whole number of at least 1, or None; got {most_faces!r}")
    if method not in METHODS:
        raise InvalidInputError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    layers = _layers(layer, len(model.weights) - 1)
    if method == "sampled":
        return _sampled(model, slice, layers, _checked_resolution(resolution))
    if model.activation == "tanh":
        raise InvalidInputError("method 'exact' needs an activation of linear pieces; tanh has none: use 'sampled'")
    return _exact(model, slice, layers, faces, most_faces)


@torch.no_grad()
def class_map(model: MLP, slice: Slice, resolution: int = 1024) -> Tensor:  # noqa: A002  as in `boundaries`
    """
    Return the class that a network predicts at each point of the grid of `SampledBoundaries`; int64 `[R, R]`.

    Parameters
    ----------
    model
        An `MLP`, of any depth.
    slice, resolution
        As in `boundaries`.

    Raises
    ------
    InvalidInputError
        An argument is not as above.
    """
    _check_network(model, slice, hidden=0)
    grid = _Grid(model, slice, _checked_resolution(resolution))
    classes = torch.empty(grid.resolution, grid.resolution, dtype=torch.int64)
    for rows in grid.bands():
        *_, logits = grid.preactivations(rows)
        classes[rows] = logits.argmax(2).cpu()
    return classes


@torch.no_grad()
def _sampled(model: MLP, plane: Slice, layers: tuple[int, ...], resolution: int) -> SampledBoundaries:
    grid = _Grid(model, plane, resolution)
    across = torch.zeros(resolution, resolution - 1, dtype=torch.int32, device=model.weights[0].device)
    along = torch.zeros(resolution - 1, resolution, dtype=torch.int32, device=model.weights[0].device)
    levels = activation(model.activation).boundaries
    before: dict[tuple[int, float], Tensor] = {}  # the row above the band
    for rows in grid.bands():
        for layer, z in zip(range(layers[-1] + 1), grid.preactivations(rows), strict=False):
            if layer not in layers:
                continue
            for level in levels:
                above = z > level
                across[rows] += _differences(above[:, 1:], above[:, :-1])
                with_before = torch.cat([before.get((layer, level), above[:0]), above])
                along[max(rows.start - 1, 0) : rows.stop - 1] += _differences(with_before[1:], with_before[:-1])
                before[layer, level] = above[-1:].clone()
    return SampledBoundaries(layers, across.cpu(), along.cpu())


def _differences(one: Tensor, other: Tensor) -> Tensor:
    """Return in how many units (last dimension) truth values differ."""
    return (one ^ other).sum(-1, dtype=torch.int32)


@torch.no_grad()
def _exact(model: MLP, plane: Slice, layers: tuple[int, ...], keep_faces: bool, most_faces: int | None) -> ExactBoundaries:
    chords: list[tuple[int, Segments]] = []
    sides: list[tuple[int, Segments]] = []
    faces: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = [(np.zeros((0, 2)), np.zeros(0, dtype=np.int64))]
    count = 0
    for piece in arrange(model, _basis(plane), layers[-1]):
        if piece.layer in layers:
            chords.append((piece.layer, piece.chords))
            sides.append((piece.layer, piece.sides))
        count += len(piece.lengths)
        if most_faces is not None and count > most_faces:
            raise TooManyRegionsError(f"the slice has more than {most_faces:,} linear regions, the most that were asked for")
        if keep_faces:
            faces.append((piece.corners, piece.lengths))
    found = [*chords, *_single(sides)]
    return ExactBoundaries(
        layers,
        torch.from_numpy(np.concatenate([segments.ends for _, segments in found])),
        torch.from_numpy(np.concatenate([np.full(len(segments.unit), layer) for layer, segments in found])),
        torch.from_numpy(np.concatenate([segments.unit for _, segments in found])),
        torch.from_numpy(np.concatenate([segments.boundary for _, segments in found])),
        torch.from_numpy(np.concatenate([corners for corners, _ in faces])),
        torch.from_numpy(np.concatenate([[0], *(lengths for _, lengths in faces)]).cumsum()),
    )


def _basis(plane: Slice) -> Tensor:
    """
    Return the plane's basis in float64; of a plane that goes through 0 but for the rounding of its points, of one that does.

    In networks without biases boundaries of all layers meet at 0. A plane that misses it by rounding has regions of that size.
    """
    basis = plane.basis.detach().cpu().double()
    directions = torch.linalg.qr(basis[1:].T).Q
    apart = basis[0] - directions @ (directions.T @ basis[0])
    largest = max(float(point.double().norm()) for point in (plane.x1, plane.x2, plane.x3))
    if float(apart.norm()) > ROUNDING * torch.finfo(plane.x1.dtype).eps * largest:
        return basis
    return torch.cat([(basis[0] - apart)[None], basis[1:]])


def _single(sides: Sequence[tuple[int, Segments]]) -> list[tuple[int, Segments]]:
    """Keep the sides of faces of which one face alone tells, and that are not the square's: see `arrangement.Refinement`."""
    if not any(len(segments.unit) for _, segments in sides):
        return []
    ends = np.concatenate([segments.ends for _, segments in sides])
    layer = np.concatenate([np.full(len(segments.unit), number) for number, segments in sides])
    unit, boundary = (np.concatenate([getattr(one, name) for _, one in sides]) for name in ("unit", "boundary"))
    rim = ((abs(ends[:, 0]) == 1) & (ends[:, 0] == ends[:, 1])).any(1)
    # The two faces at a side go along it in opposite directions: its middle is the same.
    middle = np.round(ends.mean(1) / SAME_SIDE)
    _, first, count = np.unique(np.column_stack([layer, unit, boundary, middle]), axis=0, return_index=True, return_counts=True)
    keep = first[(count == 1) & ~rim[first]]
    return [
        (int(number), Segments(ends[own], unit[own], boundary[own]))
        for number in np.unique(layer[keep])
        for own in [keep[layer[keep] == number]]
    ]


def _distances(points: Tensor, segments: Tensor) -> Tensor:
    """Return the distances of `points` `[n, 2]` from `segments` `[M, 2, 2]`; `[n, M]`."""
    start, direction = segments[:, 0], segments[:, 1] - segments[:, 0]
    length = direction.square().sum(1)
    apart = points.unsqueeze(1) - start
    nearest = ((apart * direction).sum(2) / torch.where(length == 0, 1.0, length)).clamp(0.0, 1.0)
    distances: Tensor = (apart - nearest.unsqueeze(2) * direction).norm(dim=2)
    return distances


class _Grid:
    """The network's pre-activations at the centres of pixels, some rows at a time."""

    def __init__(self, model: MLP, plane: Slice, resolution: int) -> None:
        self.resolution = resolution
        self._weights = [weight.detach() for weight in model.weights]
        self._apply_ = activation(model.activation).apply_
        self._plane = plane
        first = self._weights[0]
        self._first = (_basis(plane).to(first.device) @ first.double().T).to(first.dtype)
        self._axis = (torch.arange(resolution, dtype=torch.float64, device=first.device) * 2 + 1) / resolution - 1

    def bands(self) -> list[slice]:
        """Return the rows in parts, as many at once as `BAND` allows."""
        size = max(1, BAND // (self.resolution * max(len(weight) for weight in self._weights)))
        return [slice(start, min(start + size, self.resolution)) for start in range(0, self.resolution, size)]

    def preactivations(self, rows: slice) -> Iterator[Tensor]:
        """
        Yield the pre-activations of each layer, the logits last, at the points of these rows; `[rows, R, W]`.

        The next layer overwrites them.
        """
        count = rows.stop - rows.start
        coordinates = torch.cartesian_prod(self._axis[rows], self._axis).flip(1)
        z = self._plane.combine(self._first, coordinates)
        for weight in self._weights[1:]:
            yield z.view(count, self.resolution, -1)
            z = self._apply_(z) @ weight.T
        yield z.view(count, self.resolution, -1)


def _check_network(model: MLP, plane: Slice, *, hidden: int = 1) -> None:
    if not isinstance(model, MLP):
        raise InvalidInputError(f"model must be an MLP; got {type(model).__name__}")
    if len(model.weights) <= hidden:
        raise InvalidInputError("model must have a hidden layer; it has one weight matrix")
    if not all_finite(as_stack(model).weights).all():
        raise InvalidInputError("the model's weights must be finite; some are not")
    if not isinstance(plane, Slice):
        raise InvalidInputError(f"slice must be a Slice; got {type(plane).__name__}")
    inputs = model.weights[0].shape[1]
    if list(plane.x1.shape) != [inputs]:
        raise InvalidInputError(f"slice must be through points [{inputs}]; got {list(plane.x1.shape)}")


def _layers(layer: object, hidden: int) -> tuple[int, ...]:
    """Return the numbers of the hidden layers that are meant, ascending, or raise InvalidInputError."""
    if layer == "all":
        return tuple(range(hidden))
    if isinstance(layer, bool) or not isinstance(layer, int) or not -hidden <= layer < hidden:
        raise InvalidInputError(f"layer must be 'all' or a hidden layer, {-hidden} to {hidden - 1}; got {layer!r}")
    return (layer % hidden,)


def _checked_resolution(resolution: object) -> int:
    if isinstance(resolution, bool) or not isinstance(resolution, int) or resolution < 1:
        raise InvalidInputError(f"resolution must be a whole number of at least 1; got {resolution!r}")
    return resolution
