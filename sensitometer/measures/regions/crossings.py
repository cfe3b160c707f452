r"""
Every crossing of a boundary by a hidden unit along paths: exact, for piecewise-linear activations (paper, S3, A.1.2).

Where no unit of the layers below changes its piece, the pre-activations of a layer are linear along a straight segment. So, layer
by layer: evaluate the pre-activations at the breakpoints known so far, find where each unit crosses its boundaries between
neighbouring breakpoints by interpolation, and make these crossings breakpoints too. The last hidden layer needs no new
breakpoints. Along an ellipse pre-activations are quadratic in the tangent of half the angle, and the same holds.

Where a unit crosses a boundary, the line that the layer above is on turns, by the unit's weights and by how fast it was going. So
on straight segments only the vertices and the breakpoints of layers further below take a product; what a layer's own crossings
make of the layer above is interpolated, in a few operations a unit instead of a few for each of its weights.

Breakpoints of many paths and networks go through each layer together, in chunks: the breakpoints of a
chunk that has grown too long are divided, and each part goes down to the last layer before the next part starts, so that memory
is bounded by the depth, not by the number of crossings.

`rounding.py` says how float32 gives the counts of float64. In float64 itself, what is within its rounding error of a boundary is
on it, and crossings of a piece whose places differ by no more coincide: all units of a network without biases are 0 together
where a path goes through 0, and if rounding parted them, all layers above would be noise in between.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ...activations import Activation

# Pre-activations in a chunk: so many that what is done once a chunk does not count, and that they stay in a large last cache.
CHUNK = 2**21
# Pre-activations of the first layer that are computed at once, for many paths and networks.
FIRST_CHUNK = 2**22
# The rounding error of float64 pre-activations, as a fraction of the largest one of the layer at the vertices of the path.
ERROR = 2.0**-46
# Crossings farther apart, in the path's parameter, never coincide, however slow their units are.
APART = 1e-9


@dataclass(frozen=True)
class Rows:
    """
    Where the rows of a chunk of pre-activations `[R, W]` lie; those of one trace in a row, in the order of the path.

    A trace is one network along one path; its number is the network's times the number of paths, plus the path's.

    Attributes
    ----------
    trace
        int64 `[R]`, not decreasing.
    t
        float64 `[R]`, the path's parameter.
    born
        int64 `[R]`: the crossing that made a row a breakpoint, as `Walk.name` numbers it; below 0 for other points of the path.
    """

    trace: Tensor
    t: Tensor
    born: Tensor


@dataclass(frozen=True)
class Found:
    """
    Crossings in a chunk, in the order of `piece`, then of the path.

    Attributes
    ----------
    piece
        int64 `[n]`, the row that the piece of the path begins with.
    unit, boundary
        int64 `[n]`, which unit crosses which of its boundaries.
    place
        `[n]`, where on the piece, as its geometry counts.
    t
        float64 `[n]`, the path's parameter.
    change
        `[n]`, how much the unit changes along the piece; infinite where the layer above may not be interpolated on it, as at one
        of the ends some unit is not sure of its side.
    """

    piece: Tensor
    unit: Tensor
    boundary: Tensor
    place: Tensor
    t: Tensor
    change: Tensor


class Geometry(Protocol):
    """What differs between straight segments and arcs of an ellipse."""

    def first_layer(self, first: Tensor, paths: slice) -> tuple[Tensor, Rows]:
        """Return the first pre-activations `[S, R, W]` for weights `[S, W, D]`, and their rows for the first network."""

    def lengths(self, paths: slice) -> list[int]:
        """Return how many points each path has."""

    def count(self, walk: "Walk", layer: int, z: Tensor, rows: Rows) -> None:
        """Add the crossings of a layer with pre-activations `z` `[R, W]` to the walk's counts."""

    def find(self, walk: "Walk", layer: int, z: Tensor, rows: Rows) -> Found:
        """Return these crossings."""

    def parts(self, walk: "Walk", layer: int, z: Tensor, rows: Rows, found: Found) -> Iterator[tuple[Tensor, Rows]]:
        """
        Divide the rows, with a new breakpoint at each crossing, into parts of about the walk's `size`.

        Yields the pre-activations `[n, W]` of the layer above at the rows of a part, and the rows; the last and the first of
        neighbouring parts are the same point. At a crossing the unit is on its boundary, whatever interpolation has rounded to.
        """


@dataclass
class Crossings:
    """
    What a walk has found.

    Attributes
    ----------
    counts
        int64 `[S P, L - 1]`: for each trace, the crossings of each hidden layer.
    trace, layer, unit, boundary, t
        The crossings one by one, in no order, if they were kept; int64 `[n]`, and float64 `[n]`.
    """

    counts: Tensor
    trace: Tensor
    layer: Tensor
    unit: Tensor
    boundary: Tensor
    t: Tensor


class Walk:
    """
    Takes networks along paths.

    Parameters
    ----------
    weights
        The `L - 1` hidden layers `[S, fan_out, fan_in]`, in the type to compute in.
    activation
        Piecewise linear.
    geometry
        The paths.
    count
        How many paths there are, P.
    keep
        Whether the crossings are kept one by one, or only counted.
    """

    def __init__(self, weights: Sequence[Tensor], activation: Activation, geometry: Geometry, count: int, *, keep: bool) -> None:
        self.activation, self.geometry, self.paths, self.keep = activation, geometry, count, keep
        # Of the layers above the first, [S, fan_in, fan_out]: what a unit adds to the layer above it is a row.
        self.first, self.above = weights[0], [weight.transpose(1, 2).contiguous() for weight in weights[1:]]
        self.networks, self.width = len(weights[0]), max(weight.shape[1] for weight in weights)
        self.device, self.dtype = weights[0].device, weights[0].dtype
        self.limits = torch.tensor(activation.boundaries, dtype=self.dtype, device=self.device)
        self.size = max(64, CHUNK // self.width)
        # Of pre-activations in float64, by trace and layer.
        self.errors = torch.zeros(self.networks * count, len(weights), dtype=torch.float64, device=self.device)
        self.counts = torch.zeros(self.networks * count, len(weights), dtype=torch.int64, device=self.device)
        self.kept: list[tuple[Tensor, ...]] = []

    def name(self, layer: int, unit: Tensor, boundary: Tensor) -> Tensor:
        """Return the numbers of crossings: of which layer, unit and boundary."""
        return (layer * self.width + unit) * len(self.activation.boundaries) + boundary

    def named(self, name: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the layer, unit and boundary of crossings with these numbers; below 0, of none, the layer is -1."""
        unit = name // len(self.limits)
        return unit // self.width, unit % self.width, name % len(self.limits)

    def run(self) -> Crossings:
        """Walk all paths and return what was found."""
        for paths in self._batches():
            z, rows = self.geometry.first_layer(self.first, paths)
            step = max(1, self.size // len(rows.t))
            for start in range(0, self.networks, step):
                networks = torch.arange(start, min(start + step, self.networks), device=self.device)
                trace = (networks.unsqueeze(1) * self.paths + paths.start + rows.trace).flatten()
                several = Rows(trace, rows.t.repeat(len(networks)), rows.born.repeat(len(networks)))
                some = z[start : start + step]
                if self.dtype == torch.float64:
                    self._measure_errors(some, networks, paths, rows.trace)
                self._descend(0, some.flatten(0, 1), several)
        columns = [torch.cat(column) for column in zip(*self.kept, strict=True)] if self.kept else self._none()
        return Crossings(self.counts, *columns)

    def _batches(self) -> Iterator[slice]:
        """Yield the paths, as many at a time as the first layer's chunk, or one network's chunk, holds."""
        most = min(self.size, max(1, FIRST_CHUNK // (self.networks * self.first.shape[1])))
        start, points = 0, 0
        for path, length in enumerate(self.geometry.lengths(slice(0, self.paths))):
            if points and points + length > most:
                yield slice(start, path)
                start, points = path, 0
            points += length
        yield slice(start, self.paths)

    def _none(self) -> list[Tensor]:
        empty = torch.zeros(0, dtype=torch.int64, device=self.device)
        return [empty, empty, empty, empty, empty.double()]

    def _measure_errors(self, z: Tensor, networks: Tensor, paths: slice, path: Tensor) -> None:
        """Set the errors of some networks along some paths, given the first pre-activations `[S, R, W]` and the rows' `path`."""
        columns = []
        for layer in range(len(self.above) + 1):
            largest = z.new_zeros(len(z), paths.stop - paths.start)
            columns.append(largest.scatter_reduce_(1, path.expand(len(z), -1), z.abs().amax(2), "amax"))
            if layer < len(self.above):
                z = torch.bmm(self.activation.apply_(z.clone()), self.above[layer][networks])
        errors = self.errors.view(self.networks, self.paths, -1)
        # What is not finite tells nothing of the error.
        errors[networks, paths] = ERROR * torch.stack(columns, 2).nan_to_num(0.0, 0.0)

    def _descend(self, layer: int, z: Tensor, rows: Rows) -> None:
        if self.dtype == torch.float64:
            errors = self.errors[rows.trace, layer].unsqueeze(1)
            for limit in self.activation.boundaries:
                near = (z - limit).abs_() <= errors
                if near.any():
                    z.masked_fill_(near, limit)
        last = layer == len(self.above)
        if last and not self.keep:
            self.geometry.count(self, layer, z, rows)
            return
        found = self.geometry.find(self, layer, z, rows)
        self.record(layer, rows.trace[found.piece], found.unit, found.boundary, found.t)
        if last:
            return
        for above, part in self.geometry.parts(self, layer, z, rows, found):
            self._descend(layer + 1, above, part)

    def edges(self, rows: Rows) -> tuple[slice, list[int]]:
        """Return the networks of a chunk, and the rows with which each begins and the last ends."""
        first, last = int(rows.trace[0]) // self.paths, int(rows.trace[-1]) // self.paths
        networks = slice(first, last + 1)
        if first == last:
            return networks, [0, len(rows.trace)]
        starts = torch.arange(first, last + 2, device=self.device) * self.paths
        return networks, torch.searchsorted(rows.trace, starts).tolist()

    def record(self, layer: int, trace: Tensor, unit: Tensor, boundary: Tensor, t: Tensor) -> None:
        """Count crossings of a layer, `[n]` each, trace by trace, and keep them if that was asked for."""
        if not len(trace):
            return
        lowest, highest = int(trace[0]), int(trace[-1])
        if lowest == highest:
            self.counts[lowest, layer] += len(trace)
        else:
            self.counts[lowest : highest + 1, layer] += torch.bincount(trace - lowest)
        if self.keep:
            self.kept.append((trace, torch.full_like(trace, layer), unit, boundary, t))


def products(h: Tensor, weights: Tensor, edges: list[int]) -> Tensor:
    """Return `h` `[R, W]` times `weights` `[S, W, fan_out]`: rows from each of the `edges` `[S + 1]` to the next times one."""
    out = h.new_empty(len(h), weights.shape[2])
    for weight, (start, stop) in zip(weights, itertools.pairwise(edges), strict=True):
        torch.mm(h[start:stop], weight, out=out[start:stop])
    return out


def coincident(found: Found, error: Tensor) -> Found:
    """
    Put crossings of a piece that coincide up to rounding in one place, that of the surest.

    The `error` of each place, `[n]`, is what the unit's rounding error makes of it.
    """
    close = (found.piece[1:] == found.piece[:-1]) & (found.place.diff() <= error[1:] + error[:-1])
    if not close.any():
        return found
    group = torch.cat([close.new_zeros(1), ~close]).cumsum(0)
    order = torch.argsort(error)
    order = order[torch.argsort(group[order], stable=True)]
    surest = order[torch.searchsorted(group[order], group)]
    return replace(found, place=found.place[surest], t=found.t[surest])


def snap(values: Tensor, rows: Tensor, units: Tensor, limits: Tensor, trace: Tensor, t: Tensor) -> None:
    """
    Put the units that cross at new breakpoints on their boundaries, `[n]` each, in `values` `[R, W]`.

    Those of crossings that coincide are put there at each of them: what cancels above these units must cancel exactly. Some of
    the `rows` may be beyond `values`.
    """
    here = (rows >= 0) & (rows < len(values))
    for step in itertools.count():
        same = where((t[step:] == t[: len(t) - step]) & (trace[step:] == trace[: len(t) - step]))
        if not len(same):
            return
        for one, other in ((same, same + step), (same + step, same)):
            chosen = where(here[one])
            values[rows[one[chosen]], units[other[chosen]]] = limits[other[chosen]]


def where(flags: Tensor) -> Tensor:
    """Return the places of the true entries of contiguous `flags`, as if they were one row; int64."""
    if flags.device.type != "cpu":
        return flags.reshape(-1).nonzero().view(-1)
    flat = flags.numpy().reshape(-1)
    # Few are true: it takes a third of the time to look for eight together that are not all false, and only then among these.
    whole = len(flat) // 8 * 8 if len(flat) > 2**12 else 0
    if not whole:
        return torch.from_numpy(np.flatnonzero(flat))
    eights = np.flatnonzero(flat[:whole].view(np.int64) != 0)
    inner = np.flatnonzero(flat[:whole].reshape(-1, 8)[eights])
    places = eights[inner >> 3] * 8 + (inner & 7)
    if whole < len(flat):
        places = np.concatenate([places, whole + np.flatnonzero(flat[whole:])])
    return torch.from_numpy(places)
