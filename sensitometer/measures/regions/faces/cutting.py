"""Cuts many convex polygons along the chords that cross them: see `arrangement.py`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .polygons import Array, Polygons, following, mix, numbered, over, ranges, starts, two_sided

# A share of a face's extent: rounding leaves about 1e-15 of it, and nothing is known of thinner parts than this.
TOLERANCE = 2.0**-43


@dataclass(frozen=True)
class Chords:
    """
    Where functions are at a level inside faces, ordered by face.

    Attributes
    ----------
    face, function
        `[C]`: the face, and which of the functions of `Lines` is at a level there.
    level
        `[C]`: its value there.
    extent
        `[C]`: how far from the level it is at most, in the face.
    near
        `[C]`: so near to the level it cannot be told from it.
    ends
        `[C, 2]`: the vertices at which it falls below and rises above the level, counter-clockwise.
    """

    face: Array
    function: Array
    level: Array
    extent: Array
    near: Array
    ends: Array


@dataclass
class _Pieces:
    """
    Polygons that are still to be cut.

    `side` `[I]` is the chord that each corner's side, to the next corner, is part of, or -1. `of` `[Q]`, ascending, and `chord`
    `[Q]` are a piece and a chord that crosses it; `values`, one such pair after the other, are the chord's at its corners.
    """

    lengths: Array
    corners: Array
    side: Array
    of: Array
    chord: Array
    values: Array


@dataclass(frozen=True)
class Cut:
    """
    Faces after they were cut.

    Attributes
    ----------
    faces
        The pieces.
    side
        The chord that each corner's side, to the next corner, is part of, or -1; `[I]`.
    crossings
        The two chords of each new vertex, `[n, 2]`.
    meetings
        A vertex, and a chord that goes through it without being one of those that it is named by; `[m, 2]`.
    """

    faces: Polygons
    side: Array
    crossings: Array
    meetings: Array


def cut(faces: Polygons, chords: Chords, values: Array, vertices: int) -> Cut:
    """Cut faces along their chords, whose `values` at the faces' corners are given; crossings are numbered from `vertices`."""
    which, of = numbered(chords.face)
    whole = np.ones(len(faces.lengths), bool)
    whole[which] = False
    uncut = faces.take(np.flatnonzero(whole))
    done = [_Done(uncut.lengths, uncut.corners, np.full(len(uncut.corners), -1))]
    start = faces.take(which)
    pieces = _Pieces(start.lengths, start.corners, np.full(len(start.corners), -1), of, np.arange(len(of)), values)
    pairs: list[Array] = []
    meetings = [np.empty((0, 2), np.int64)]
    while len(pieces.lengths):
        pieces, finished = _round(pieces, chords, vertices, pairs, meetings)
        done.append(finished)
    lengths, corners, side = _joined(done)
    # Both parts of a chord that is crossed were cut by themselves.
    named = np.concatenate([*pairs, np.empty((0, 2), np.int64)])
    _, first, name = np.unique(named[:, 0] * len(chords.face) + named[:, 1], return_index=True, return_inverse=True)
    met = np.concatenate(meetings)
    for numbers in (corners, met[:, 0]):
        new = numbers >= vertices
        numbers[new] = vertices + name.reshape(-1)[numbers[new] - vertices]
    return Cut(Polygons(lengths, corners), side, named[first], met)


def _round(pieces: _Pieces, chords: Chords, vertices: int, pairs: list[Array], meetings: list[Array]) -> tuple[_Pieces, "_Done"]:
    """Cut each piece along its first chord; return what is still to be cut, and what is not; append to `pairs`, `meetings`."""
    first = np.flatnonzero(np.diff(pieces.of, prepend=-1))
    along = np.repeat(pieces.chord[first], pieces.lengths)
    spread = pieces.lengths[pieces.of]
    offset = starts(spread)
    values = pieces.values[ranges(offset[first], pieces.lengths)]
    next_ = following(pieces.lengths)
    crossed = np.flatnonzero(np.sign(values) * np.sign(values[next_]) < 0)
    share, doubt = np.zeros((2, len(values)))
    span = values[crossed] - values[next_[crossed]]
    share[crossed] = values[crossed] / span
    # Along a side nearly parallel to the chord, what is not known of the chord's values is much of the share.
    doubt[crossed] = chords.near[along[crossed]] / abs(span)
    most = chords.near + 2 * doubt.max() * chords.extent  # start and end, below, are no further apart than two extents
    vertex = np.zeros(len(values), np.int64)
    vertex[crossed] = _new_vertices(crossed, along, values, pieces.side, chords, vertices, pairs)
    rest = np.ones(len(spread), bool)
    rest[first] = False
    rest = np.flatnonzero(rest)
    parts = []
    for sign in (1, -1):
        lengths, source, new = _part(sign * values, crossed, pieces.lengths)
        corners = np.where(new, vertex[source], pieces.corners[source])
        here, after = sign * values[source], sign * values[next_[source]]
        # Behind the last corner on this side, the chord is the side of the part.
        side = np.where(np.where(new, here > 0, (here == 0) & (after < 0)), along[source], pieces.side[source])
        of, chord = pieces.of[rest], pieces.chord[rest]
        step = ranges(starts(lengths)[of], lengths[of])
        # Pairs number their values by piece, so that a corner of a piece is as far from the pair's start as from the piece's.
        shift = np.repeat(offset[rest] - starts(pieces.lengths)[of], lengths[of])
        start, end = pieces.values[shift + source[step]], pieces.values[shift + next_[source[step]]]
        given = mix(start, end, np.where(new, share[source], 0.0)[step])
        met = np.flatnonzero(abs(given) <= np.repeat(most[chord], lengths[of]))
        if len(met):
            whose = chord[np.searchsorted(np.cumsum(lengths[of]), met, side="right")]
            vertex_doubt = np.where(new, doubt[source], 0.0)[step[met]]
            near = abs(given[met]) <= chords.near[whose] + vertex_doubt * abs(end[met] - start[met])
            given[met[near]] = 0.0
            meetings.append(np.stack([corners[step[met[near]]], whose[near]], 1))
        crossing = two_sided(given, lengths[of])
        given = given[np.repeat(crossing, lengths[of])]
        parts.append(_Pieces(lengths, corners, side, of[crossing], chord[crossing], given))
    return _sorted_out(parts)


def _new_vertices(
    crossed: Array, along: Array, values: Array, side: Array, chords: Chords, vertices: int, pairs: list[Array]
) -> Array:
    """Return the vertices on the sides `crossed` by a chord: its own end on an edge, or its crossing with another chord."""
    chord, other = along[crossed], side[crossed]
    vertex = chords.ends[chord, (values[crossed] < 0).astype(np.int64)]
    inside = np.flatnonzero(other >= 0)
    vertex[inside] = vertices + sum(map(len, pairs)) + np.arange(len(inside))
    pairs.append(np.sort(np.stack([chord[inside], other[inside]], 1), axis=1))
    return vertex


def _part(values: Array, crossed: Array, lengths: Array) -> tuple[Array, Array, Array]:
    """
    Return the parts of polygons in which `values` at the corners are not negative.

    They are the number of corners of each, `[F]`, and for each corner the old corner that it is or is behind, and which it is.
    """
    count = (values >= 0).astype(np.int64)
    count[crossed] += 1
    source = np.repeat(np.arange(len(values)), count)
    new = np.zeros(len(source), bool)
    new[np.cumsum(count)[crossed] - 1] = True
    return over(np.add, count, lengths), source, new


@dataclass(frozen=True)
class _Done:
    """Pieces that no chord crosses, as in `_Pieces`."""

    lengths: Array
    corners: Array
    side: Array


def _joined(parts: Sequence[_Done]) -> tuple[Array, Array, Array]:
    """Return lengths, corners and sides of all parts together."""
    lengths, corners, side = zip(*((one.lengths, one.corners, one.side) for one in parts), strict=True)
    return np.concatenate(lengths), np.concatenate(corners), np.concatenate(side)


def _sorted_out(parts: Sequence[_Pieces]) -> tuple[_Pieces, _Done]:
    """Return the pieces that chords still cross, and those that none does."""
    active, corners, side, of, chord, values, done = [], [], [], [], [], [], []
    number = 0
    for part in parts:
        which, name = numbered(part.of)
        whole = np.ones(len(part.lengths), bool)
        whole[which] = False
        wide = np.repeat(whole, part.lengths)
        done.append(_Done(part.lengths[whole], part.corners[wide], part.side[wide]))
        crossed = ~wide
        active.append(part.lengths[which])
        corners.append(part.corners[crossed])
        side.append(part.side[crossed])
        of.append(name + number)
        chord.append(part.chord)
        values.append(part.values)
        number += len(which)
    return _Pieces(*(np.concatenate(each) for each in (active, corners, side, of, chord, values))), _Done(*_joined(done))
