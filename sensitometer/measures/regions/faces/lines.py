"""The lines along which faces are to be cut: where a function, such as a pre-activation, is at a level inside a face."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .polygons import Array, Polygons, Table, following, mix, over, ranges, starts

# A share of a face's extent: rounding leaves about 1e-15 of it, and nothing is known of thinner parts than this.
TOLERANCE = 2.0**-43


@dataclass(frozen=True)
class Segments(Table):
    """Straight pieces of boundaries: which boundary, of which unit of which layer; `[M]`."""

    ends: Array  # [M, 2, 2]
    layer: Array
    unit: Array
    boundary: Array
    code: Array  # of the unit in the face of which this is a side; 0 inside faces


def make_segments(ends: Array, layer: int, unit: Array, boundary: Array | int = 0, code: Array | int = 0) -> Segments:
    """Return segments of one layer."""
    layers, boundaries, codes = (np.broadcast_to(number, unit.shape) for number in (layer, boundary, code))
    return Segments(ends, layers, unit, boundaries, codes)


@dataclass(frozen=True)
class PreActivations:
    """The pre-activations `z` `[V, W]` at the vertices, as functions that are affine on each face."""

    z: Array

    def at(self, vertex: Array, function: Array) -> Array:
        """Return the value of one function per vertex."""
        values: Array = self.z[vertex, function]
        return values

    def put(self, vertex: Array, function: Array, level: Array) -> None:
        """Put one function per vertex on a level."""
        self.z[vertex, function] = level

    @staticmethod
    def put_in(z: Array, row: Array, function: Array, level: Array) -> None:
        """Put one function per row of the pre-activations `z` of other vertices on a level."""
        z[row, function] = level


@dataclass
class Differences:
    """Differences of two pre-activations, `left` less `right` `[n]`, as functions that are affine on each face."""

    z: Array
    left: Array
    right: Array
    # vertex * n + function wherever a difference was put on 0, ascending
    zeros: Array = field(default_factory=lambda: np.empty(0, np.int64))

    def at(self, vertex: Array, function: Array) -> Array:
        """Return the value of one function per vertex."""
        values: Array = self.z[vertex, self.left[function]] - self.z[vertex, self.right[function]]
        if len(self.zeros):
            values[np.isin(vertex * len(self.left) + function, self.zeros)] = 0.0
        return values

    def put(self, vertex: Array, function: Array, _level: Array) -> None:
        """Put one function per vertex on 0, and leave the pre-activations as they are."""
        self.zeros = np.unique(np.concatenate([self.zeros, vertex * len(self.left) + function]))

    def put_in(self, z: Array, row: Array, function: Array, _level: Array) -> None:
        """Put one function per row of the pre-activations `z` of other vertices on 0."""
        z[row, self.right[function]] = z[row, self.left[function]]


Functions = PreActivations | Differences


@dataclass(frozen=True)
class Lines(Table):
    """Lines on which a function is at a level, ordered by face, with the values at the corners of the faces; `[C]`."""

    RUNS = ("corners", "values")

    face: Array
    function: Array
    boundary: Array  # which of the operation's boundaries the level is
    level: Array
    rounding: Array  # how far the function may be from its value without rounding
    lengths: Array  # the number of corners of the face
    corners: Array
    values: Array  # the function less the level

    @cached_property
    def extent(self) -> Array:
        """How far each function is from its level at most, in the face; `[C]`."""
        return over(np.maximum, abs(self.values), self.lengths)

    @cached_property
    def near(self) -> Array:
        """How near to its level each function cannot be told from it; `[C]`."""
        return np.maximum(TOLERANCE * self.extent, self.rounding)


def lines_across(
    functions: Functions, faces: Polygons, face: Array, function: Array, boundary: Array, level: Array, rounding: Array
) -> Lines:
    """Return lines with their values at the corners of their faces."""
    lengths = faces.lengths[face]
    corners = faces.corners[ranges(starts(faces.lengths)[face], lengths)]
    values = functions.at(corners, np.repeat(function, lengths))
    values -= np.repeat(level, lengths)
    return Lines(face, function, boundary, level, rounding, lengths, corners, values)


def put_on_levels(functions: Functions, lines: Lines) -> bool:
    """Put functions on their levels at the corners that cannot be told from the line; return whether there are any."""
    stray = np.flatnonzero((abs(lines.values) <= np.repeat(lines.near, lines.lengths)) & (lines.values != 0))
    if len(stray):
        function, level = (np.repeat(column, lines.lengths)[stray] for column in (lines.function, lines.level))
        functions.put(lines.corners[stray], function, level)
    return len(stray) > 0


class OnLine(NamedTuple):
    """The function, and its level, of a line through each of some vertices; `[n]`."""

    function: Array
    level: Array


@dataclass(frozen=True)
class Between:
    """New vertices, each `share` of the way from vertex `start` to vertex `end`; `[n]`."""

    start: Array
    end: Array
    share: Array
    lines: Sequence[OnLine]  # all that these vertices are on

    def added_to(self, xy: Array) -> Array:
        """Return coordinates of vertices, and behind them those of these."""
        return np.concatenate([xy, mix(xy[self.start], xy[self.end], self.share[:, None])])

    def at(self, functions: Functions, vertex: Array, function: Array) -> Array:
        """Return the value of one function per vertex: an old one, or one of these, which are numbered from where those end."""
        old = len(functions.z)
        values = functions.at(np.minimum(vertex, old - 1), function)
        here = np.flatnonzero(vertex >= old)
        new, function = vertex[here] - old, function[here]
        values[here] = mix(functions.at(self.start[new], function), functions.at(self.end[new], function), self.share[new])
        return values


def chord_ends(functions: Functions, lines: Lines) -> tuple[Array, Between]:
    """
    Return the ends of lines across faces, and those of the ends that are inside edges.

    The ends `[C, 2]` are the vertices at which a line falls below and rises above its level, counter-clockwise.
    """
    old, next_ = len(functions.z), following(lines.lengths)
    above, below = lines.values > 0, lines.values < 0
    falls, rises = np.flatnonzero(above & ~above[next_]), np.flatnonzero(below & ~below[next_])  # one each per line
    behind = next_[np.stack([falls, rises], 1)]
    ends = lines.corners[behind]
    inside = lines.values[behind] != 0
    # From below to above, whichever of the two faces at the edge is asked.
    low = lines.corners[np.stack([next_[falls], rises], 1)[inside]]
    high = lines.corners[np.stack([falls, next_[rises]], 1)[inside]]
    line, _ = np.nonzero(inside)
    # No operation has three boundaries.
    key = ((low * old + high) * (1 + lines.function.max(initial=0)) + lines.function[line]) * 2 + lines.boundary[line]
    _, first, name = np.unique(key, return_index=True, return_inverse=True)
    ends[inside] = old + name
    low, high, function, level = low[first], high[first], lines.function[line[first]], lines.level[line[first]]
    value = functions.at(low, function)
    share = (level - value) / (functions.at(high, function) - value)
    return ends, Between(low, high, share, [OnLine(function, level)])


class Cuts(NamedTuple):
    """The lines along which the faces of a stage are to be cut, and the boundaries among them."""

    functions: Functions
    lines: Lines
    ends: Array  # of the lines, as in `chord_ends`
    on_edges: Between
    xy: Array  # coordinates of the corners and of the vertices on edges
    segments: Segments  # inside faces
    sides: Segments  # see `Refinement.sides`
