"""The faces of one stage, cut where its units change their piece, with all values that are alive: see `arrangement.py`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ..graph import Maximum, Pieces
from .cutting import Cut, cut
from .lines import Between, Cuts, Functions, OnLine, Segments
from .merging import merged
from .polygons import Array, Polygons, over, starts
from .units import unit_cuts
from .winners import Winners, winner_cuts

# Pre-activations at the corners of pieces whose winners are compared, at once.
PART = 2**19


class _Step(NamedTuple):
    """How values at `vertices`, ascending, come from those at earlier ones: at `old` of these, then `between` two of them."""

    vertices: Array
    between: Between
    new: Array  # which of the vertices between others
    old: Array  # rows of the earlier values, as are the next
    start: Array
    end: Array

    def rows(self, values: Array) -> Array:
        start, end = values[self.start], values[self.end]
        # `mix`, in place: fresh memory of this size costs as much as the arithmetic.
        end -= start
        end *= self.between.share[self.new].reshape(-1, *[1] * (values.ndim - 1))
        end += start
        return np.concatenate([values[self.old], end])


@dataclass(frozen=True)
class Refinement:
    """
    The faces of one stage, cut along its lines.

    Vertices are numbered: first the corners of the faces before the cut, then ends of lines inside edges, then crossings.

    A side of a face before the cut, or a part of it, along which a unit is at a boundary is among the `sides` of one of the two
    faces there, or of both. There is a boundary if only one has it, or if the two have different codes.
    """

    values: Mapping[str, Array]  # that are alive at the corners before the cut, each [V, ...]
    source: str  # names the pre-activations among them
    functions: Functions
    xy: Array  # coordinates of all vertices
    on_edges: Between
    crossings: Between
    meetings: Array  # vertices that lines go through without being one of those that they are named by
    met: OnLine  # and these lines
    faces: Polygons  # after the cut
    segments: Segments  # boundaries inside the faces before the cut
    sides: Segments

    @property
    def z(self) -> Array:
        """The pre-activations, `[V, W]`."""
        return self.values[self.source].reshape(len(self.values[self.source]), -1)

    def rows(self, vertices: Array, *names: str) -> dict[str, Array]:
        """Return the values of these names, or all, at `vertices`, which are in ascending order; each `[n, ...]`."""
        old, simple = len(self.z), len(self.xy) - len(self.crossings.share)
        here, new = vertices[vertices < simple], vertices[vertices >= simple] - simple
        start, end = self.crossings.start[new], self.crossings.end[new]
        needed = np.unique(np.concatenate([here, start, end]))
        corner, on_edge = needed[needed < old], needed[needed >= old] - old
        steps = [_Step(needed, self.on_edges, on_edge, corner, self.on_edges.start[on_edge], self.on_edges.end[on_edge])]
        if len(new):
            steps.append(_Step(vertices, self.crossings, new, *(np.searchsorted(needed, each) for each in (here, start, end))))
        rows = {}
        for name in names or self.values:
            values = self.values[name]
            for step in steps:
                values = step.rows(values)
                if name == self.source:
                    self._put_on_levels(values.reshape(len(values), -1), step)
            rows[name] = values
        return rows

    def _put_on_levels(self, z: Array, step: _Step) -> None:
        """Put the pre-activations `z` of a step exactly on the levels of the lines through its vertices."""
        row = np.arange(len(step.old), len(step.vertices))
        for line in step.between.lines:
            self.functions.put_in(z, row, line.function[step.new], line.level[step.new])
        row = np.searchsorted(step.vertices, self.meetings)
        there = np.flatnonzero(step.vertices[np.minimum(row, len(step.vertices) - 1)] == self.meetings)
        self.functions.put_in(z, row[there], self.met.function[there], self.met.level[there])

    def patches(self, size: int) -> Iterator[Array]:
        """Yield the numbers of the faces in compact parts of at most `size`, halving the longer extent."""
        numbers = np.arange(len(self.faces.lengths))
        if len(numbers) <= size:
            yield numbers
            return
        sums = np.add.reduceat(self.xy[self.faces.corners], starts(self.faces.lengths))
        centres, waiting = sums / self.faces.lengths[:, None], [numbers]
        while waiting:
            part = waiting.pop()
            if len(part) <= size:
                yield part
                continue
            axis = np.ptp(centres[part], axis=0).argmax()
            order = part[np.argpartition(centres[part, axis], len(part) // 2)]
            waiting += [order[len(part) // 2 :], order[: len(part) // 2]]


def refine(
    layer: int, values: Mapping[str, Array], source: str, xy: Array, faces: Polygons, pieces: Pieces, rounding: Array
) -> Refinement:
    """
    Cut `faces`, with the vertices `xy` `[V, 2]`, wherever a unit of an operation changes its piece.

    `values` are those at the vertices, each `[V, ...]`; `source` names the operation's pre-activations. Pre-activations that are
    within `rounding` `[W]` of a boundary, or within a face's tolerance, are put on it.
    """
    z = values[source].reshape(len(xy), -1)
    if isinstance(pieces, Maximum):
        cuts, winners = winner_cuts(layer, z, xy, faces, pieces, rounding)
    else:
        cuts, winners = unit_cuts(layer, z, xy, faces, pieces.boundaries, rounding), None
    done = cut(faces, cuts.lines, cuts.ends, len(cuts.xy))
    crossings, met = _crossings(cuts, done), done.meetings.line
    refined = Refinement(
        values,
        source,
        cuts.functions,
        crossings.added_to(cuts.xy),
        cuts.on_edges,
        crossings,
        done.meetings.vertex,
        OnLine(cuts.lines.function[met], cuts.lines.level[met]),
        Polygons(done.faces.lengths, done.faces.corners),
        cuts.segments,
        cuts.sides,
    )
    return refined if winners is None else _rejoined(refined, done, cuts.lines.face, winners)


def _crossings(cuts: Cuts, done: Cut) -> Between:
    """Return the vertices at which lines cross one another: each is on the first line, between its ends."""
    lines, (along, across) = cuts.lines, (done.crossings.along, done.crossings.across)
    function, level = lines.function[across], lines.level[across]
    start, end = cuts.ends[along].T
    low, high = (cuts.on_edges.at(cuts.functions, vertex, function) for vertex in (start, end))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Two lines that meet at a nearly common end may not cross in the last bits.
        share = np.nan_to_num(np.clip((level - low) / (high - low), 0.0, 1.0), nan=0.5)
    return Between(start, end, share, [OnLine(lines.function[along], lines.level[along]), OnLine(function, level)])


def _rejoined(refined: Refinement, done: Cut, line_face: Array, winners: Winners) -> Refinement:
    """Join the pieces with the same winners of each face that was cut along more than boundaries."""
    if not len(winners.parted):
        return refined
    pieces = done.faces
    last = over(np.maximum, pieces.line, pieces.lengths)
    parent = np.where(last >= 0, line_face[last], -1)
    parts = np.flatnonzero(np.isin(parent, winners.parted))
    keys, size = [], max(1, PART // refined.z.shape[1])
    for part in np.split(parts, range(size, len(parts), size)):
        vertices, polygons = pieces.take(part).compact()
        z = refined.rows(vertices, refined.source)[refined.source].reshape(len(vertices), -1)
        means = np.add.reduceat(z[polygons.corners], starts(polygons.lengths)) / polygons.lengths[:, None]
        keys.append(winners.keys(means, parent[part]))
    order = np.lexsort((key := np.concatenate(keys), parent[parts]))
    other = (np.diff(key[order]) != 0) | (np.diff(parent[parts][order]) != 0)
    group = np.full(len(pieces.lengths), -1)
    group[parts[order]] = np.concatenate([[0], np.cumsum(other)])
    return replace(refined, faces=merged(pieces, group, len(refined.z)))
