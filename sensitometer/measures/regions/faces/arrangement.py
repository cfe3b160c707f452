r"""
The linear regions of a network on a square, exactly: convex polygons, and the boundaries between them.

On a face, a convex polygon on which all units of the layers below are on one linear piece, the pre-activations of the next layer
are affine, and are known from the face's corners alone. A unit with corners on both sides of a boundary cuts the face along a
straight *chord*. The faces of one layer are cut by all their chords at once, in rounds: in each, every piece that still has
chords to be cut along is cut along the first, and hands each other one down to the parts that it crosses.

- Corners are shared, by the faces on both sides of an edge and by the four around a crossing: one row of one matrix product a
  corner and layer. A generic arrangement has about as many corners as faces.
- Where a chord starts, ends or crosses another is named by who meets there: an edge and a boundary, or two chords. Pieces that
  come upon one corner in different rounds agree on it, and it is computed once, always in the same way.
- A corner on a boundary belongs to both sides. A chord that would cut off less than `TOLERANCE` of its face's extent touches the
  face, and does not cut it.
- What rounding cannot tell from being on a boundary is put exactly on it, so that the layers above see no noise: in a network
  without biases all boundaries of a slice through 0 meet there, and units that are alike cancel.
- When a layer has made many faces they are parted into patches, and each is taken through all further layers before the next is
  begun: memory is bounded by the patch and the number of layers, beside what is returned.

All is float64.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ....activations import activation
from ....networks import MLP
from .cutting import TOLERANCE, Chords, cut
from .polygons import Array, Polygons, following, mix, over, ranges, starts, two_sided

# 128 units in the last place, of the sum of the sizes of the terms of a pre-activation. A product leaves a few, and the
# interpolations and layers below add theirs: 16 were too few for some networks of whole numbers, five layers deep.
ROUNDING = 2.0**-45
# Pre-activations in a patch, 8 MiB: a few such arrays are alive in each layer.
PATCH = 2**20
# Counter-clockwise, as all polygons are.
SQUARE = np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])


@dataclass(frozen=True)
class Segments:
    """Straight pieces of boundaries: end points `[M, 2, 2]`, and the unit and which of its boundaries, `[M]`."""

    ends: Array
    unit: Array
    boundary: Array


@dataclass(frozen=True)
class Piece:
    """What one patch gives in one layer: chords; sides of faces at a boundary (`Refinement.sides`); in the last layer, faces."""

    layer: int
    chords: Segments
    sides: Segments
    lengths: Array  # [F]
    corners: Array  # [I, 2]


def arrange(model: MLP, basis: Tensor, last: int) -> Iterator[Piece]:
    """
    Cut the square along the boundaries of layers 0 to `last`, and yield what comes of it, piece by piece.

    `basis` `[3, D]` holds the plane's point 0 and its two axes.
    """
    weights = [weight.detach().cpu().double() for weight in model.weights]
    kind = activation(model.activation)
    nonnegative = kind.clamp is not None and kind.clamp[1] >= 0

    def rounding(weight: Tensor, largest: Tensor) -> Array:
        error: Array = (ROUNDING * (weight.abs() @ largest)).numpy()
        return error

    def through(weight: Tensor, refined: Refinement, patch: Array, error: Array) -> Refinement:
        vertices, faces = refined.faces.take(patch).compact()
        h = kind.apply_(torch.from_numpy(refined.rows(vertices)))
        return refine((h @ weight.T).numpy(), refined.xy[vertices], faces, kind.boundaries, error)

    def descend(layer: int, refined: Refinement) -> Iterator[Piece]:
        yield refined.piece(layer, with_faces=layer == last)
        if layer < last:
            weight = weights[layer + 1]
            # The activations are monotone, and the corners before the cut have the extremes.
            extremes = [refined.z.max(0)] if nonnegative else [refined.z.max(0), refined.z.min(0)]
            error = rounding(weight, kind.apply_(torch.from_numpy(np.stack(extremes))).abs().amax(0))
            for patch in refined.patches(max(1, PATCH // max(weight.shape))):
                yield from descend(layer + 1, through(weight, refined, patch, error))

    basis = basis.detach().cpu().double()
    z = (torch.from_numpy(np.insert(SQUARE, 0, 1.0, axis=1)) @ (basis @ weights[0].T)).numpy()
    square = Polygons(np.array([4]), np.arange(4))
    yield from descend(0, refine(z, SQUARE, square, kind.boundaries, rounding(weights[0], basis.abs().sum(0))))


@dataclass(frozen=True)
class Between:
    """
    Vertices between two others: `share` `[n]` of the way from `start` to `end` `[n]`.

    Each is on a boundary of one of `units`, or of two: at `levels`, alike.
    """

    start: Array
    end: Array
    share: Array
    units: Sequence[Array]
    levels: Sequence[Array]

    def coordinates(self, xy: Array) -> Array:
        """Return their coordinates, from those of the vertices before them."""
        return mix(xy[self.start], xy[self.end], self.share[:, None])

    def rows(self, start: Array, end: Array, which: Array) -> Array:
        """Return the pre-activations at `which` of them, from those at their starts and ends, overwritten; `[n, W]`."""
        z = end
        # `mix`, in place: fresh memory of this size costs as much as the arithmetic.
        z -= start
        z *= self.share[which, None]
        z += start
        for unit, level in zip(self.units, self.levels, strict=True):
            z[np.arange(len(which)), unit[which]] = level[which]
        return z


@dataclass(frozen=True)
class Refinement:
    """
    The faces of one layer, cut along its chords.

    Vertices are numbered: first the corners of the faces before the cut, with the pre-activations `z` `[V, W]`, then ends of
    chords inside edges, then crossings of chords; `xy` are the coordinates of all. `meetings` are a vertex, a unit and a level
    each, wherever a chord goes through a vertex that others have named. `sides` are sides of faces before the cut
    along which a unit is exactly at a boundary while the face is above it: start, end, unit, boundary. Unless the face behind it
    is above as well, that is a boundary that no chord shows.
    """

    z: Array
    xy: Array
    chords: Chords
    sides: Array  # [4, n]
    on_edges: Between
    crossings: Between
    meetings: tuple[Array, Array, Array]
    faces: Polygons

    def piece(self, layer: int, *, with_faces: bool) -> Piece:
        """Return the segments, and the faces."""
        chords = Segments(self.xy[self.chords.ends], self.chords.unit, self.chords.boundary)
        start, end, unit, boundary = self.sides
        sides = Segments(np.stack([self.xy[start], self.xy[end]], 1), unit, boundary)
        faces = self.faces if with_faces else self.faces.take(np.arange(0))
        return Piece(layer, chords, sides, faces.lengths, self.xy[faces.corners])

    def rows(self, vertices: Array) -> Array:
        """Return the pre-activations at `vertices`, which are in ascending order; `[n, W]`."""
        old, simple = len(self.z), len(self.z) + len(self.on_edges.share)
        which = vertices[vertices >= simple] - simple
        start, end = self.crossings.start[which], self.crossings.end[which]
        here = vertices[vertices < simple]
        needed = np.unique(np.concatenate([here, start, end]))
        on_edge = needed[needed >= old] - old
        z = self.on_edges.rows(self.z[self.on_edges.start[on_edge]], self.z[self.on_edges.end[on_edge]], on_edge)
        z = self._met(np.concatenate([self.z[needed[needed < old]], z]), needed)
        if not len(which):
            return z
        start, end, here = (np.searchsorted(needed, some) for some in (start, end, here))
        return self._met(np.concatenate([z[here], self.crossings.rows(z[start], z[end], which)]), vertices)

    def _met(self, z: Array, vertices: Array) -> Array:
        """Put the pre-activations `z` at `vertices`, ascending, on the levels of `meetings`."""
        met, unit, level = self.meetings
        row = np.searchsorted(vertices, met)
        there = np.flatnonzero(vertices[np.minimum(row, len(vertices) - 1)] == met)
        z[row[there], unit[there]] = level[there]
        return z

    def patches(self, size: int) -> Iterator[Array]:
        """Yield the numbers of the faces in compact parts of at most `size`, halving the longer extent."""
        if len(self.faces.lengths) <= size:
            yield np.arange(len(self.faces.lengths))
            return
        sums = np.add.reduceat(self.xy[self.faces.corners], starts(self.faces.lengths))
        centres = sums / self.faces.lengths[:, None]
        waiting = [np.arange(len(centres))]
        while waiting:
            part = waiting.pop()
            if len(part) <= size:
                yield part
                continue
            axis = np.ptp(centres[part], axis=0).argmax()
            order = np.argpartition(centres[part, axis], len(part) // 2)
            waiting += [part[order[len(part) // 2 :]], part[order[: len(part) // 2]]]


def refine(z: Array, xy: Array, faces: Polygons, levels: Sequence[float], rounding: Array) -> Refinement:
    """
    Cut `faces`, with the vertices `xy` `[V, 2]`, where the pre-activations `z` `[V, W]` of a unit are at one of the levels.

    What is within `rounding` `[W]` of a level, or within a face's tolerance, is put on it in `z`.
    """
    face, unit, boundary, sides = _crossing_units(z, faces, levels, rounding)
    level = np.array(levels)[boundary]
    lengths = faces.lengths[face]
    corner = faces.corners[ranges(starts(faces.lengths)[face], lengths)]
    values = z[corner, np.repeat(unit, lengths)] - np.repeat(level, lengths)
    extent = over(np.maximum, abs(values), lengths)
    stray = np.flatnonzero((abs(values) <= np.repeat(TOLERANCE * extent, lengths)) & (values != 0))
    if len(stray):  # the other faces at these corners are to see the same
        z[corner[stray], np.repeat(unit, lengths)[stray]] = np.repeat(level, lengths)[stray]
        return refine(z, xy, faces, levels, rounding)
    keep = two_sided(values, lengths)
    wide = np.repeat(keep, lengths)
    values, corner = values[wide], corner[wide]
    face, unit, boundary, level, extent, lengths = (each[keep] for each in (face, unit, boundary, level, extent, lengths))
    ends, on_edges = _ends(z, values, corner, lengths, unit, boundary, level)
    chords = Chords(face, unit, boundary, level, extent, ends)
    pieces, pairs, met = cut(faces, chords, values, len(z) + len(on_edges.share))
    crossings = _crossings(z, on_edges, chords, pairs)
    xy = np.concatenate([xy, on_edges.coordinates(xy)])
    xy = np.concatenate([xy, crossings.coordinates(xy)])
    meetings = met[:, 0], unit[met[:, 1]], level[met[:, 1]]
    return Refinement(z, xy, chords, sides, on_edges, crossings, meetings, pieces)


def _crossing_units(z: Array, faces: Polygons, levels: Sequence[float], rounding: Array) -> tuple[Array, Array, Array, Array]:
    """
    Return face, unit and boundary wherever a face has corners on both sides, ordered by face; and `Refinement.sides`.

    Puts what is within `rounding` of a level on it.
    """
    above, below, at = _told(z, levels, rounding)
    first = starts(faces.lengths)
    face_above = np.bitwise_or.reduceat(above[faces.corners], first)
    both = face_above & np.bitwise_or.reduceat(below[faces.corners], first)
    face, boundary, unit = _set_bits(both, len(levels))
    sides = np.empty((4, 0), np.int64)
    if at.any():
        start, end = faces.corners, faces.corners[following(faces.lengths)]
        side, which, own = _set_bits(at[start] & at[end] & np.repeat(face_above, faces.lengths, axis=0), len(levels))
        sides = np.stack([start[side], end[side], own, which])
    return face, unit, boundary, sides


def _told(z: Array, levels: Sequence[float], rounding: Array) -> tuple[Array, Array, Array]:
    """Return where `z` is above, below and at the levels, as `_bits` does; what is within `rounding` of one is put on it."""

    def compared(margin: float) -> tuple[Array, Array, Array]:
        above, below = (_bits([z > level + margin for level in levels]), _bits([z < level - margin for level in levels]))
        return above, below, ~(above | below) & _bits([np.ones((1, z.shape[1]), bool)] * len(levels))

    # With one margin for all units, which is too large for most, it is quick to see that there is nothing to be put.
    above, below, at = compared(float(rounding.max()))
    if not at.any():
        return above, below, at
    corner, boundary, unit = _set_bits(at, len(levels))
    level = np.array(levels)[boundary]
    near = abs(z[corner, unit] - level) <= rounding[unit]
    z[corner[near], unit[near]] = level[near]
    return compared(0.0)


def _bits(truths: Sequence[Array]) -> Array:
    """Return truth values, one `[n, W]` a boundary, as bits in `[n, boundaries * words]`: 64 units are compared at once."""
    spare = -truths[0].shape[1] % 64
    packed = [np.pad(np.packbits(truth, axis=1), [(0, 0), (0, spare // 8)]) for truth in truths]
    return np.concatenate(packed, axis=1).view(np.uint64)


def _set_bits(words: Array, boundaries: int) -> tuple[Array, Array, Array]:
    """Return row, boundary and unit of each bit that is set, in this order."""
    row, column = np.nonzero(words)
    which, bit = np.nonzero(np.unpackbits(words[row, column, None].view(np.uint8), axis=1))
    boundary, word = np.divmod(column[which], words.shape[1] // boundaries)
    return row[which], boundary, 64 * word + bit


def _ends(
    z: Array, values: Array, corner: Array, lengths: Array, unit: Array, boundary: Array, level: Array
) -> tuple[Array, Between]:
    """Return the ends of chords `[C, 2]`, from the values at the corners of the face of each, and those inside edges."""
    next_ = following(lengths)
    ends, found = [], []
    for sign in (1, -1):
        ahead = sign * values > 0
        at = np.flatnonzero(ahead & ~ahead[next_])  # one a chord, as `two_sided` has seen to
        inside = values[next_[at]] != 0
        ends.append(np.where(inside, -1, corner[next_[at]]))
        # From below to above, whichever of the two faces at this edge is asked.
        low, high = (next_[at[inside]], at[inside])[::sign]
        found.append((corner[low], corner[high], np.flatnonzero(inside)))
    low, high, chord = (np.concatenate(parts) for parts in zip(*found, strict=True))
    key = ((low * len(z) + high) * z.shape[1] + unit[chord]) * 2 + boundary[chord]  # no activation has three boundaries
    _, first, name = np.unique(key, return_index=True, return_inverse=True)
    name = name.reshape(-1) + len(z)
    half = len(found[0][2])
    ends[0][found[0][2]], ends[1][found[1][2]] = name[:half], name[half:]
    low, high, own, at_level = low[first], high[first], unit[chord[first]], level[chord[first]]
    below = at_level - z[low, own]
    return np.stack(ends, 1), Between(low, high, below / (z[high, own] - z[low, own]), [own], [at_level])


def _crossings(z: Array, on_edges: Between, chords: Chords, pairs: Array) -> Between:
    """Return the vertices where the first chord of each of `pairs` `[n, 2]` is crossed by the second."""
    along, across = pairs.T
    unit, level = chords.unit[across], chords.level[across]
    start, end = chords.ends[along].T
    low, high = (_value(z, on_edges, vertex, unit) for vertex in (start, end))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Two chords that meet at a nearly common end may not cross in the last bits.
        share = np.nan_to_num(np.clip((level - low) / (high - low), 0.0, 1.0), nan=0.5)
    return Between(start, end, share, [chords.unit[along], unit], [chords.level[along], level])


def _value(z: Array, on_edges: Between, vertex: Array, unit: Array) -> Array:
    """Return the pre-activations of one unit each at corners or on edges."""
    value = z[np.minimum(vertex, len(z) - 1), unit]
    new = np.flatnonzero(vertex >= len(z))
    which, own = vertex[new] - len(z), unit[new]
    value[new] = mix(z[on_edges.start[which], own], z[on_edges.end[which], own], on_edges.share[which])
    return value
