"""Crossings along straight segments: what `crossings.py` asks of the geometry of polylines."""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..paths import Polyline
from .crossings import Found, Rows, Walk, above_, where
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
    """

    def __init__(self, paths: Sequence[Polyline], rounding: Rounding | None) -> None:
        self.paths, self.rounding = paths, rounding

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

    def find(self, walk: Walk, layer: int, z: Tensor, rows: Rows) -> Found:
        """See `Geometry`."""
        W = z.shape[1]
        ends = where(rows.trace[1:] != rows.trace[:-1])
        flat, boundary = [], []
        for number, limit in enumerate(walk.activation.boundaries):
            if self.rounding is None:
                sides = above_(z.new_empty(z.shape, dtype=torch.bool), z, limit)
            else:
                sides = self.rounding.sides(walk, layer, z, rows, number)
            changes = sides[1:] ^ sides[:-1]
            changes[ends] = False
            flat.append(where(changes))
            boundary.append(torch.full_like(flat[-1], number))
        place, crossed = torch.cat(flat), torch.cat(boundary)
        limits = torch.tensor(walk.activation.boundaries, dtype=z.dtype, device=z.device)
        begin, end = z.view(-1)[place], z.view(-1)[place + W]
        # Where rounding has put both ends on one side the nearer end is the crossing.
        tau = ((limits[crossed] - begin) / (end - begin)).nan_to_num(0.5).clamp(0, 1)
        piece = place // W
        order = torch.argsort(piece + tau.double(), stable=True)
        piece, tau = piece[order], tau[order]
        t = torch.lerp(rows.t[piece], rows.t[piece + 1], tau.double())
        return Found(piece, (place % W)[order], crossed[order], tau, t)

    def parts(self, z: Tensor, rows: Rows, found: Found, names: Tensor, size: int) -> Iterator[tuple[Tensor, Rows, Tensor]]:
        """See `Geometry`."""
        R, n = len(z), len(found.piece)
        before = torch.arange(R, device=z.device).repeat_interleave(torch.bincount(found.piece, minlength=R) + 1)
        new = found.piece + 1 + torch.arange(n, device=z.device)
        trace, t, born = (column[before] for column in (rows.trace, rows.t, rows.born))
        t[new], born[new] = found.t, names
        pieces = R + n - 1
        count = max(1, -(-pieces // size))
        edges = [pieces * part // count for part in range(count + 1)]
        # In which parts the new rows are.
        cuts = torch.searchsorted(new, torch.tensor(edges, device=z.device)).tolist()
        for part, (start, end) in enumerate(itertools.pairwise(edges)):
            stop = end + 1
            values = z.index_select(0, before[start:stop])
            some = slice(cuts[part], cuts[part + 1] + int(cuts[part + 1] < n and int(new[cuts[part + 1]]) == end))
            piece = found.piece[some]
            between = torch.lerp(z.index_select(0, piece), z.index_select(0, piece + 1), found.place[some].unsqueeze(1))
            places = new[some] - start
            values.index_copy_(0, places, between)
            yield values, Rows(trace[start:stop], t[start:stop], born[start:stop]), places


def vertices(path: Polyline) -> Tensor:
    """Return the vertices of a polyline, the first again at the end of a closed one; `[M, D]` or `[M + 1, D]`."""
    return torch.cat([path.vertices, path.vertices[:1]]) if path.closed else path.vertices
