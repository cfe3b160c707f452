r"""
The steps of a walk along straight segments, in torch: on any device, and the plain twin of `compiled_steps.py`.

Where units are is kept as flags, uint8 `[B, R, W]` for B boundaries: ABOVE if a pre-activation is above the boundary, CLOSE if it
is within its rounding error of it, where ABOVE may be wrong. Beyond the W units flags may be padded with zeros.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ...activations import Activation
from .crossings import Found, Rows, products, snap

# `compiled_steps.py` has them in its machine code, which is kept until that file changes.
ABOVE, CLOSE = 1, 2


@dataclass(frozen=True)
class Insertion:
    """
    How breakpoints are put between the rows of a chunk.

    Attributes
    ----------
    rows
        Old rows and new ones, R + n together, in the order of the path.
    before
        int64 `[R + n]`: the old row that each is, or follows.
    crossing
        int64 `[R + n]`: which of the crossings found each is, -1 for an old row.
    found
        These crossings.
    """

    rows: Rows
    before: Tensor
    crossing: Tensor
    found: Found


class Steps(Protocol):
    """What is done once a unit at each row of a chunk."""

    def sides(self, z: Tensor, edges: list[int], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """
        Return the flags of pre-activations `z` `[R, W]`, and how many of each row are close to a boundary, int64 `[B, R]`.

        The rows of each network begin at one of the `edges` `[S + 1]` and end at the next. What is between `low` and `high`, of
        the type of `z`, `[S, B]`, is close to a boundary.
        """

    def changes(self, flags: Tensor, trace: Tensor) -> Tensor:
        """Return how many crossings there are between each row and the next of its `trace`, int64 `[R - 1]`."""

    def crossings(self, z: Tensor, flags: Tensor, rows: Rows, limits: Tensor) -> Found:
        """Return the crossings of boundaries at `limits` `[B]`, of the type of `z`."""

    def doubts(
        self, layer: int, z: Tensor, flags: Tensor, rows: Rows, close: Tensor, limits: Tensor, counts: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """
        Return what is close to a boundary of a layer, so many of each row, `close` `[B, R]`; as the columns of `settling.Cases`.

        Their numbers are added up in `counts`, by trace. Rows of each boundary are numbered apart from those of the last.
        """

    def merge(self, rows: Rows, found: Found, names: Tensor) -> Insertion:
        """Put the crossings of a chunk between its rows; `names` `[n]` are what the new rows are `born` as."""

    def above(
        self,
        z: Tensor,
        insertion: Insertion,
        here: slice,
        activation: Activation,
        weights: Tensor,
        edges: list[int],
        fastest: Tensor | None,
    ) -> Tensor:
        """
        Return the pre-activations `[n, fan_out]` of the layer above at some of the rows, `here`.

        `z` `[R, W]` are those of the layer itself at the old rows; a crossing is where the unit is on its boundary, whatever
        interpolation has rounded to. The rows here of a network, whose weights are one of `weights` `[S, W, fan_out]`, begin at
        one of the `edges` `[S + 1]` and end at the next. With `fastest`, float32 `[S]`, crossings may be interpolated, of units
        that change no more than that along their piece.
        """


def sides(z: Tensor, edges: list[int], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """See `Steps`."""
    lengths = torch.tensor(edges, device=z.device).diff()
    low, high = (limit.repeat_interleave(lengths, 0).T.unsqueeze(2) for limit in (low, high))
    above = z > low
    close = above & (z <= high)
    return above.byte() * ABOVE + close.byte() * CLOSE, close.sum(2)


def _changed(flags: Tensor, trace: Tensor) -> Tensor:
    """Return where neighbours of a trace are on different sides, bool `[B, R - 1, W]`."""
    return (((flags[:, 1:] ^ flags[:, :-1]) & ABOVE) != 0) & (trace[1:] == trace[:-1]).unsqueeze(1)


def changes(flags: Tensor, trace: Tensor) -> Tensor:
    """See `Steps`."""
    return _changed(flags, trace).sum((0, 2))


def crossings(z: Tensor, flags: Tensor, rows: Rows, limits: Tensor) -> Found:
    """See `Steps`."""
    boundary, piece, unit = _changed(flags, rows.trace).nonzero().unbind(1)
    begin, end = z[piece, unit], z[piece + 1, unit]
    # Where rounding has put both ends on one side the nearer end is the crossing.
    share = ((limits[boundary] - begin) / (end - begin)).nan_to_num_(0.5).clamp_(0, 1)
    # Twice: the end of a piece comes before the beginning of the next.
    order = torch.argsort(2 * piece + share.double(), stable=True)
    piece, unit, boundary, share = piece[order], unit[order], boundary[order], share[order]
    near = ((flags & CLOSE) != 0).any(2).any(0)
    t = torch.lerp(rows.t[piece], rows.t[piece + 1], share.double())
    change = (z[piece + 1, unit] - z[piece, unit]).abs()
    return Found(piece, unit, boundary, share, t, change.masked_fill(near[piece] | near[piece + 1], torch.inf))


def doubts(
    layer: int, z: Tensor, flags: Tensor, rows: Rows, close: Tensor, limits: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Steps`."""
    boundary, row, unit = (flags & CLOSE).nonzero().unbind(1)
    trace = rows.trace[row]
    counts.index_add_(0, rows.trace, close.sum(0))
    neighbours = torch.stack([row - 1, row + 1])
    there = neighbours.clamp(0, len(z) - 1)
    known = (there == neighbours) & (rows.trace[there] == trace)
    beside = flags[boundary, there, unit]
    side = torch.where(known, (beside & ABOVE).long(), -1)
    once = (known & (beside & CLOSE == 0)).all(0) & (side[0] != side[1])
    name = boundary * (len(z) + 2) + row
    what = name, torch.full_like(row, layer), unit, boundary, trace, rows.born[row], (~once).long(), *side
    every = torch.stack([row, *there])
    return torch.stack(what), rows.t[every], z[every, unit].double() - limits[boundary]


def merge(rows: Rows, found: Found, names: Tensor) -> Insertion:
    """See `Steps`."""
    R, n = len(rows.trace), len(found.piece)
    before = torch.arange(R, device=names.device).repeat_interleave(torch.bincount(found.piece, minlength=R) + 1)
    new = found.piece + 1 + torch.arange(n, device=names.device)
    trace, t, born, crossing = rows.trace[before], rows.t[before], rows.born[before], torch.full_like(before, -1)
    t[new], born[new], crossing[new] = found.t, names, torch.arange(n, device=names.device)
    return Insertion(Rows(trace, t, born), before, crossing, found)


def above(
    z: Tensor,
    insertion: Insertion,
    here: slice,
    activation: Activation,
    weights: Tensor,
    edges: list[int],
    fastest: Tensor | None,
) -> Tensor:
    """See `Steps`. All rows are products."""
    return products(activations(z, insertion, here, activation), weights, edges)


def activations(z: Tensor, insertion: Insertion, here: slice, activation: Activation) -> Tensor:
    """Return the activations `[n, W]` at some of the rows, `here`, from the pre-activations `z` `[R, W]` at the old ones."""
    rows, found, before, crossing = insertion.rows, insertion.found, insertion.before[here], insertion.crossing[here]
    values = z.index_select(0, before)
    new = (crossing >= 0).nonzero().view(-1)
    values[new] = values[new].lerp_(z.index_select(0, before[new] + 1), found.place[crossing[new]].unsqueeze(1))
    limits = torch.tensor(activation.boundaries, dtype=z.dtype, device=z.device)[found.boundary]
    every = (insertion.crossing >= 0).nonzero().view(-1)
    snap(values, every - here.start, found.unit, limits, rows.trace[every], rows.t[every])
    return activation.apply_(values)
