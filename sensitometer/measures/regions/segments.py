"""Crossings along straight segments: what `crossings.py` asks of the geometry of polylines."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ...paths import Polyline
from . import compiled_steps, steps
from .crossings import APART, Found, Rows, Walk, coincident
from .rounding import Rounding


class Segments:
    """
    Polylines. A piece is a segment between neighbouring rows, a `place` on it the fraction of it that lies behind.

    Parameters
    ----------
    paths
        The polylines, all of D dimensions.
    rounding
        Decides what is too close for float32; None to take every value as it is.
    device
        Where the networks are.
    """

    def __init__(self, paths: Sequence[Polyline], rounding: Rounding | None, device: torch.device) -> None:
        self.paths, self.rounding = paths, rounding
        self.steps: steps.Steps = compiled_steps if device.type == "cpu" else steps

    def lengths(self, paths: slice) -> list[int]:
        """See `Geometry`. A closed path has its first vertex at its end again."""
        return [len(path.vertices) + path.closed for path in self.paths[paths]]

    def first_layer(self, first: Tensor, paths: slice) -> tuple[Tensor, Rows]:
        """See `Geometry`."""
        points = torch.cat([vertices(path) for path in self.paths[paths]]).to(first)
        z = (points @ first.flatten(0, 1).T).view(len(points), *first.shape[:2]).transpose(0, 1)
        lengths = self.lengths(paths)
        trace = torch.arange(len(lengths), device=first.device).repeat_interleave(torch.tensor(lengths, device=first.device))
        t = torch.cat([torch.arange(length, dtype=torch.float64, device=first.device) for length in lengths])
        return z.contiguous(), Rows(trace, t, torch.full_like(trace, -1))

    def count(self, walk: Walk, layer: int, z: Tensor, rows: Rows) -> None:
        """See `Geometry`."""
        changes = self.steps.changes(self._flags(walk, layer, z, rows), rows.trace)
        walk.counts[:, layer].index_add_(0, rows.trace[:-1], changes)

    def find(self, walk: Walk, layer: int, z: Tensor, rows: Rows) -> Found:
        """See `Geometry`."""
        found = self.steps.crossings(z, self._flags(walk, layer, z, rows), rows, walk.limits)
        if self.rounding is not None:
            return found
        error = walk.errors[rows.trace[found.piece], layer] / found.change
        return coincident(found, error.minimum(APART / (rows.t[found.piece + 1] - rows.t[found.piece])))

    def _flags(self, walk: Walk, layer: int, z: Tensor, rows: Rows) -> Tensor:
        """Return where the pre-activations are, see `steps`; what is too close to tell is left to `rounding`."""
        networks, edges = walk.edges(rows)
        if self.rounding is None:
            exactly = walk.limits.repeat(len(edges) - 1, 1)
            return self.steps.sides(z, edges, exactly, exactly)[0]
        flags, close = self.steps.sides(z, edges, *self.rounding.limits(layer, networks))
        self.rounding.keep(walk, layer, z, rows, flags, close, self.steps)
        return flags

    def parts(self, walk: Walk, layer: int, z: Tensor, rows: Rows, found: Found) -> Iterator[tuple[Tensor, Rows]]:
        """See `Geometry`."""
        insertion = self.steps.merge(rows, found, walk.name(layer, found.unit, found.boundary))
        merged = insertion.rows
        pieces = len(merged.trace) - 1
        count = max(1, -(-pieces // walk.size))
        # A part ends with the row that the next begins with.
        for start, last in itertools.pairwise(pieces * part // count for part in range(count + 1)):
            here = slice(start, last + 1)
            part = Rows(merged.trace[here], merged.t[here], merged.born[here])
            networks, edges = walk.edges(part)
            # What is exact is never interpolated: contributions that cancel must cancel exactly.
            fastest = self.rounding.fastest[networks, layer] if self.rounding else None
            yield self.steps.above(z, insertion, here, walk.activation, walk.above[layer][networks], edges, fastest), part


def vertices(path: Polyline) -> Tensor:
    """Return the vertices of a polyline, the first again at the end of a closed one; `[M, D]` or `[M + 1, D]`."""
    return torch.cat([path.vertices, path.vertices[:1]]) if path.closed else path.vertices
