"""Crossings along straight segments: what `crossings.py` asks of the geometry of polylines."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

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
        ends = where(rows.trace[1:] != rows.trace[:-1]) if rows.trace[0] != rows.trace[-1] else None
        flat, boundary = [], []
        for number, limit in enumerate(walk.activation.boundaries):
            sides = self._sides(walk, layer, z, rows, number, limit)
            changes = sides[1:] ^ sides[:-1]
            if ends is not None:
                changes[ends] = False
            flat.append(where(changes))
            boundary.append(torch.full_like(flat[-1], number))
        place, crossed = torch.cat(flat), torch.cat(boundary)
        piece = place // W
        unit = place - piece * W
        begin, end = (z.view(-1)[rows.place(row) * W + unit] for row in (piece, piece + 1))
        # Where rounding has put both ends on one side the nearer end is the crossing.
        tau = ((walk.limits[crossed] - begin) / (end - begin)).nan_to_num_(0.5).clamp_(0, 1)
        # Twice: the end of a piece comes before the beginning of the next.
        order = torch.argsort(2 * piece + tau.double(), stable=True)
        piece, unit, crossed, tau = piece[order], unit[order], crossed[order], tau[order]
        t = torch.lerp(rows.t[piece], rows.t[piece + 1], tau.double())
        return Found(piece, unit, crossed, tau, t)

    def _sides(self, walk: Walk, layer: int, z: Tensor, rows: Rows, number: int, limit: float) -> Tensor:
        """Return which pre-activations are above a boundary, bool `[R, W]`, in the order of the path."""
        if self.rounding is not None:
            return self.rounding.sides(walk, layer, z, rows, number)
        z = z[: len(rows.trace)]
        sides = above_(torch.empty_like(z, dtype=torch.bool), z, limit)
        return sides if rows.stored is None else sides.index_select(0, rows.stored)

    def parts(self, z: Tensor, rows: Rows, found: Found, names: Tensor, size: int) -> Iterator[tuple[Tensor, Rows, Tensor]]:
        """See `Geometry`."""
        R, n = len(rows.trace), len(found.piece)
        before = torch.arange(R, device=z.device).repeat_interleave(torch.bincount(found.piece, minlength=R) + 1)
        new = found.piece + 1 + torch.arange(n, device=z.device)
        trace, t, born = rows.trace[before], rows.t[before], rows.born[before]
        t[new], born[new] = found.t, names
        points = _Points(new, rows.place(found.piece), rows.place(found.piece + 1), found.place.unsqueeze(1))
        if R + n <= min(len(z), size + 1):
            points.write(z[:R], z[R : R + n])
            stored = rows.place(before)
            stored[new] = torch.arange(R, R + n, device=z.device)
            yield z[: R + n], Rows(trace, t, born, stored), new
            return
        pieces = R + n - 1
        count = max(1, -(-pieces // size))
        edges = [pieces * part // count for part in range(count + 1)]
        # Which new rows are in which part; a part ends with the row that the next begins with.
        limits = torch.tensor([edges[:-1], [edge + 1 for edge in edges[1:]]], device=z.device)
        cuts = torch.searchsorted(new, limits).T.tolist()
        for (start, last), cut in zip(itertools.pairwise(edges), cuts, strict=True):
            here = slice(start, last + 1)
            part = Rows(trace[here], t[here], born[here])
            # No name here keeps what is yielded in memory.
            yield self._part(z, rows, part, before[here], points.some(slice(*cut), start), size)

    def _part(self, z: Tensor, rows: Rows, part: Rows, before: Tensor, new: "_Points", size: int) -> tuple[Tensor, Rows, Tensor]:
        """Return what `parts` yields for the rows of a part; `before` `[R]` names the old row that each is or follows."""
        R = len(before)
        old = R - len(new.place)
        # The first of its old rows, which are all in a row.
        first = int(before[0]) + int(old < R and new.place[0] == 0)
        values, stored = z.new_empty(max(R, size + 1), z.shape[1]), before - first
        torch.index_select(z, 0, rows.place(torch.arange(first, first + old, device=z.device)), out=values[:old])
        new.write(z, values[old:R])
        stored[new.place] = torch.arange(old, R, device=z.device)
        if part.trace[0] // len(self.paths) != part.trace[-1] // len(self.paths):
            # Those of each network in a row.
            return values.index_select(0, stored), part, new.place
        return values, Rows(part.trace, part.t, part.born, stored), new.place


@dataclass(frozen=True)
class _Points:
    """
    New breakpoints.

    Attributes
    ----------
    place
        int64 `[n]`, which rows they are.
    begin, end, share
        int64 `[n]`, between which old pre-activations they lie, and `[n, 1]`, what fraction of the piece is behind them.
    """

    place: Tensor
    begin: Tensor
    end: Tensor
    share: Tensor

    def some(self, which: slice, start: int) -> "_Points":
        """Return some of them, their rows counted from `start`."""
        return _Points(self.place[which] - start, self.begin[which], self.end[which], self.share[which])

    def write(self, z: Tensor, out: Tensor) -> None:
        """Write their pre-activations `[n, W]`, from the old ones `z`."""
        torch.index_select(z, 0, self.begin, out=out).lerp_(z.index_select(0, self.end), self.share)


def vertices(path: Polyline) -> Tensor:
    """Return the vertices of a polyline, the first again at the end of a closed one; `[M, D]` or `[M + 1, D]`."""
    return torch.cat([path.vertices, path.vertices[:1]]) if path.closed else path.vertices
