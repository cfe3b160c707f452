r"""
Carries paths through a piecewise-linear model and finds every place where a unit changes its piece (paper, S3, A.1.2).

Where no unit of the stages below changes its piece, everything is affine along a straight segment, and of the form
$\alpha \cos t + \beta \sin t + \gamma$ along an arc. So, stage by stage: take the values at the breakpoints known so far, find
where units change pieces between neighbours, make these places breakpoints too, and interpolate all values that are alive there.
Residual connections, convolutions, biases and pooling need nothing of their own. The last stage needs no new breakpoints.

Breakpoints of many paths and networks go through each stage together, in chunks: what has grown too long is divided, and each
part goes to the last stage before the next part starts. So memory is bounded by the number of stages, not by that of crossings.

Pre-activations within the rounding error of a boundary are on it, and crossings of a piece whose places differ by no more
coincide. All units of a network without biases are 0 together where a path goes through 0: if rounding parted them, all stages
above would be noise in between.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ...errors import InvalidInputError
from .graph import Elementwise, Graph, Linear, Pieces, flat

Array = Any

# Numbers in a chunk of rows: so many that what is done once per chunk does not count, so few that they stay in a large cache.
CHUNK = 2**20
# Rows of a chunk at least: a part begins with the row that the part before ends with.
FEWEST = 16
# Numbers of the first stage that are computed at once, for many paths and networks.
FIRST_CHUNK = 2**22
# The rounding error of pre-activations, as a fraction of the largest one of the stage at the vertices of the path.
ERROR = 2.0**-46


@dataclass(frozen=True, eq=False)
class Rows:
    """
    Where the rows of a chunk lie; those of one pair in a row, in the order of the path.

    A pair is one network along one path; its number is the network's times the number of paths, plus the path's.

    Attributes
    ----------
    pair
        int64 `[R]`, not decreasing.
    t
        float64 `[R]`, the path's parameter.
    """

    pair: Array
    t: Array

    def __getitem__(self, chosen: slice) -> "Rows":
        return Rows(self.pair[chosen], self.t[chosen])


@dataclass(frozen=True, eq=False)
class Found:
    """
    Changes of pieces in a chunk, in the order of the path.

    Attributes
    ----------
    piece
        int64 `[n]`, the row that the piece of the path begins with.
    unit, boundary
        int64 `[n]`: which unit, and which of its boundaries it crosses; 0 for a maximum.
    place
        float64 `[n]`, where on the piece, as its geometry counts; the same for all that coincide.
    t
        float64 `[n]`, the path's parameter.
    """

    piece: Array
    unit: Array
    boundary: Array
    place: Array
    t: Array


@dataclass(frozen=True, eq=False)
class Insertion:
    """
    The rows of a chunk with a new breakpoint wherever a unit changes its piece inside a piece of the path.

    Attributes
    ----------
    found
        The changes.
    rows
        All rows, R'.
    begins
        int64 `[pieces]`, the rows that pieces begin with.
    old
        int64 `[R']`: the old row that each is, or the first of those of the old piece that it is on.
    place
        float64 `[R']`, where on this piece.
    first, last
        int64 `[R']`: from which to before which of the crossings found are at each row.
    """

    found: Found
    rows: Rows
    begins: Array
    old: Array
    place: Array
    first: Array
    last: Array


class Geometry(Protocol):
    """The differences between straight segments and arcs of an ellipse."""

    step: int
    """The rows that a piece has beyond its first."""
    lengths: list[int]
    """How many points each path begins with."""

    def vertices(self, paths: slice) -> tuple[Tensor, Rows]:
        """Return the points `[n, ...]` with which some paths begin, float64, and their rows for the first network."""

    def begins(self, pair: Array) -> Array:
        """Return the rows that pieces begin with, for rows of these pairs; int64."""

    def count(self, z: Array, rows: Rows, pieces: Pieces, errors: Array) -> Array:
        """
        Return how many changes there are on each piece, int64 `[pieces]`.

        Pre-activations `z` `[R, W]` within the `errors`, by pair, of a boundary are put on it.
        """

    def find(self, z: Array, rows: Rows, pieces: Pieces, errors: Array) -> Found:
        """Return these changes; `z` as above."""

    def insert(self, rows: Rows, found: Found) -> Insertion:
        """Return the rows with new breakpoints."""

    def mixed(self, values: Array, insertion: Insertion, here: slice) -> Array:
        """Return what is `values` `[R, n]` at the old rows at some of the rows, `here`."""

    def activations(self, z: Array, pieces: Elementwise, insertion: Insertion, here: slice) -> Array:
        """Return the activations at some of the rows, `here`; a unit is exactly on its boundary wherever it crosses."""

    def products(
        self,
        z: Array,
        pieces: Elementwise,
        insertion: Insertion,
        here: slice,
        linear: Linear,
        networks: slice,
        edges: Sequence[int],
        largest: Array,
    ) -> Tensor:
        """
        Return what a matrix product makes of these activations.

        `largest` is the largest number that it makes at the vertices, by pair. Between products rows may be interpolated.
        """


@dataclass
class Crossings:
    """
    The changes that a walk has found.

    Attributes
    ----------
    counts
        int64 `[S P, stages]`: for each pair, the changes of each stage.
    pair, stage, unit, boundary, t
        The changes one by one, in no order, if they were kept; int64 `[n]`, and float64 `[n]`.
    """

    counts: Array
    pair: Array
    stage: Array
    unit: Array
    boundary: Array
    t: Array


class Walk:
    """
    Takes a model along paths.

    Parameters
    ----------
    graph
        The model, or S networks.
    geometry
        The paths.
    count
        How many paths there are, P.
    keep
        Whether the changes are kept one by one, or only counted.
    """

    def __init__(self, graph: Graph, geometry: Geometry, count: int, *, keep: bool) -> None:
        self.graph, self.geometry, self.paths, self.keep = graph, geometry, count, keep
        self.size = max(FEWEST, CHUNK // graph.width)
        pairs = graph.networks * count
        self.largest = np.zeros((len(graph.stages), pairs))
        self.counts = np.zeros((pairs, len(graph.stages)), np.int64)
        self.kept: list[tuple[Array, ...]] = []

    @torch.no_grad()
    def run(self) -> Crossings:
        """
        Walk all paths and return what was found.

        Raises
        ------
        InvalidInputError
            Pre-activations are not finite, or so large that float64 cannot tell the boundaries of a unit apart.
        """
        for paths in self._batches():
            points, rows = self.geometry.vertices(paths)
            parts = list(self._parts(self.geometry.begins(rows.pair)))
            # The errors of a path are those of all its vertices: a long one is taken twice, part by part.
            for measuring, descending in ((True, True),) if len(parts) == 1 else ((True, False), (False, True)):
                for here in parts:
                    for networks, values in self._first(points[here]):
                        pairs = np.arange(networks.start, networks.stop)[:, None] * self.paths + paths.start + rows.pair[here]
                        several = Rows(pairs.ravel(), np.tile(rows.t[here], len(pairs)))
                        if measuring:
                            self._measure(values, several, networks)
                        if descending:
                            self._enter(values, several)
        empty = np.zeros(0, np.int64)
        columns = [np.concatenate(each) for each in zip(*self.kept, strict=True)] if self.kept else [empty] * 4 + [np.zeros(0)]
        return Crossings(self.counts, *columns)

    def _enter(self, values: dict[str, Tensor], rows: Rows) -> None:
        """Take the values after the first affine map through all stages, in chunks."""
        for here in self._parts(self.geometry.begins(rows.pair)):
            self._descend({name: value[here] for name, value in values.items()}, rows[here])

    def _batches(self) -> Iterator[slice]:
        """Yield the paths, as many at a time as the first stage's chunk holds."""
        stage = self.graph.stages[0]
        most = min(self.size, max(1, FIRST_CHUNK // (self.graph.networks * stage.width)))
        start, points = 0, 0
        for path, length in enumerate(self.geometry.lengths):
            if points and points + length > most:
                yield slice(start, path)
                start, points = path, 0
            points += length
        yield slice(start, self.paths)

    def _first(self, points: Tensor) -> Iterator[tuple[slice, dict[str, Tensor]]]:
        """Yield the values after the first affine map, `[networks n, ...]`, of as many networks at a time as a chunk holds."""
        stage, networks = self.graph.stages[0], self.graph.networks
        if not isinstance(stage.affine, Linear):
            yield slice(0, 1), stage.affine({self.graph.input: points})
            return
        z = stage.affine.shared(flat(points), slice(0, networks))
        step = max(1, self.size // len(points))
        for start in range(0, networks, step):
            some = slice(start, min(start + step, networks))
            yield some, {stage.source: z[some].flatten(0, 1)}

    def _measure(self, values: Mapping[str, Tensor], rows: Rows, networks: slice) -> None:
        """Set the largest pre-activations of each stage by pair, at the vertices; refuse what float64 cannot tell."""
        for place, stage in enumerate(self.graph.stages):
            z = flat(values[stage.source])
            np.maximum.at(self.largest[place], rows.pair, z.abs().numpy().max(1, initial=0.0))
            highest = float(self.largest[place][rows.pair].max())
            if not np.isfinite(highest):
                raise InvalidInputError(
                    f"the model's numbers must be finite along the path; they overflow float64 at {stage.name}"
                )
            apart = stage.pieces.apart if isinstance(stage.pieces, Elementwise) else np.inf
            if apart <= 4 * ERROR * highest:
                raise InvalidInputError(
                    f"the model's weights are too large: pre-activations at {stage.name} reach {highest:.1e}, and float64 cannot "
                    f"tell boundaries that are {apart:g} apart from one another; scale the weights down"
                )
            if place + 1 < len(self.graph.stages):
                h = stage.pieces(z)
                values = self._next(place, {stage.result: h}, values, networks, self._edges(rows, networks))

    def _next(
        self, place: int, result: dict[str, Tensor], values: Mapping[str, Tensor], networks: slice, edges: Sequence[int]
    ) -> dict[str, Tensor]:
        """Return the values after the affine map of the stage above, from the result of a stage and what is alive."""
        stage, above = self.graph.stages[place], self.graph.stages[place + 1]
        ((name, h),) = result.items()
        if isinstance(above.affine, Linear):
            return {above.source: above.affine.rows(h, networks, edges)}
        return above.affine({**{one: values[one] for one in stage.alive}, name: h.view(len(h), *stage.shape)})

    def _edges(self, rows: Rows, networks: slice) -> list[int]:
        """Return the rows with which each of some networks begins and the last ends."""
        starts = np.arange(networks.start, networks.stop + 1) * self.paths
        edges: list[int] = np.searchsorted(rows.pair, starts).tolist()
        return edges

    def _parts(self, begins: Array) -> Iterator[slice]:
        """Divide rows, of which pieces begin with `begins`, into parts of about the walk's size."""
        step = self.geometry.step
        count = max(1, -(-len(begins) * step // self.size))
        for start, stop in itertools.pairwise(len(begins) * part // count for part in range(count + 1)):
            if start < stop:
                yield slice(int(begins[start]), int(begins[stop - 1]) + step + 1)

    def _descend(self, values: dict[str, Tensor], rows: Rows) -> None:
        """Take rows through all stages, each part to the last before the next."""
        going = [self._stage(0, values, rows)]
        while going:
            part = next(going[-1], None)
            if part is None:
                going.pop()
            else:
                going.append(self._stage(len(going), *part))

    def _stage(self, place: int, values: dict[str, Tensor], rows: Rows) -> Iterator[tuple[dict[str, Tensor], Rows]]:
        """Count the changes of a stage, and yield the values of the stage above with a row at each, part by part."""
        stage = self.graph.stages[place]
        z = flat(values[stage.source]).numpy()
        errors = ERROR * self.largest[place]
        last = place + 1 == len(self.graph.stages)
        if last and not self.keep:
            counts = self.geometry.count(z, rows, stage.pieces, errors)
            np.add.at(self.counts[:, place], rows.pair[self.geometry.begins(rows.pair)], counts)
            return
        found = self.geometry.find(z, rows, stage.pieces, errors)
        pair = rows.pair[found.piece]
        np.add.at(self.counts[:, place], pair, 1)
        if self.keep:
            self.kept.append((pair, np.full_like(pair, place), found.unit, found.boundary, found.t))
        if last:
            return
        insertion = self.geometry.insert(rows, found)
        for here in self._parts(insertion.begins):
            yield self._above(place, values, z, insertion, here), insertion.rows[here]

    def _above(self, place: int, values: Mapping[str, Tensor], z: Array, insertion: Insertion, here: slice) -> dict[str, Tensor]:
        """Return the values after the affine map of the stage above, at some of the rows."""
        stage, above = self.graph.stages[place], self.graph.stages[place + 1]
        part = insertion.rows[here]
        networks = slice(int(part.pair[0]) // self.paths, int(part.pair[-1]) // self.paths + 1)
        edges = self._edges(part, networks)
        if isinstance(above.affine, Linear) and isinstance(stage.pieces, Elementwise):
            largest = self.largest[place + 1]
            return {
                above.source: self.geometry.products(z, stage.pieces, insertion, here, above.affine, networks, edges, largest)
            }
        if isinstance(stage.pieces, Elementwise):
            h = torch.from_numpy(self.geometry.activations(z, stage.pieces, insertion, here))
        else:
            h = stage.pieces(torch.from_numpy(self.geometry.mixed(z, insertion, here)))
        alive = {name: self._alive(values[name], insertion, here) for name in stage.alive}
        return self._next(place, {stage.result: h}, alive, networks, edges)

    def _alive(self, value: Tensor, insertion: Insertion, here: slice) -> Tensor:
        mixed = self.geometry.mixed(flat(value).numpy(), insertion, here)
        return torch.from_numpy(mixed).view(len(mixed), *value.shape[1:])
