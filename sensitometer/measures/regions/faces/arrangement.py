r"""
The linear regions of a piecewise-linear model on a square, exactly: convex polygons, and the boundaries between them.

On a face, a convex polygon on which all units of the stages below are on one linear piece, the pre-activations of the next stage
are affine, and so is whatever else is alive: all are known from the face's corners alone. A unit with corners on both sides of a
boundary cuts the face along a straight line. The faces of one stage are cut by all their lines at once, in rounds: in each,
every piece that lines still cross is cut along the first, and hands each other one down to the parts that it crosses. For units
that are the largest of several pre-activations, see `winners.py`.

- Corners are shared, by the faces on both sides of an edge and by the four around a crossing: one row of one matrix product per
  corner and stage. A generic arrangement has about as many corners as faces.
- A vertex where a line starts, ends or crosses another is named by who meets there: an edge and a boundary, or two lines. Pieces
  that come upon one corner in different rounds agree on it, and it is computed once, always in the same way.
- A corner on a boundary belongs to both sides. A line that would cut off less than `TOLERANCE` of its face's extent, or less
  than rounding leaves unknown, touches the face, and does not cut it.
- Pre-activations that rounding cannot tell from a boundary are put exactly on it, so that the stages above see no noise: in a
  network without biases all boundaries of a slice through 0 meet there, and units that are alike cancel.
- When a stage has made many faces they are parted into patches, and each is taken through all further stages before the next is
  begun: memory is bounded by the patch and the number of stages, beside the result.

All is float64.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ....errors import InvalidInputError
from ..graph import Elementwise, Graph, Linear, Stage
from .lines import Segments
from .polygons import Array, Polygons
from .refinement import Refinement, refine

# 128 units in the last place, of the sum of the sizes of the terms of a pre-activation. A product leaves a few, and the
# interpolations and stages below add theirs: 16 were too few for some networks of whole numbers, five layers deep.
ROUNDING = 2.0**-45
# Numbers that are alive at the corners of a patch, 8 MiB: a few such arrays are alive in each stage.
PATCH = 2**20
# Counter-clockwise, as all polygons are.
SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


class Piece(NamedTuple):
    """The results of a patch in one stage: segments, sides of faces at a boundary (`Refinement.sides`), in the last one faces."""

    stage: int
    segments: Segments
    sides: Segments
    lengths: Array  # [F]
    corners: Array  # [I, 2]


def arrange(graph: Graph, basis: Tensor, last: int) -> Iterator[Piece]:
    """
    Cut the square along the boundaries of stages 0 to `last` of a model, and yield the results, piece by piece.

    `basis` `[3, ...]` holds the plane's point 0 and its two axes.
    """
    basis = basis.detach().cpu().double()
    corners = torch.from_numpy(np.insert(SQUARE, 0, 1.0, axis=1)) @ basis.flatten(1)
    values = graph.through(graph.stages[0], {graph.input: corners.view(4, *basis.shape[1:])})
    square, largest = Polygons(np.array([4]), np.arange(4)), basis.abs().sum(0).flatten().numpy()
    yield from _descend(graph, 0, last, _refined(graph, 0, values, SQUARE, square, largest))


def _descend(graph: Graph, place: int, last: int, refined: Refinement) -> Iterator[Piece]:
    """Yield the results of the faces of one stage and, patch by patch, of all further stages."""
    faces = refined.faces if place == last else refined.faces.take(np.arange(0))
    yield Piece(place, refined.segments, refined.sides, faces.lengths, refined.xy[faces.corners])
    if place == last:
        return
    stage, above = graph.stages[place : place + 2]
    # The corners before the cut have the extremes, and an activation has its own at these.
    extremes = stage.pieces(torch.from_numpy(np.stack([refined.z.max(0), refined.z.min(0)])))
    largest = extremes.abs().amax(0).numpy()
    for patch in refined.patches(max(1, PATCH // max(stage.width, above.width))):
        yield from _descend(graph, place + 1, last, _next_stage(graph, place, refined, patch, largest))


def _next_stage(graph: Graph, place: int, refined: Refinement, patch: Array, largest: Array) -> Refinement:
    """Take a patch of the faces of a stage through its operation, and cut it in the stage above."""
    stage, above = graph.stages[place : place + 2]
    vertices, faces = refined.faces.take(patch).compact()
    values = graph.through(above, _results(stage, refined, vertices))
    return _refined(graph, place + 1, values, refined.xy[vertices], faces, largest)


def _results(stage: Stage, refined: Refinement, vertices: Array) -> dict[str, Tensor]:
    """Return the values that are alive behind a stage, at vertices of its faces."""
    rows = {name: torch.from_numpy(values) for name, values in refined.rows(vertices).items()}
    z = rows[stage.source].flatten(1)
    # In the same memory: with more of it in use at once, the processes grow.
    overwrite = stage.source not in stage.alive
    result = stage.pieces(z, overwrite=overwrite) if isinstance(stage.pieces, Elementwise) else stage.pieces(z)
    return {**{name: rows[name] for name in stage.alive}, stage.result: result.view(-1, *stage.shape)}


def _refined(graph: Graph, place: int, values: Mapping[str, Tensor], xy: Array, faces: Polygons, largest: Array) -> Refinement:
    """Cut faces in one stage, from the values at their corners and the `largest` sizes of the inputs of its affine map."""
    stage = graph.stages[place]
    arrays = {name: value.contiguous().numpy() for name, value in values.items()}
    rounding = _rounding(stage, arrays[stage.source], largest)
    if isinstance(stage.pieces, Elementwise) and stage.pieces.apart <= 4 * float(rounding.max()):
        raise InvalidInputError(
            f"the model's weights are too large: float64 cannot tell boundaries at {stage.name} that are "
            f"{stage.pieces.apart:g} apart from one another; scale the weights down"
        )
    return refine(place, arrays, stage.source, xy, faces, stage.pieces, rounding)


def _rounding(stage: Stage, z: Array, largest: Array) -> Array:
    """
    Return how far the pre-activations `z` `[V, ...]` may be from what they would be without rounding; `[W]`.

    For one matrix product that is in proportion to the sum of the sizes of its terms, for the `largest` sizes of its inputs. The
    terms of other affine maps are not known: there it is in proportion to the largest of all pre-activations.
    """
    if isinstance(stage.affine, Linear):
        error = stage.affine.weights[0].abs().numpy().T @ largest
        if stage.affine.bias is not None:
            error += stage.affine.bias[0].abs().numpy()
        return ROUNDING * error
    return np.full(z[0].size, ROUNDING * max(float(z.max()), -float(z.min())))
