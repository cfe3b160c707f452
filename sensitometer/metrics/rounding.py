r"""
How counts in float32 are those of float64.

A count depends on nothing but the side of its boundary on which each unit is at each breakpoint. float32 knows the side unless
the pre-activation is within its rounding error of the boundary. Even then a wrong side mostly moves a crossing from one piece to
the next and leaves the count alone: it matters where a unit is on one side at both neighbouring breakpoints, and touches its
boundary or crosses it twice in between, and where breakpoints lie so close together that several in a row are in doubt. These
few cases are decided in float64 afterwards: the breakpoint, itself the crossing of another unit in a lower layer, is found again
by a step of Newton's method, and the network is evaluated there.

The rounding error is not bounded by theory, which would be far too careful, but measured: the networks are evaluated at some points
of the paths in both precisions. Networks in which it is not small (deep ones with large weights amplify it from layer to layer)
are walked in float64 altogether.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..activations import Activation
from .crossings import Rows, Walk, above_, where

# Points of the paths at which the rounding error is measured, and by how much its largest value is multiplied.
SAMPLE = 64
SAFETY = 16.0
# A rounding error of so much of the pre-activations is not small.
LARGE = 1e-3
# Cases that are evaluated together, and those that are kept before they are.
AT_ONCE, MOST = 2**11, 2**17
# A breakpoint is found again in so many steps of Newton's method at most, each of at most so much of a segment; it is found when
# its unit is so near its boundary, relative to the largest pre-activation of the layer.
STEPS, FARTHEST, PRECISE = 4, 0.01, 1e-12
# Of the pre-activations along a path, if more than this share is in doubt, it is walked in float64.
DOUBTFUL = 5e-4


@dataclass(frozen=True)
class Tolerances:
    """
    Distances from a boundary below which float32 does not know the side.

    Attributes
    ----------
    values
        float64 `[S, L - 1]`, for each network and hidden layer.
    single
        bool `[S]`: which networks may be walked in float32.
    """

    values: Tensor
    single: Tensor


def some_points(points: Sequence[Tensor]) -> Tensor:
    """Return about SAMPLE of the vertices of paths, P tensors `[M, D]`: of several paths some of each, of many one of some."""
    few = points[:: max(1, len(points) // SAMPLE)]
    return torch.cat([one[:: max(1, len(few) * len(one) // SAMPLE)] for one in few])


def measure(weights: Sequence[Tensor], activation: Activation, x: Tensor) -> Tolerances:
    """Evaluate hidden layers `[S, fan_out, fan_in]`, float32, in both precisions at the points `x` `[n, D]`."""
    values, single = [], torch.ones(len(weights[0]), dtype=torch.bool, device=x.device)
    rough, exact = x.float().expand(len(weights[0]), -1, -1), x.double().expand(len(weights[0]), -1, -1)
    for weight in weights:
        rough = torch.bmm(rough, weight.transpose(1, 2))
        exact = torch.bmm(exact, weight.double().transpose(1, 2))
        scale = exact.square().mean((1, 2)).sqrt()
        least = exact.abs().amax((1, 2)) * torch.finfo(torch.float32).eps
        values.append(SAFETY * torch.maximum((rough - exact).abs().amax((1, 2)), least))
        single &= (values[-1] < LARGE * scale) & values[-1].isfinite()
        rough, exact = activation.apply_(rough), activation.apply_(exact)
    return Tolerances(torch.stack(values, 1), single)


@dataclass(frozen=True)
class _Cases:
    """
    Units at breakpoints `[n]` whose side of a boundary float32 does not know.

    Attributes
    ----------
    row
        Their breakpoints, numbered through all chunks; those of different chunks are never neighbours.
    unit, trace, t, born
        Which unit, and the columns of `Rows`.
    side
        The side that float32 has put them on.
    before, after
        The sides at the neighbouring breakpoints of the chunk and the trace: 0 or 1, or -1 where there is none.
    t_before, t_after
        Where float32 has put these neighbours.
    """

    row: Tensor
    unit: Tensor
    trace: Tensor
    t: Tensor
    born: Tensor
    side: Tensor
    before: Tensor
    after: Tensor
    t_before: Tensor
    t_after: Tensor

    def __getitem__(self, chosen: Tensor) -> "_Cases":
        return _Cases(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @staticmethod
    def together(several: Sequence["_Cases"]) -> "_Cases":
        return _Cases(*(torch.cat([getattr(one, field.name) for one in several]) for field in fields(_Cases)))


class Rounding:
    """
    Tells on which side of their boundaries units are, and where float32 was wrong afterwards.

    Parameters
    ----------
    weights
        The hidden layers `[S, fan_out, fan_in]`, float32.
    activation
        Their activation.
    tolerances
        `[S, L - 1]`, of these networks.
    points
        The vertices of each path, the first of a closed one again at its end; P tensors `[M, D]`.
    """

    def __init__(self, weights: Sequence[Tensor], activation: Activation, tolerances: Tensor, points: Sequence[Tensor]) -> None:
        self.weights, self.activation, self.points = weights, activation, torch.cat(list(points))
        self.tolerances: list[list[float]] = tolerances.tolist()
        lengths = torch.tensor([len(vertices) for vertices in points], device=self.points.device)
        self.starts, self.last = lengths.cumsum(0) - lengths, lengths - 2
        self.rows, self.cases = 0, 0
        # Of each trace.
        self.doubts = torch.zeros(len(weights[0]) * len(points), dtype=torch.int64, device=self.points.device)
        self.lost = torch.zeros_like(self.doubts, dtype=torch.bool)
        self.open: dict[tuple[int, int], list[_Cases]] = {}

    def sides(self, walk: Walk, layer: int, z: Tensor, rows: Rows, boundary: int) -> Tensor:
        """Return which of the pre-activations `z` `[R, W]` are above a boundary; keep for `settle` what is too close to tell."""
        limit = self.activation.boundaries[boundary]
        low, high = (z.new_empty(z.shape, dtype=torch.bool) for _ in range(2))
        for network, place in walk.by_network(rows):
            tolerance = self.tolerances[network][layer]
            above_(low[place], z[place], limit - tolerance)
            above_(high[place], z[place], limit + tolerance)
        places = where(high.logical_xor_(low))
        if len(places) > len(z):
            # Of a network that is dead here all pre-activations are 0, exactly.
            dead = ~z.any(1)
            low[dead] = limit < 0
            places = places[~dead[places // z.shape[1]]]
        if len(places):
            self._keep(layer, boundary, rows, low, places)
            if self.cases > MOST:
                self.settle(walk)
        return low

    def _keep(self, layer: int, boundary: int, rows: Rows, sides: Tensor, places: Tensor) -> None:
        R, W = sides.shape
        row, sides = places // W, sides.view(-1)
        trace = rows.trace[row]
        self.doubts.index_add_(0, trace, torch.ones_like(trace))
        neighbours, where_ = [], []
        for step, there in ((-1, (row - 1).clamp(min=0)), (1, (row + 1).clamp(max=R - 1))):
            known = (there == row + step) & (rows.trace[there] == trace)
            where_.append(rows.t[there])
            neighbours.append(torch.where(known, sides[there * W + places % W].to(torch.int8), -1))
        cases = _Cases(self.rows + row, places % W, trace, rows.t[row], rows.born[row], sides[places], *neighbours, *where_)
        self.open.setdefault((layer, boundary), []).append(cases)
        # Two more, so that no row of the next chunk is the neighbour of one of this.
        self.rows, self.cases = self.rows + R + 2, self.cases + len(places)

    def settle(self, walk: Walk) -> None:
        """Decide what is open in float64, and correct the walk's counts."""
        for (layer, boundary), several in self.open.items():
            cases = _Cases.together(several)
            # A unit may stay close for several rows, a run. What counts is how often it changes sides on the way through.
            cases = cases[torch.argsort(cases.unit * self.rows + cases.row)]
            joined = (cases.row[1:] == cases.row[:-1] + 1) & (cases.unit[1:] == cases.unit[:-1])
            joined &= cases.trace[1:] == cases.trace[:-1]
            first, last = (torch.cat(ends) for ends in ((joined.new_ones(1), ~joined), (~joined, joined.new_ones(1))))
            # One row between two on different sides: whichever side it is on, that makes one crossing.
            open_ = ~(first & last & (cases.before >= 0) & (cases.after >= 0) & (cases.before != cases.after))
            cases, first, last = cases[open_], first[open_], last[open_]
            sides, t = self._sides(walk, layer, boundary, cases)
            # In their true order: two crossings that nearly coincide may have been found in the wrong one.
            run = first.cumsum(0) - 1
            order = torch.argsort(t, stable=True)
            order = order[torch.argsort(run[order], stable=True)]
            sides, t = sides[order], t[order]
            # One that belongs beyond a neighbour on the other side: what comes after that is not known here.
            begin, end = first.nonzero().view(-1)[run], last.nonzero().view(-1)[run]
            beyond = (cases.before[begin] >= 0) & (cases.before[begin] != sides.to(torch.int8)) & (t <= cases.t_before[begin])
            beyond |= (cases.after[end] >= 0) & (cases.after[end] != sides.to(torch.int8)) & (t >= cases.t_after[end])
            self.lost[cases.trace[beyond]] = True
            change = _changes(sides, cases, first, last) - _changes(cases.side, cases, first, last)
            walk.counts[:, layer].index_add_(0, cases.trace, change)
        self.open, self.cases = {}, 0

    def doubtful(self, walk: Walk) -> Tensor:
        """Return the traces that float32 cannot decide, or of which too much is in doubt, after a walk; bool `[S P]`."""
        below = walk.counts.cumsum(1) - walk.counts
        widths = torch.tensor([weight.shape[1] for weight in self.weights], device=below.device)
        vertices = (self.last + 2).repeat(walk.networks).unsqueeze(1)
        return self.lost | (self.doubts > DOUBTFUL * ((below + vertices) * widths).sum(1))

    def _sides(self, walk: Walk, layer: int, boundary: int, cases: _Cases) -> tuple[Tensor, Tensor]:
        """Return the true sides, bool `[n]`, and where on their paths the breakpoints truly are."""
        sides, t = torch.empty_like(cases.side), torch.empty_like(cases.t)
        network = cases.trace // walk.paths
        for one in torch.unique(network).tolist():
            for chosen in torch.split(where(network == one), AT_ONCE):
                z, t[chosen] = self._evaluate(walk, one, layer, cases[chosen])
                sides[chosen] = z > self.activation.boundaries[boundary]
        return sides, t

    def _evaluate(self, walk: Walk, network: int, layer: int, cases: _Cases) -> tuple[Tensor, Tensor]:
        """Find the breakpoints of one network again; return the pre-activations of the units there, and where; float64 `[n]`."""
        first, *weights = (weight[network].double() for weight in self.weights[: layer + 1])
        limits = torch.tensor(self.activation.boundaries, dtype=torch.float64, device=cases.t.device)
        # -1 // n is -1: a vertex of the path was born in no layer.
        name = cases.born // len(limits)
        birth = _Birth(name // walk.width, name % walk.width, limits[cases.born % len(limits)])
        path = cases.trace % walk.paths
        segment = torch.minimum(cases.t.long(), self.last[path])
        begin, end = (self.points[self.starts[path] + segment + step].double() @ first.T for step in range(2))
        share, z = cases.t - segment, torch.empty_like(cases.t)
        todo = torch.arange(len(z), device=z.device)
        for _ in range(STEPS):
            here = birth[todo]
            share[todo] += self._shift(weights, begin[todo], end[todo], share[todo], here)
            z[todo], off = self._forward(weights, begin[todo], end[todo], share[todo], here, cases.unit[todo])
            todo = todo[off > PRECISE]
            if not len(todo):
                break
        return z, segment + share

    def _shift(self, weights: Sequence[Tensor], begin: Tensor, end: Tensor, share: Tensor, birth: "_Birth") -> Tensor:
        """Return Newton's step, as a share of the segment, from where a breakpoint was thought to be to where its unit crosses."""
        z, slope, shift = torch.lerp(begin, end, share.unsqueeze(1)), end - begin, torch.zeros_like(share)
        for place in range(len(weights) + 1):
            here = where(birth.layer == place)
            unit = birth.unit[here]
            shift[here] = (birth.limit[here] - z[here, unit]) / slope[here, unit]
            if place < len(weights):
                h = self.activation.apply_(z)
                slope = (slope * self.activation.slope(h)) @ weights[place].T
                z = h @ weights[place].T
        # More than that is no rounding error.
        return torch.where(shift.abs() < FARTHEST, shift, 0.0)

    def _forward(
        self, weights: Sequence[Tensor], begin: Tensor, end: Tensor, share: Tensor, birth: "_Birth", unit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the units' pre-activations with each breakpoint's own unit on its boundary, and how far from it that was."""
        z, off = torch.lerp(begin, end, share.unsqueeze(1)), torch.zeros_like(share)
        for place, weight in enumerate(weights):
            here = where(birth.layer == place)
            off[here] = (z[here, birth.unit[here]] - birth.limit[here]).abs() / z[here].abs().amax(1)
            z[here, birth.unit[here]] = birth.limit[here]
            z = self.activation.apply_(z) @ weight.T
        return z.gather(1, unit.unsqueeze(1)).squeeze(1), off


@dataclass(frozen=True)
class _Birth:
    """Whose crossings `[n]` have made breakpoints: layer, -1 for none, unit, and the boundary itself."""

    layer: Tensor
    unit: Tensor
    limit: Tensor

    def __getitem__(self, chosen: Tensor) -> "_Birth":
        return _Birth(self.layer[chosen], self.unit[chosen], self.limit[chosen])


def _changes(sides: Tensor, cases: _Cases, first: Tensor, last: Tensor) -> Tensor:
    """Return how many changes of side there are right before each case, and behind the last of a run; int64 `[n]`."""
    side = sides.to(torch.int8)
    changes = first & (cases.before >= 0) & (cases.before != side)
    changes[1:] |= ~first[1:] & (side[1:] != side[:-1])
    return changes.long() + (last & (cases.after >= 0) & (cases.after != side))
