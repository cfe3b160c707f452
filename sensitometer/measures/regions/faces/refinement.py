"""The faces of one stage, cut where its units change their piece, with all values that are alive: see `arrangement.py`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..graph import Maximum, Pieces
from .cutting import Chords, Cut, cut
from .lines import Between, Functions, Segments, chord_ends
from .merging import merged
from .polygons import Array, Polygons, over, starts
from .units import unit_lines
from .winners import WinnerLines, winner_lines

# Pre-activations at the corners of pieces whose winners are compared, at once.
PART = 2**19


@dataclass(frozen=True)
class Refinement:
    """
    The faces of one stage, cut along its lines.

    Vertices are numbered: first the corners of the faces before the cut, then ends of lines inside edges, then crossings of
    lines; `xy` are the coordinates of all.

    Attributes
    ----------
    values
        The values that are alive, the stage's pre-activations `source` among them, at the corners before the cut; each `[V, n]`.
    pairs
        As in `Functions`.
    meetings
        A vertex, a function and a level each, wherever a line goes through a vertex that others have named.
    faces
        After the cut.
    segments
        The boundaries that lie inside the faces before the cut.
    sides
        Sides of faces before the cut, or parts of sides, along which a unit is at a boundary, each told of by one of the two
        faces, or by both. There is a boundary if one tells alone, or if the two tell of different codes.
    """

    values: Mapping[str, Array]
    source: str
    pairs: Array | None
    xy: Array
    on_edges: Between
    crossings: Between
    meetings: tuple[Array, Array, Array]
    faces: Polygons
    segments: Segments
    sides: Segments

    def rows(self, vertices: Array, *names: str) -> dict[str, Array]:
        """Return the values of these names, or all, at `vertices`, which are in ascending order; each `[n, ...]`."""
        old, simple = len(self.values[self.source]), len(self.xy) - len(self.crossings.share)
        which = vertices[vertices >= simple] - simple
        start, end = self.crossings.start[which], self.crossings.end[which]
        here = vertices[vertices < simple]
        needed = np.unique(np.concatenate([here, start, end]))
        corner, on_edge = needed[needed < old], needed[needed >= old] - old
        low, high = self.on_edges.start[on_edge], self.on_edges.end[on_edge]
        rows = {}
        for name in names or self.values:
            values = self.values[name]
            rows[name] = np.concatenate([values[corner], self.on_edges.rows(values[low], values[high], on_edge)])
        if self.source in rows:
            self._put(rows[self.source], needed, self.on_edges, on_edge)
        if not len(which):
            return rows
        start, end, here = (np.searchsorted(needed, some) for some in (start, end, here))
        for name, values in rows.items():
            rows[name] = np.concatenate([values[here], self.crossings.rows(values[start], values[end], which)])
        if self.source in rows:
            self._put(rows[self.source], vertices, self.crossings, which)
        return rows

    def _put(self, z: Array, vertices: Array, between: Between, which: Array) -> None:
        """
        Put the pre-activations `z` at `vertices`, ascending, exactly on the levels that they are at.

        The last rows are `which` of the vertices `between` others, and have their levels. Any row may have one of `meetings`.
        """
        row = np.arange(len(vertices) - len(which), len(vertices))
        for function, level in zip(between.functions, between.levels, strict=True):
            _put(z, row, function[which], level[which], self.pairs)
        met, function, level = self.meetings
        row = np.searchsorted(vertices, met)
        there = np.flatnonzero(vertices[np.minimum(row, len(vertices) - 1)] == met)
        _put(z, row[there], function[there], level[there], self.pairs)

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


def _put(z: Array, row: Array, function: Array, level: Array, pairs: Array | None) -> None:
    if pairs is None:
        z[row, function] = level
    else:
        z[row, pairs[function, 1]] = z[row, pairs[function, 0]]


def refine(values: Mapping[str, Array], source: str, xy: Array, faces: Polygons, pieces: Pieces, rounding: Array) -> Refinement:
    """
    Cut `faces`, with the vertices `xy` `[V, 2]`, wherever a unit of an operation changes its piece.

    `values` are those at the vertices, each `[V, n]`; `source` names the operation's pre-activations among them, `[V, W]`. Of
    these, what is within `rounding` `[W]` of a boundary, or within a face's tolerance, is put on it.
    """
    winners = None
    if isinstance(pieces, Maximum):
        winners = winner_lines(values[source], faces, pieces, rounding)
        lines = winners.lines
    else:
        lines, sides = unit_lines(values[source], xy, faces, pieces.boundaries, rounding)
    ends, on_edges = chord_ends(lines)
    xy = np.concatenate([xy, on_edges.coordinates(xy)])
    if winners is None:
        segments = Segments(xy[ends], lines.function, lines.boundary, np.zeros_like(lines.function))
    else:
        part, whole, segments, sides = winners.boundaries(ends, on_edges, xy)
        lines, ends, whole = lines.take(part), ends[part], whole[part]
    chords = Chords(lines.face, lines.function, lines.level, lines.extent, lines.near, ends)
    done = cut(faces, chords, lines.values, len(xy))
    crossings = _crossings(lines.functions, on_edges, chords, done.crossings)
    xy = np.concatenate([xy, crossings.coordinates(xy)])
    vertex, chord = done.meetings.T
    meetings = vertex, chords.function[chord], chords.level[chord]
    pairs = lines.functions.pairs
    refined = Refinement(values, source, pairs, xy, on_edges, crossings, meetings, done.faces, segments, sides)
    return refined if winners is None else _rejoined(refined, done, chords, winners, np.unique(chords.face[~whole]))


def _crossings(functions: Functions, on_edges: Between, chords: Chords, pairs: Array) -> Between:
    """Return the vertices where the first chord of each of `pairs` `[n, 2]` is crossed by the second."""
    along, across = pairs.T
    function, level = chords.function[across], chords.level[across]
    start, end = chords.ends[along].T
    low, high = (on_edges.at(functions, vertex, function) for vertex in (start, end))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Two chords that meet at a nearly common end may not cross in the last bits.
        share = np.nan_to_num(np.clip((level - low) / (high - low), 0.0, 1.0), nan=0.5)
    return Between(start, end, share, [chords.function[along], function], [chords.level[along], level])


def _rejoined(refined: Refinement, done: Cut, chords: Chords, winners: WinnerLines, parted: Array) -> Refinement:
    """Join the pieces of the faces `parted`, which were cut along more than boundaries, that have the same winners."""
    if not len(parted):
        return refined
    faces = done.faces
    last = over(np.maximum, done.side, faces.lengths)
    parent = np.where(last >= 0, chords.face[last], -1)
    which = np.flatnonzero(np.isin(parent, parted))
    z = refined.values[refined.source]
    tokens = np.random.default_rng(0).integers(2**63, size=len(winners.contests.column), dtype=np.uint64)
    keys = []
    size = max(1, PART // z.shape[1])
    for part in np.split(which, range(size, len(which), size)):
        vertices, pieces = faces.take(part).compact()
        rows = refined.rows(vertices, refined.source)[refined.source]
        means = np.add.reduceat(rows[pieces.corners], starts(pieces.lengths)) / pieces.lengths[:, None]
        keys.append(winners.keys(means, parent[part], tokens))
    order = np.lexsort((key := np.concatenate(keys), parent[which]))
    other = (np.diff(key[order]) != 0) | (np.diff(parent[which][order]) != 0)
    group = np.full(len(faces.lengths), -1)
    group[which[order]] = np.concatenate([[0], np.cumsum(other)])
    return replace(refined, faces=merged(faces, done.side, group, len(z)))
