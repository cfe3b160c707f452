r"""
The boundaries of hidden units on a slice through the input space (paper, S3, S4.1, A.5.3, Figure 3).

A unit's code at a point is the number of its activation's boundaries strictly below its pre-activation; for a maximum of several,
as in max-pooling, it is the number of the winner. A boundary is where the code changes. `exact` finds the straight pieces of all
boundaries and the faces between them (`faces/arrangement.py`), for any piecewise-linear model; `sampled` compares the codes of
neighbours on a grid, for any model whose activations `ModuleCodes` knows.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...errors import InvalidInputError, TooManyRegionsError, check_whole_number, counted, described, dimensions
from ...evaluation import all_finite
from ...models.adapting import as_model_takes, check_mode, shape_taken, unwrapped
from ...networks import MLP, MLPStack, as_stack
from ...paths import Slice
from .faces.arrangement import arrange
from .faces.lines import Segments
from .graph import Graph, stack_graph
from .modules.exporting import module_graph
from .pixels import Model, differences, plane_basis, points_of, tiles

METHODS = ("exact", "sampled")
# Point-segment pairs at once.
PAIRS = 2**20
# Two faces tell of one side with coordinates that differ in the last bits only; sides this near one another are one.
SAME_SIDE = 2.0**-30


@dataclass(frozen=True, eq=False)
class ExactBoundaries:
    """
    The boundaries of some layers on a slice, and the linear regions of the model up to the last of these layers.

    A layer is a call of an activation, maxima such as max-pooling among them; for an `MLP` it is a hidden layer.

    A segment is straight, and whole within one region of the layers below its own. In a generic network it is met by another
    segment only at its ends, or where the two cross; units that are multiples of one another have coinciding segments. Chords
    thinner than about 1e-13 of a face, which float64 cannot tell from none, are left out.

    Attributes
    ----------
    layers
        The layers of which these are the segments, ascending, from 0.
    segments
        The end points of each, in the coordinates of the slice; float64 `[M, 2, 2]`.
    layer, unit, boundary
        int64 `[M]`: whose boundary each segment is, and which of the activation's boundaries, from 0. The units of one layer are
        numbered as in `flatten`. A maximum has one boundary, 0: where another of its candidates wins.
    corners
        The corners of all faces, counter-clockwise, one face after the other; float64 `[I, 2]`.
    offsets
        Face i has the corners `offsets[i]` to `offsets[i + 1]`; int64 `[F + 1]`. The faces are convex and tile the square.
    names
        The names of `layers`, as in `TransitionCount.names`.
    """

    layers: tuple[int, ...]
    segments: Tensor
    layer: Tensor
    unit: Tensor
    boundary: Tensor
    corners: Tensor
    offsets: Tensor
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        segments, layers, faces = len(self.segments), len(self.layers), self.faces
        return f"ExactBoundaries({counted(segments, 'segment')} of {counted(layers, 'layer')}, {counted(faces, 'face')})"

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
            raise InvalidInputError(f"points must be a floating-point tensor of coordinates [n, 2]; got {described(points)}")
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
        The layers whose codes were compared, ascending, from 0.
    across
        How much the codes of each pixel and the next of its row differ: ||c - c'||_1 over all units; int32 `[R, R - 1]`.
    along
        The same for each pixel and the next of its column; int32 `[R - 1, R]`.
    names
        The names of `layers`: as in `ExactBoundaries` for an `MLP`, as in `ModuleCodes` for another model.
    """

    layers: tuple[int, ...]
    across: Tensor
    along: Tensor
    names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        pixels = dimensions([len(self.across)] * 2)
        return f"SampledBoundaries({pixels} pixels, {counted(len(self.layers), 'layer')})"

    @property
    def pixels(self) -> Tensor:
        """Which pixels have another code than the next of their row or of their column; bool `[R, R]`."""
        R = len(self.across)
        marked = torch.zeros(R, R, dtype=torch.bool)
        marked[:, :-1] |= self.across > 0
        marked[:-1] |= self.along > 0
        return marked


def boundaries(
    model: Model,
    slice: Slice,  # noqa: A002  the paper's word
    *,
    layer: int | str = -1,
    method: str = "exact",
    resolution: int = 1024,
    faces: bool = True,
    most_faces: int | None = None,
) -> ExactBoundaries | SampledBoundaries:
    """
    Return where the codes of a layer's units change on a slice (paper, S3, A.5.3, Figure 3).

    Parameters
    ----------
    model
        An `MLP` of at least one hidden layer, or any module or callable that maps points `[n, ...]` to outputs, each from its own
        point alone.
    slice
        The plane, through three points `[D]` or `[channels, height, width]`, as the model takes them.
    layer
        Which call of an activation, from 0 in the order in which the model calls them, or from the end: -1 is the last, as in the
        paper. `all` takes every one. For `exact`, maxima such as max-pooling are activations, too; `sampled` does not count them.
        For an `MLP` it is a hidden layer, 0 to L - 2.
    method
        `exact`, for piecewise-linear models, in float64. A module is read as a graph by `torch.export` once, and remembered; its
        parameters are read each time. Or `sampled`: on a grid, in the type of the weights.
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
        An argument is not as above; `exact` names the operation that is not piecewise linear, and says where it is.
    TooManyRegionsError
        There are more than `most_faces`.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sensitometer import boundaries, paths
    >>> model = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2))
    >>> model[0].weight.data, model[0].bias.data = torch.tensor([[1.0, 0.0]]), torch.tensor([-0.5])
    >>> plane = paths.Slice(torch.tensor([0.0, 0.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    >>> boundaries(model, plane)
    ExactBoundaries(1 segment of 1 layer, 2 faces)
    """
    model = unwrapped(model)
    plane = _checked(model, slice)
    if most_faces is not None:
        most_faces = check_whole_number("most_faces", most_faces)
    if method not in METHODS:
        raise InvalidInputError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if method == "sampled":
        return _sampled(model, plane, layer, check_whole_number("resolution", resolution))
    graph = _graph(model, plane)
    return _exact(graph, plane, _layers(layer, graph.names), faces, most_faces)


@torch.no_grad()
def class_map(model: Model, slice: Slice, resolution: int = 1024) -> Tensor:  # noqa: A002  as in `boundaries`
    """
    Return the class that a model predicts at each point of the grid of `SampledBoundaries`; int64 `[R, R]`.

    Parameters
    ----------
    model
        An `MLP`, of any depth, or any module or callable that maps points `[n, ...]` to `[n, C]`. It is run in its own type.
    slice, resolution
        As in `boundaries`.

    Raises
    ------
    InvalidInputError
        An argument is not as above.
    """
    model = unwrapped(model)
    plane = _checked(model, slice, hidden=0)
    resolution = check_whole_number("resolution", resolution)
    points = points_of(model, plane)
    classes = torch.empty(resolution, resolution, dtype=torch.int64)
    for rows, columns, coordinates in tiles(resolution, points.numbers):
        classes[rows, columns] = points.logits(coordinates).argmax(1).view(rows.stop - rows.start, -1).cpu()
    return classes


@torch.no_grad()
def _sampled(model: Model, plane: Slice, layer: object, resolution: int) -> SampledBoundaries:
    points = points_of(model, plane)
    layers = _layers(layer, points.names)
    across, along = differences(points, layers, resolution)
    return SampledBoundaries(layers, across, along, tuple(points.names[layer] for layer in layers))


def _graph(model: Model, plane: Slice) -> Graph:
    """Return a model of at least one activation as a graph."""
    if isinstance(model, MLP):
        if model.activation == "tanh":
            raise InvalidInputError("method 'exact' needs an activation of linear pieces; tanh has none: use 'sampled'")
        return stack_graph(as_stack(model))
    graph = module_graph(model, torch.stack([plane.x1, plane.x2, plane.x3]))
    if not graph.stages:
        raise InvalidInputError("model must have an activation that depends on its points; it has none, and is affine")
    return graph


@torch.no_grad()
def _exact(graph: Graph, plane: Slice, layers: tuple[int, ...], keep_faces: bool, most_faces: int | None) -> ExactBoundaries:
    inside: list[Segments] = []
    sides: list[Segments] = []
    corners, lengths = [np.zeros((0, 2))], [np.zeros(1, dtype=np.int64)]
    count = 0
    for piece in arrange(graph, plane_basis(plane), layers[-1]):
        if piece.stage in layers:
            inside.append(piece.segments)
            sides.append(piece.sides)
        count += len(piece.lengths)
        if most_faces is not None and count > most_faces:
            raise TooManyRegionsError(f"the slice has more than {most_faces:,} linear regions, the most that were asked for")
        if keep_faces:
            corners.append(piece.corners)
            lengths.append(piece.lengths)
    segments = Segments.joined([*inside, _different(Segments.joined(sides))])
    return ExactBoundaries(
        layers,
        torch.from_numpy(segments.ends),
        torch.from_numpy(segments.layer),
        torch.from_numpy(segments.unit),
        torch.from_numpy(segments.boundary),
        torch.from_numpy(np.concatenate(corners)),
        torch.from_numpy(np.concatenate(lengths).cumsum()),
        tuple(graph.names[layer] for layer in layers),
    )


def _different(sides: Segments) -> Segments:
    """
    Keep the sides of faces along which the codes on both sides differ, once each: see `Refinement.sides`.

    One face alone tells of these, or two do that differ. The sides of the square are none.
    """
    rim = ((abs(sides.ends[:, 0]) == 1) & (sides.ends[:, 0] == sides.ends[:, 1])).any(1)
    # The two faces at a side go along it in opposite directions: its middle is the same.
    middle = np.round(sides.ends.mean(1) / SAME_SIDE)
    names = np.column_stack([sides.layer, sides.unit, sides.boundary, middle])
    _, first, which, count = np.unique(names, axis=0, return_index=True, return_inverse=True, return_counts=True)
    differ = np.zeros(len(first), bool)
    differ[which.reshape(-1)[sides.code != sides.code[first][which.reshape(-1)]]] = True
    return sides.take(first[((count == 1) | differ) & ~rim[first]])


def _distances(points: Tensor, segments: Tensor) -> Tensor:
    """Return the distances of `points` `[n, 2]` from `segments` `[M, 2, 2]`; `[n, M]`."""
    start, direction = segments[:, 0], segments[:, 1] - segments[:, 0]
    length = direction.square().sum(1)
    apart = points.unsqueeze(1) - start
    nearest = ((apart * direction).sum(2) / torch.where(length == 0, 1.0, length)).clamp(0.0, 1.0)
    distances: Tensor = (apart - nearest.unsqueeze(2) * direction).norm(dim=2)
    return distances


def _checked(model: Model, plane: object, *, hidden: int = 1) -> Slice:
    """Return the plane as a plane of the model's inputs, or raise InvalidInputError."""
    if isinstance(model, MLPStack):
        raise InvalidInputError("model must be an MLP; got MLPStack: take one of its networks, such as stack[0]")
    if isinstance(model, MLP):
        if len(model.weights) <= hidden:
            raise InvalidInputError("model must have a hidden layer; it has one weight matrix")
        if not all_finite(as_stack(model).weights).all():
            raise InvalidInputError("the model's weights must be finite; some are not")
    elif not callable(model):
        raise InvalidInputError(f"model must be an MLP, a module or another callable; got {type(model).__name__}")
    if not isinstance(plane, Slice):
        raise InvalidInputError(f"slice must be a Slice; got {type(plane).__name__}")
    if isinstance(model, MLP):
        shape: tuple[int, ...] = (model.weights[0].shape[1],)
        if plane.x1.numel() != shape[0]:
            raise InvalidInputError(f"slice must be through points {list(shape)}; got {list(plane.x1.shape)}")
    else:
        check_mode(model)
        shape = shape_taken(model, as_model_takes(model, torch.stack([plane.x1, plane.x2])))
    return Slice(*(point.reshape(shape) for point in (plane.x1, plane.x2, plane.x3)))


def _layers(layer: object, names: Sequence[str]) -> tuple[int, ...]:
    """Return the numbers of the layers that are meant, ascending, or raise InvalidInputError."""
    count = len(names)
    if layer == "all":
        return tuple(range(count))
    return (check_whole_number("layer, if not 'all',", layer, least=-count, most=count - 1) % count,)
