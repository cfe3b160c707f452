r"""
Every crossing of a boundary by a hidden unit along paths: exact, for piecewise-linear activations (paper, S3, A.1.2).

Where no unit of the layers below changes its piece, the pre-activations of a layer are linear along a straight segment. So, layer
by layer: evaluate the pre-activations at the breakpoints known so far, find where each unit crosses its boundaries between
neighbouring breakpoints by interpolation, and make these crossings breakpoints too. The last hidden layer needs no new
breakpoints. Along an ellipse pre-activations are quadratic in the tangent of half the angle, and the same holds.

Breakpoints of many paths and networks go through each layer together, in chunks that stay in the cache: the breakpoints of a
chunk that has grown too long are divided, and each part goes down to the last layer before the next part starts, so that memory
is bounded by the depth, not by the number of crossings. In a chunk that is not divided new breakpoints go behind the old ones,
which need not be moved: only their order on the path is kept up to date.

`rounding.py` says how float32 gives the counts of float64.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from ..activations import Activation

# Pre-activations in a chunk: so many that what is done once a chunk does not count, and that they stay in the last cache.
CHUNK = 2**20
# Pre-activations of the first layer that are computed at once, for many paths and networks.
FIRST_CHUNK = 2**22
# More than the parameter of any path: with it, places on different traces are different numbers.
SPAN = 2.0**20


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
    stored
        int64 `[R]`: which row of the pre-activations it is, in a chunk of one network; None where they are in this order.
    """

    trace: Tensor
    t: Tensor
    born: Tensor
    stored: Tensor | None = None

    def place(self, row: Tensor) -> Tensor:
        """Return which rows of the pre-activations these rows are; int64, the shape of `row`."""
        return row if self.stored is None else self.stored[row]


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
    """

    piece: Tensor
    unit: Tensor
    boundary: Tensor
    place: Tensor
    t: Tensor


class Geometry(Protocol):
    """What differs between straight segments and arcs of an ellipse."""

    def first_layer(self, first: Tensor, paths: slice) -> tuple[Tensor, Rows]:
        """Return the first pre-activations `[S, R, W]` for weights `[S, W, D]`, and their rows for the first network."""

    def lengths(self, paths: slice) -> list[int]:
        """Return how many points each path has."""

    def find(self, walk: "Walk", layer: int, z: Tensor, rows: Rows) -> Found:
        """Return the crossings of a layer with pre-activations `z` `[R, W]`, behind which there may be room for more rows."""

    def parts(self, z: Tensor, rows: Rows, found: Found, names: Tensor, size: int) -> Iterator[tuple[Tensor, Rows, Tensor]]:
        """
        Divide the rows, with a new breakpoint at each crossing, into parts of about `size` rows.

        Yields the pre-activations `[n, W]` at the rows of a part, the rows, and the rows that are new breakpoints; the last and
        the first of neighbouring parts are the same point.
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
        self.weights, self.activation, self.geometry, self.paths, self.keep = list(weights), activation, geometry, count, keep
        self.networks, self.width = len(weights[0]), max(weight.shape[1] for weight in weights)
        self.device, self.dtype = weights[0].device, weights[0].dtype
        self.limits = torch.tensor(activation.boundaries, dtype=self.dtype, device=self.device)
        self.size = max(64, CHUNK // self.width)
        self.counts = torch.zeros(self.networks * count, len(weights), dtype=torch.int64, device=self.device)
        self.kept: list[tuple[Tensor, ...]] = []

    def name(self, layer: int, unit: Tensor, boundary: Tensor) -> Tensor:
        """Return the numbers of crossings: of which layer, unit and boundary."""
        return (layer * self.width + unit) * len(self.activation.boundaries) + boundary

    def run(self) -> Crossings:
        """Walk all paths and return what was found."""
        for paths in self._batches():
            z, rows = self.geometry.first_layer(self.weights[0], paths)
            step = max(1, self.size // len(rows.t))
            for start in range(0, self.networks, step):
                networks = torch.arange(start, min(start + step, self.networks), device=self.device)
                trace = (networks.unsqueeze(1) * self.paths + paths.start + rows.trace).flatten()
                several = Rows(trace, rows.t.repeat(len(networks)), rows.born.repeat(len(networks)))
                some = self._room(0, len(trace), len(networks))
                torch.cat(list(z[start : start + step]), out=some[: len(trace)])
                self._descend(0, some, several)
        columns = [torch.cat(column) for column in zip(*self.kept, strict=True)] if self.kept else self._none()
        return Crossings(self.counts, *columns)

    def _batches(self) -> Iterator[slice]:
        """Yield the paths, as many at a time as the first layer's chunk, or one network's chunk, holds."""
        most = min(self.size, max(1, FIRST_CHUNK // (self.networks * self.weights[0].shape[1])))
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

    def _descend(self, layer: int, z: Tensor, rows: Rows) -> None:
        found = self.geometry.find(self, layer, z, rows)
        self.record(layer, rows.trace[found.piece], found.unit, found.boundary, found.t)
        if layer == len(self.weights) - 1:
            return
        limits, names = self.limits, self.name(layer, found.unit, found.boundary)
        for values, part, new in self.geometry.parts(z, rows, found, names, self.size):
            # A crossing is where the unit is on its boundary, whatever interpolation has rounded to.
            born = part.born[new]
            on = limits[born % len(limits)]
            _snap(values, part.place(new), born // len(limits) % self.width, on, part.t[new] + part.trace[new] * SPAN)
            above = self.product(layer + 1, values, part)
            # Not needed while all that is above it is walked.
            del values
            self._descend(layer + 1, above, part)

    def product(self, layer: int, below: Tensor, rows: Rows) -> Tensor:
        """
        Return a layer's pre-activations `[R, W]` from those `[R, fan_in]` of the layer below it, which become activations.

        For one network alone there is room for more rows.
        """
        networks = list(self.by_network(rows))
        z, h = self._room(layer, len(rows.trace), len(networks)), self.activation.apply_(below[: len(rows.trace)])
        for network, place in networks:
            torch.mm(h[place], self.weights[layer][network].T, out=z[place])
        return z

    def _room(self, layer: int, rows: int, networks: int) -> Tensor:
        """Return room for a layer's pre-activations at so many rows of so many networks, and where it is of use for more."""
        more = networks == 1 and layer < len(self.weights) - 1
        return self.weights[0].new_empty(max(rows, self.size + 1 if more else 0), self.weights[layer].shape[1])

    def by_network(self, rows: Rows) -> Iterator[tuple[int, slice]]:
        """Yield the networks of a chunk and the rows of each."""
        first, last = int(rows.trace[0]) // self.paths, int(rows.trace[-1]) // self.paths
        if first == last:
            yield first, slice(0, len(rows.trace))
            return
        starts = torch.arange(first, last + 2, device=self.device) * self.paths
        edges = torch.searchsorted(rows.trace, starts).tolist()
        for place, network in enumerate(range(first, last + 1)):
            yield network, slice(edges[place], edges[place + 1])

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


def _snap(values: Tensor, rows: Tensor, units: Tensor, limits: Tensor, where_: Tensor) -> None:
    """
    Put the units that cross at new breakpoints on their boundaries, `[n]` each, in `values` `[R, W]`.

    Those of crossings that coincide are put there at each of them: what cancels above these units must cancel exactly.
    """
    values[rows, units] = limits
    for step in itertools.count(1):
        same = where(where_[step:] == where_[:-step])
        if not len(same):
            return
        for one, other in ((same, same + step), (same + step, same)):
            values[rows[one], units[other]] = limits[other]


def above_(out: Tensor, z: Tensor, limit: float) -> Tensor:
    """Write `z > limit` to `out` and return it. On a CPU by NumPy, whose comparison is some ten times faster than torch's."""
    if z.device.type != "cpu":
        return torch.gt(z, limit, out=out)
    numbers = z.numpy()
    np.greater(numbers, numbers.dtype.type(limit), out=out.numpy())
    return out


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
