"""
The straight lines along which faces are to be cut: where an affine function of a face is at a level.

The functions are the pre-activations themselves, or differences of two of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from .cutting import TOLERANCE
from .polygons import Array, Polygons, following, mix, over, ranges, starts


@dataclass(frozen=True)
class Segments:
    """
    Straight pieces of boundaries.

    Attributes
    ----------
    ends
        `[M, 2, 2]`.
    unit, boundary
        `[M]`: whose boundary each is, and which of its boundaries.
    code
        `[M]`: for sides of faces, the unit's code in the face.
    """

    ends: Array
    unit: Array
    boundary: Array
    code: Array


@dataclass(frozen=True)
class Functions:
    """
    Functions that are affine on each face.

    Attributes
    ----------
    z
        The pre-activations at the vertices, `[V, W]`.
    pairs
        `[n, 2]`: function i is the difference of these two pre-activations. None: the functions are the pre-activations.
    zeros
        Where a difference is so near to 0 that it is taken to be: vertex * n + function of each such place, ascending.
    """

    z: Array
    pairs: Array | None = None
    zeros: Array = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def count(self) -> int:
        """How many there are."""
        return self.z.shape[1] if self.pairs is None else len(self.pairs)

    def at(self, vertex: Array, function: Array) -> Array:
        """Return the value of one function each at vertices."""
        found: Array
        if self.pairs is None:
            found = self.z[vertex, function]
            return found
        found = self.z[vertex, self.pairs[function, 0]] - self.z[vertex, self.pairs[function, 1]]
        if len(self.zeros):
            found[np.isin(vertex * self.count + function, self.zeros)] = 0.0
        return found

    def put(self, vertex: Array, function: Array, level: Array) -> "Functions":
        """Return functions of which one each has a level at vertices; pre-activations are changed in place."""
        if self.pairs is None:
            self.z[vertex, function] = level
            return self
        return replace(self, zeros=np.unique(np.concatenate([self.zeros, vertex * self.count + function])))


@dataclass(frozen=True)
class Lines:
    """
    Where functions are at a level, ordered by face.

    Attributes
    ----------
    functions
        All of them.
    face, function, boundary, level
        `[C]`: of each line. `boundary` is which of the operation's boundaries the level is.
    rounding
        `[C]`: how far the function may be from what it would be without rounding.
    lengths, corner
        How many corners the face of each line has, `[C]`, and these corners, one line after the other.
    values
        The function less the level at these corners.
    """

    functions: Functions
    face: Array
    function: Array
    boundary: Array
    level: Array
    rounding: Array
    lengths: Array
    corner: Array
    values: Array

    @staticmethod
    def across(
        functions: Functions, faces: Polygons, face: Array, function: Array, boundary: Array, level: Array, rounding: Array
    ) -> "Lines":
        """Return the lines, with their values at the corners of their faces."""
        lengths = faces.lengths[face]
        corner = faces.corners[ranges(starts(faces.lengths)[face], lengths)]
        values = functions.at(corner, np.repeat(function, lengths))
        values -= np.repeat(level, lengths)
        return Lines(functions, face, function, boundary, level, rounding, lengths, corner, values)

    @cached_property
    def extent(self) -> Array:
        """How far from the level each function is at most, in the face; `[C]`."""
        return over(np.maximum, abs(self.values), self.lengths)

    @property
    def near(self) -> Array:
        """So near to the level a function cannot be told from it; `[C]`."""
        return np.maximum(TOLERANCE * self.extent, self.rounding)

    def put_on_levels(self) -> Functions | None:
        """Put on a line the corners that are within its face's tolerance of it, and return the functions; None if none is."""
        stray = np.flatnonzero((abs(self.values) <= np.repeat(self.near, self.lengths)) & (self.values != 0))
        if not len(stray):
            return None
        function, level = (np.repeat(each, self.lengths)[stray] for each in (self.function, self.level))
        return self.functions.put(self.corner[stray], function, level)

    def take(self, keep: Array) -> "Lines":
        """Return some of them: `keep` is whether each is to stay."""
        if keep.all():
            return self
        wide = np.repeat(keep, self.lengths)
        each = (self.face, self.function, self.boundary, self.level, self.rounding, self.lengths)
        face, function, boundary, level, rounding, lengths = (one[keep] for one in each)
        return Lines(self.functions, face, function, boundary, level, rounding, lengths, self.corner[wide], self.values[wide])


@dataclass(frozen=True)
class Between:
    """
    Vertices between two others: `share` `[n]` of the way from `start` to `end` `[n]`.

    At each, one of `functions` is at its level, or two are: `levels`, alike.
    """

    start: Array
    end: Array
    share: Array
    functions: Sequence[Array]
    levels: Sequence[Array]

    def coordinates(self, xy: Array) -> Array:
        """Return their coordinates, from those of the vertices before them."""
        return mix(xy[self.start], xy[self.end], self.share[:, None])

    def rows(self, start: Array, end: Array, which: Array) -> Array:
        """Return values at `which` of them, from those at their starts and ends, overwritten; `[n, ...]`."""
        # `mix`, in place: fresh memory of this size costs as much as the arithmetic.
        end -= start
        end *= self.share[which, None]
        end += start
        return end

    def at(self, functions: Functions, vertex: Array, function: Array) -> Array:
        """Return the value of one function each at vertices: old ones, and these, numbered from where the old ones end."""
        old = len(functions.z)
        value = functions.at(np.minimum(vertex, old - 1), function)
        new = np.flatnonzero(vertex >= old)
        which, own = vertex[new] - old, function[new]
        value[new] = mix(functions.at(self.start[which], own), functions.at(self.end[which], own), self.share[which])
        return value


def chord_ends(lines: Lines) -> tuple[Array, Between]:
    """Return the ends `[C, 2]` of lines across faces, and those ends that are inside edges."""
    functions, next_ = lines.functions, following(lines.lengths)
    old = len(functions.z)
    ends, found = [], []
    for sign in (1, -1):
        ahead = sign * lines.values > 0
        at = np.flatnonzero(ahead & ~ahead[next_])  # one a line, as `two_sided` has seen to
        inside = lines.values[next_[at]] != 0
        ends.append(np.where(inside, -1, lines.corner[next_[at]]))
        # From below to above, whichever of the two faces at this edge is asked.
        low, high = (next_[at[inside]], at[inside])[::sign]
        found.append((lines.corner[low], lines.corner[high], np.flatnonzero(inside)))
    low, high, line = (np.concatenate(parts) for parts in zip(*found, strict=True))
    # No operation has three boundaries.
    key = ((low * old + high) * functions.count + lines.function[line]) * 2 + lines.boundary[line]
    _, first, name = np.unique(key, return_index=True, return_inverse=True)
    name = name.reshape(-1) + old
    half = len(found[0][2])
    ends[0][found[0][2]], ends[1][found[1][2]] = name[:half], name[half:]
    low, high, own, level = low[first], high[first], lines.function[line[first]], lines.level[line[first]]
    below = functions.at(low, own)
    return np.stack(ends, 1), Between(low, high, (level - below) / (functions.at(high, own) - below), [own], [level])
