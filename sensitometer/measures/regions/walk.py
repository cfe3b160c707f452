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
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...errors import InvalidInputError
from .geometry import Geometry
from .graph import Elementwise, Graph, Linear, Networks, flat
from .rows import Breakpoints, Rows, insert, mixed, piece_begins

Array = Any

# Numbers in a chunk of rows: so many that what is done once per chunk does not count, so few that they stay in a large cache.
CHUNK = 2**20
# Rows of a chunk at least: a part begins with the row that the part before ends with.
FEWEST = 16
# Numbers of the first stage that are computed at once, for many paths and networks.
FIRST_CHUNK = 2**22
# The rounding error of pre-activations, as a fraction of the largest one of the stage at the vertices of the path.
ERROR = 2.0**-46


class Crossings(NamedTuple):
    """Changes of pieces, in no order; int64 `[n]`, but for the path's parameter t, float64 `[n]`."""

    network: Array
    path: Array
    stage: Array
    unit: Array
    boundary: Array
    t: Array


class Walk:
    """
    Takes a model, or S networks, along P paths.

    It counts the changes of each pair and stage in `counts`, int64 `[S P, stages]`, and with `keep` lists them in `kept`.
    """

    def __init__(self, graph: Graph, geometry: Geometry, *, keep: bool) -> None:
        self.graph, self.geometry, self.keep, self.paths = graph, geometry, keep, len(geometry.lengths)
        self.size = max(FEWEST, CHUNK // graph.width)
        self.largest = np.zeros((len(graph.stages), graph.networks * self.paths))
        self.counts = np.zeros((graph.networks * self.paths, len(graph.stages)), np.int64)
        self.kept: list[Crossings] = []

    @torch.no_grad()
    def run(self) -> None:
        """
        Walk all paths.

        Raises
        ------
        InvalidInputError
            Pre-activations are not finite, or so large that float64 cannot tell the boundaries of a unit apart.
        """
        for paths in self._batches():
            points, rows = self.geometry.vertices(paths)
            parts = list(self._parts(rows))
            # The errors of a path are those of all its vertices: a long one is taken twice, part by part.
            for measuring, descending in ((True, True),) if len(parts) == 1 else ((True, False), (False, True)):
                for here in parts:
                    for networks, values in self._first(points[here]):
                        pairs = np.arange(networks.start, networks.stop)[:, None] * self.paths + paths.start + rows.pair[here]
                        all_rows = Rows(pairs.ravel(), np.tile(rows.t[here], len(pairs)))
                        if measuring:
                            self._measure(values, all_rows)
                        if descending:
                            for part in self._parts(all_rows):
                                self._descend({name: value[part] for name, value in values.items()}, all_rows.part(part))

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
        stage, count = self.graph.stages[0], self.graph.networks
        if not isinstance(stage.affine, Linear):
            yield slice(0, 1), stage.affine({self.graph.input: points})
            return
        z = stage.affine.shared(flat(points), slice(0, count))
        step = max(1, self.size // len(points))
        for start in range(0, count, step):
            networks = slice(start, min(start + step, count))
            yield networks, {stage.source: z[networks].flatten(0, 1)}

    def _measure(self, values: Mapping[str, Tensor], rows: Rows) -> None:
        """Set the largest pre-activations of each stage by pair, at the vertices; refuse what float64 cannot tell."""
        networks = self._networks(rows)
        for number, stage in enumerate(self.graph.stages):
            z = flat(values[stage.source])
            np.maximum.at(self.largest[number], rows.pair, z.abs().numpy().max(1, initial=0.0))
            highest = float(self.largest[number][rows.pair].max())
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
            if number + 1 < len(self.graph.stages):
                values = self._next(number, stage.pieces(z), values, networks)

    def _next(self, number: int, h: Tensor, values: Mapping[str, Tensor], networks: Networks) -> dict[str, Tensor]:
        """Return the values after the affine map of the stage above, from a stage's result `[R, W]` and what is alive."""
        stage, above = self.graph.stages[number : number + 2]
        if isinstance(above.affine, Linear):
            return {above.source: above.affine.rows(h, networks)}
        alive = {name: values[name] for name in stage.alive}
        return above.affine({**alive, stage.result: h.view(len(h), *stage.shape)})

    def _networks(self, rows: Rows) -> Networks:
        """Return the networks at rows, each with the part of the rows that is its own."""
        first, last = int(rows.pair[0]) // self.paths, int(rows.pair[-1]) // self.paths
        edges = np.searchsorted(rows.pair, np.arange(first, last + 2) * self.paths).tolist()
        return [(first + number, slice(*part)) for number, part in enumerate(itertools.pairwise(edges))]

    def _parts(self, rows: Rows) -> Iterator[slice]:
        """Divide rows into parts of about the walk's size, each of whole pieces."""
        step = self.geometry.step
        begins = piece_begins(rows.pair, step)
        count = max(1, -(-len(begins) * step // self.size))
        for start, stop in itertools.pairwise(len(begins) * part // count for part in range(count + 1)):
            if start < stop:
                yield slice(int(begins[start]), int(begins[stop - 1]) + step + 1)

    def _descend(self, values: dict[str, Tensor], rows: Rows) -> None:
        """Take rows through all stages, each part to the last before the next."""
        stages = [self._stage(0, values, rows)]
        while stages:
            part = next(stages[-1], None)
            if part is None:
                stages.pop()
            else:
                stages.append(self._stage(len(stages), *part))

    def _stage(self, number: int, values: dict[str, Tensor], rows: Rows) -> Iterator[tuple[dict[str, Tensor], Rows]]:
        """Count the changes of a stage, and yield the values of the stage above with a row at each, part by part."""
        stage = self.graph.stages[number]
        z = flat(values[stage.source]).numpy()
        errors = ERROR * self.largest[number]
        last = number + 1 == len(self.graph.stages)
        if last and not self.keep:
            np.add.at(self.counts[:, number], rows.pair, self.geometry.count(z, rows, stage.pieces, errors))
            return
        changes = self.geometry.changes(z, rows, stage.pieces, errors)
        pair = rows.pair[changes.row]
        np.add.at(self.counts[:, number], pair, 1)
        if self.keep:
            network, path = np.divmod(pair, self.paths)
            self.kept.append(Crossings(network, path, np.full_like(pair, number), changes.unit, changes.boundary, changes.t))
        if last:
            return
        breakpoints: Breakpoints = insert(rows, changes, self.geometry.step)
        for here in self._parts(breakpoints.rows):
            part = breakpoints.part(here)
            yield self._above(number, values, z, part), part.rows

    def _above(self, number: int, values: Mapping[str, Tensor], z: Array, breakpoints: Breakpoints) -> dict[str, Tensor]:
        """Return the values after the affine map of the stage above."""
        stage, above = self.graph.stages[number : number + 2]
        networks, largest = self._networks(breakpoints.rows), self.largest[number + 1]
        if isinstance(above.affine, Linear) and isinstance(stage.pieces, Elementwise):
            return {above.source: self.geometry.products(z, stage.pieces, breakpoints, above.affine, networks, largest)}
        if isinstance(stage.pieces, Elementwise):
            h = torch.from_numpy(self.geometry.activations(z, stage.pieces, breakpoints))
        else:
            h = stage.pieces(self._mixed(z, breakpoints))
        alive = {name: self._mixed(flat(values[name]).numpy(), breakpoints) for name in stage.alive}
        alive = {name: value.view(len(value), *values[name].shape[1:]) for name, value in alive.items()}
        return self._next(number, h, alive, networks)

    def _mixed(self, values: Array, breakpoints: Breakpoints) -> Tensor:
        return torch.from_numpy(mixed(values, breakpoints, self.geometry.step))
