"""Cuts many convex polygons along the lines that cross them: see `arrangement.py`."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from .lines import Lines
from .polygons import Array, Polygons, Table, following, mix, numbered, over, ranges, starts, two_sided


@dataclass(frozen=True)
class SidedPolygons(Polygons):
    """Polygons, with the line that the side from each corner to the next is part of; -1 for none."""

    RUNS = ("corners", "line")

    line: Array


@dataclass(frozen=True)
class Crossings(Table):
    """New vertices: where the line `along` is crossed by the line `across`; `[n]`."""

    along: Array
    across: Array


@dataclass(frozen=True)
class Meetings(Table):
    """A vertex, and a line that goes through it without being one of those that it is named by; `[n]`."""

    vertex: Array
    line: Array


class Cut(NamedTuple):
    """Faces after they were cut."""

    faces: SidedPolygons
    crossings: Crossings
    meetings: Meetings


class _Crossed(NamedTuple):
    """Pieces that are still to be cut, and pairs of a piece, ascending, and a line across it."""

    pieces: SidedPolygons
    piece: Array
    line: Array
    values: Array  # those of each pair's line at the corners of its piece


@dataclass(frozen=True)
class _Halves(Table):
    """Parts of polygons on one side of a line; each corner is the old corner `source`, or a new one on the side behind it."""

    RUNS = ("source", "new", "line")

    lengths: Array
    source: Array
    new: Array
    line: Array  # as in `SidedPolygons`


def cut(faces: Polygons, lines: Lines, ends: Array, vertices: int) -> Cut:
    """Cut faces along the lines across them, with ends as in `chord_ends`; crossings are numbered from `vertices`."""
    whole = SidedPolygons(faces.lengths, faces.corners, np.full(len(faces.corners), -1))
    crossed, uncrossed = _told_apart(whole, lines.face, np.arange(len(lines.face)), lines.values)
    done, cutter = [uncrossed], _Cutter(lines, ends, vertices)
    while len(crossed.piece):
        crossed, uncrossed = cutter.halve(crossed)
        done.append(uncrossed)
    pieces, crossings, meetings = (
        SidedPolygons.joined(done),
        Crossings.joined(cutter.crossings),
        Meetings.joined(cutter.meetings),
    )
    # The pieces on both sides of a line were cut by themselves, and have named each crossing on it.
    _, first, name = np.unique(crossings.along * len(lines.face) + crossings.across, return_index=True, return_inverse=True)
    for numbers in (pieces.corners, meetings.vertex):
        new = numbers >= vertices
        numbers[new] = vertices + name[numbers[new] - vertices]
    return Cut(pieces, crossings.take(first), meetings)


def _told_apart(pieces: SidedPolygons, piece: Array, line: Array, values: Array) -> tuple[_Crossed, SidedPolygons]:
    """Return the pieces that lines cross, and the others; the arguments are as in `_Crossed`."""
    crossed, number = numbered(piece)
    uncrossed = np.ones(len(pieces.lengths), bool)
    uncrossed[crossed] = False
    return _Crossed(pieces.take(crossed), number, line, values), pieces.take(uncrossed)


class _Cutter:
    """Cuts pieces in rounds, and keeps the vertices that this makes."""

    def __init__(self, lines: Lines, ends: Array, vertices: int) -> None:
        self._lines, self._ends, self._vertices = lines, ends, vertices
        none = np.empty(0, np.int64)
        self.crossings, self.meetings = [Crossings(none, none)], [Meetings(none, none)]

    def halve(self, crossed: _Crossed) -> tuple[_Crossed, SidedPolygons]:
        """Cut each piece along its first line; return the pieces that lines still cross, and the others."""
        pieces, piece, line, values = crossed
        first = np.flatnonzero(np.diff(piece, prepend=-1))
        offset = starts(pieces.lengths[piece])
        here, along = values[ranges(offset[first], pieces.lengths)], np.repeat(line[first], pieces.lengths)
        next_ = following(pieces.lengths)
        sides = np.flatnonzero(np.sign(here) * np.sign(here[next_]) < 0)
        span = here[sides] - here[next_[sides]]
        share, doubt = np.zeros((2, len(here)))
        share[sides] = here[sides] / span
        # Along a side nearly parallel to the line, the doubt about the line's values is much of the share.
        doubt[sides] = self._lines.near[along[sides]] / abs(span)
        vertex = np.zeros(len(here), np.int64)
        vertex[sides] = self._name(along[sides], pieces.line[sides], here[sides] < 0)
        halves = _Halves.joined([_halves(pieces, sign * here, next_, sides, along) for sign in (1, -1)])
        source, new = halves.source, halves.new
        corners = np.where(new, vertex[source], pieces.corners[source])
        share, doubt = np.where(new, share[source], 0.0), np.where(new, doubt[source], 0.0)

        # Each other line of a piece may cross both of its halves.
        rest = np.delete(np.arange(len(piece)), first)
        half = np.concatenate([piece[rest], piece[rest] + len(pieces.lengths)])
        line, lengths = np.tile(line[rest], 2), halves.lengths[half]
        corner = ranges(starts(halves.lengths)[half], lengths)
        # Values are numbered by pair, corners by piece.
        shift = np.repeat(np.tile(offset[rest] - starts(pieces.lengths)[piece[rest]], 2), lengths)
        start, end = values[shift + source[corner]], values[shift + next_[source[corner]]]
        given = mix(start, end, share[corner])
        most = self._lines.near + 2 * doubt.max() * self._lines.extent  # start and end are no further apart than two extents
        met = np.flatnonzero(abs(given) <= np.repeat(most[line], lengths))
        whose = line[np.searchsorted(np.cumsum(lengths), met, side="right")]
        near = abs(given[met]) <= self._lines.near[whose] + doubt[corner[met]] * abs(end[met] - start[met])
        given[met[near]] = 0.0
        self.meetings.append(Meetings(corners[corner[met[near]]], whose[near]))
        crossing = two_sided(given, lengths)
        parts = SidedPolygons(halves.lengths, corners, halves.line)
        return _told_apart(parts, half[crossing], line[crossing], given[np.repeat(crossing, lengths)])

    def _name(self, along: Array, other: Array, rises: Array) -> Array:
        """Return the vertices on sides that are cut: the end of the line `along` on an edge, or its crossing with the `other`."""
        vertex = self._ends[along, rises.astype(np.int64)]
        inside = np.flatnonzero(other >= 0)
        vertex[inside] = self._vertices + sum(len(crossings.along) for crossings in self.crossings) + np.arange(len(inside))
        low, high = np.minimum(along, other)[inside], np.maximum(along, other)[inside]
        self.crossings.append(Crossings(low, high))
        return vertex


def _halves(pieces: SidedPolygons, values: Array, next_: Array, sides: Array, along: Array) -> _Halves:
    """Return the parts of pieces in which the values of a line each, at the corners, are not negative."""
    count = (values >= 0).astype(np.int64)
    count[sides] += 1
    source = np.repeat(np.arange(len(values)), count)
    new = np.zeros(len(source), bool)
    new[np.cumsum(count)[sides] - 1] = True
    here, after = values[source], values[next_[source]]
    # Behind the last corner on this side, the part goes along the line.
    line = np.where(np.where(new, here > 0, (here == 0) & (after < 0)), along[source], pieces.line[source])
    return _Halves(over(np.add, count, pieces.lengths), source, new, line)
