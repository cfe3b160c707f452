r"""
How counts in float32 are those of float64.

A count depends on nothing but the side of its boundary on which each unit is at each breakpoint. float32 knows the side unless
the pre-activation is within its rounding error of the boundary. Even then a wrong side mostly moves a crossing from one piece to
the next and leaves the count alone: it matters where a unit is on one side at both neighbouring breakpoints, and touches its
boundary or crosses it twice in between, and where breakpoints lie so close together that several in a row are in doubt. These
few cases are decided in float64 afterwards: the breakpoint, itself the crossing of another unit in a lower layer, is found again
by a step of Newton's method, and the network is evaluated there.

The rounding error is not bounded by theory, which would be far too careful, but measured: the networks are evaluated at some
points of the paths in both precisions. Networks in which it is not small (deep ones with large weights amplify it from layer to
layer) are walked in float64 altogether.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..activations import Activation
from .crossings import Rows, Walk, above_, where

# Points at which the rounding error is measured, in all and of one path, and by how much its largest value is multiplied.
SAMPLE, OF_ONE = 64, 16
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
    """Return about SAMPLE of the vertices of paths, P tensors `[M, D]`: of one OF_ONE, of several some, of many one of some."""
    few = points[:: max(1, len(points) // SAMPLE)]
    each = max(1, min(OF_ONE, SAMPLE // len(few)))
    return torch.cat([one[:: -(-len(one) // each)] for one in few])


def measure(weights: Sequence[Tensor], activation: Activation, x: Tensor) -> Tolerances:
    """Evaluate hidden layers `[S, fan_out, fan_in]`, float32, in both precisions at the points `x` `[n, D]`."""
    sizes = []
    rough, exact = x.float().expand(len(weights[0]), -1, -1), x.double().expand(len(weights[0]), -1, -1)
    for weight in weights:
        rough = torch.bmm(rough, weight.transpose(1, 2))
        exact = torch.bmm(exact, weight.double().transpose(1, 2))
        error, largest = ((one.abs().amax((1, 2))) for one in (rough - exact, exact))
        sizes.append(torch.stack([error, largest, exact.square().mean((1, 2))], 1))
        rough, exact = activation.apply_(rough), activation.apply_(exact)
    error, largest, square = torch.stack(sizes, 1).unbind(2)
    values = SAFETY * torch.maximum(error, largest * torch.finfo(torch.float32).eps)
    return Tolerances(values, ((values < LARGE * square.sqrt()) & values.isfinite()).all(1))


@dataclass(frozen=True)
class _Cases:
    """
    Units at breakpoints `[n]` whose side of a boundary float32 does not know.

    Attributes
    ----------
    row
        Their breakpoints, numbered through all chunks; those of different chunks are never neighbours.
    layer, unit, boundary, trace, t, born
        Which boundary of which unit, and the columns of `Rows`.
    side
        The side that float32 has put them on.
    before, after
        The sides at the neighbouring breakpoints of the chunk and the trace: 0 or 1, or -1 where there is none.
    t_before, t_after
        Where float32 has put these neighbours.
    """

    row: Tensor
    layer: Tensor
    unit: Tensor
    boundary: Tensor
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
        self.open: list[_Cases] = []
        self.limits = torch.tensor(activation.boundaries, dtype=torch.float64, device=self.points.device)
        # The network evaluated last, and its weights.
        self.double: tuple[int, list[Tensor]] = (-1, [])

    def sides(self, walk: Walk, layer: int, z: Tensor, rows: Rows, boundary: int) -> Tensor:
        """
        Return which of the pre-activations `z` are above a boundary, bool `[R, W]`, in the order of the path.

        What is too close to tell is kept for `settle`.
        """
        limit = self.activation.boundaries[boundary]
        low, close = (z.new_empty(len(rows.trace), z.shape[1], dtype=torch.bool) for _ in range(2))
        for network, place in walk.by_network(rows):
            tolerance = self.tolerances[network][layer]
            above_(low[place], z[place], limit - tolerance)
            above_(close[place], z[place], limit + tolerance)
        close.bitwise_xor_(low)
        places = where(close)
        if len(places) > len(low):
            # Of a network that is dead here all pre-activations are 0, exactly.
            dead = ~z[: len(low)].any(1)
            low[dead], close[dead] = limit < 0, False
            places = where(close)
        if rows.stored is not None:
            low = low.index_select(0, rows.stored)
        if len(places):
            self._keep(layer, boundary, rows, low, close, places)
            if self.cases > MOST:
                self.settle(walk)
        return low

    def _keep(self, layer: int, boundary: int, rows: Rows, sides: Tensor, close: Tensor, places: Tensor) -> None:
        """Keep the `places` of `close` that may matter, see `settle`; `sides` are in the order of the path, `close` is not."""
        R, W = sides.shape
        row, sides, close = places // W, sides.view(-1), close.view(-1)
        unit = places - row * W
        if rows.stored is not None:
            order = torch.empty_like(rows.stored)
            order[rows.stored] = torch.arange(R, device=row.device)
            row = order[row]
        trace = rows.trace[row]
        self.doubts.index_add_(0, trace, torch.ones_like(trace))
        neighbours = torch.stack([row - 1, row + 1])
        there = neighbours.clamp(0, R - 1)
        known = (there == neighbours) & (rows.trace[there] == trace)
        side = torch.where(known, sides[there * W + unit].to(torch.int8), -1)
        alone = known.all(0) & ~close[rows.place(there) * W + unit].any(0)
        open_ = where(~(alone & (side[0] != side[1])))
        if len(open_):
            row, unit, side, there = row[open_], unit[open_], side[:, open_], rows.t[there[:, open_]]
            what = (torch.full_like(row, layer), unit, torch.full_like(row, boundary), trace[open_])
            mine = sides[row * W + unit]
            self.open.append(_Cases(self.rows + row, *what, rows.t[row], rows.born[row], mine, *side, *there))
        # Two more, so that no row of the next chunk is the neighbour of one of this.
        self.rows, self.cases = self.rows + R + 2, self.cases + len(open_)

    def settle(self, walk: Walk) -> None:
        """Decide what is open in float64, and correct the walk's counts."""
        if not self.open:
            return
        cases = _Cases.together(self.open)
        # A unit may stay close for several rows, a run. What counts is how often it changes sides on the way through.
        cases = cases[torch.argsort(cases.unit * self.rows + cases.row)]
        joined = (cases.row[1:] == cases.row[:-1] + 1) & (cases.unit[1:] == cases.unit[:-1])
        joined &= cases.trace[1:] == cases.trace[:-1]
        first, last = (torch.cat(ends) for ends in ((joined.new_ones(1), ~joined), (~joined, joined.new_ones(1))))
        sides, t = self._sides(walk, cases)
        # In their true order: two crossings that nearly coincide may have been found in the wrong one.
        run = first.cumsum(0) - 1
        order = torch.argsort(t, stable=True)
        order = order[torch.argsort(run[order], stable=True)]
        sides, t = sides[order], t[order]
        # One that belongs beyond a neighbour on the other side: what comes after that is not known here.
        begin, end = first.nonzero().view(-1)[run], last.nonzero().view(-1)[run]
        beyond = (cases.before[begin] >= 0) & (cases.before[begin] != sides.to(torch.int8)) & (t <= cases.t_before[begin])
        beyond |= (cases.after[end] >= 0) & (cases.after[end] != sides.to(torch.int8)) & (t >= cases.t_after[end])
        # The same breakpoint ends one chunk and begins the next: both must have it in the same place.
        edge = first & (cases.before < 0) | last & (cases.after < 0)
        beyond |= edge & (order != torch.arange(len(order), device=order.device))
        self.lost[cases.trace[beyond]] = True
        change = _changes(sides, cases, first, last) - _changes(cases.side, cases, first, last)
        walk.counts.index_put_((cases.trace, cases.layer), change, accumulate=True)
        self.open, self.cases = [], 0

    def doubtful(self, walk: Walk) -> Tensor:
        """Return the traces that float32 cannot decide, or of which too much is in doubt, after a walk; bool `[S P]`."""
        below = walk.counts.cumsum(1) - walk.counts
        widths = torch.tensor([weight.shape[1] for weight in self.weights], device=below.device)
        vertices = (self.last + 2).repeat(walk.networks).unsqueeze(1)
        return self.lost | (self.doubts > DOUBTFUL * ((below + vertices) * widths).sum(1))

    def _sides(self, walk: Walk, cases: _Cases) -> tuple[Tensor, Tensor]:
        """Return the true sides, bool `[n]`, and where on their paths the breakpoints truly are."""
        sides, t = torch.empty_like(cases.side), torch.empty_like(cases.t)
        network = cases.trace // walk.paths
        for one in torch.unique(network).tolist():
            for chosen in torch.split(where(network == one), AT_ONCE):
                z, t[chosen] = self._evaluate(walk, one, cases[chosen])
                sides[chosen] = z > self.limits[cases.boundary[chosen]]
        return sides, t

    def _evaluate(self, walk: Walk, network: int, cases: _Cases) -> tuple[Tensor, Tensor]:
        """Find the breakpoints of one network again; return the pre-activations of the units there, and where; float64 `[n]`."""
        if self.double[0] != network:
            self.double = network, [weight[network].double() for weight in self.weights]
        first, *weights = self.double[1]
        # -1 // n is -1: a vertex of the path was born in no layer.
        name = cases.born // len(self.limits)
        birth = _Birth(name // walk.width, name % walk.width, self.limits[cases.born % len(self.limits)])
        path = cases.trace % walk.paths
        segment = torch.minimum(cases.t.long(), self.last[path])
        used, ends = torch.unique(self.starts[path] + segment + torch.tensor([[0], [1]], device=path.device), return_inverse=True)
        begin, end = (self.points[used].double() @ first.T)[ends]
        share, z, before = cases.t - segment, torch.empty_like(cases.t), torch.full_like(cases.t, torch.inf)
        todo = torch.arange(len(z), device=z.device)
        for _ in range(STEPS):
            here = birth[todo]
            share[todo] += self._shift(weights, begin[todo], end[todo], share[todo], here)
            z[todo], off = self._forward(weights, begin[todo], end[todo], share[todo], here, cases.layer[todo], cases.unit[todo])
            # One that does not come nearer goes to and fro between two pieces.
            go_on = where((off > PRECISE) & (off < before[todo] / 2))
            before[todo], todo = off, todo[go_on]
            if not len(todo):
                break
        # One that is not found again is no crossing in truth, but still a point of the path like any other.
        none = where((before > PRECISE) | (share < 0) | (share > 1))
        if len(none):
            share[none] = (cases.t - segment)[none]
            here = _Birth(torch.full_like(none, -1), birth.unit[none], birth.limit[none])
            where_and_what = begin[none], end[none], share[none], here, cases.layer[none], cases.unit[none]
            z[none], _ = self._forward(weights, *where_and_what)
        return z, segment + share

    def _shift(self, weights: Sequence[Tensor], begin: Tensor, end: Tensor, share: Tensor, birth: "_Birth") -> Tensor:
        """Return Newton's step, as a share of the segment, from where a breakpoint was taken to be to where its unit crosses."""
        shift, (order, alive) = torch.zeros_like(share), _by_layer(birth.layer, len(weights) + 1)
        # Pre-activations and their slopes, `[2, n, W]`, at the breakpoints that were born in this layer or above.
        both = torch.stack([torch.lerp(begin, end, share.unsqueeze(1)), end - begin])[:, order[: alive[0]]]
        for place, (now, later) in enumerate(itertools.pairwise(alive)):
            if later < now:
                mine = order[later:now]
                z, slope = both[:, later:now].gather(2, birth.unit[mine].expand(2, -1).unsqueeze(2)).squeeze(2)
                shift[mine] = (birth.limit[mine] - z) / slope
            if not later:
                break
            h, slope = both[0, :later], both[1, :later]
            slope *= self.activation.slope(self.activation.apply_(h))
            both = both[:, :later] @ weights[place].T
        # More than that is no rounding error.
        return torch.where(shift.abs() < FARTHEST, shift, 0.0)

    def _forward(
        self, weights: Sequence[Tensor], begin: Tensor, end: Tensor, share: Tensor, birth: "_Birth", layer: Tensor, unit: Tensor
    ) -> tuple[Tensor, Tensor]:
        """
        Return the units' pre-activations with each breakpoint's own unit on its boundary, and how far from it that was.

        They are in the layers `layer` `[n]`.
        """
        order, alive = _by_layer(layer, len(weights) + 1)
        z, birth, unit = torch.lerp(begin, end, share.unsqueeze(1))[order], birth[order], unit[order].unsqueeze(1)
        off, found = torch.zeros_like(share), torch.empty_like(share)
        for place, (now, later) in enumerate(itertools.pairwise(alive)):
            if later < now:
                found[order[later:now]] = z[later:now].gather(1, unit[later:now]).squeeze(1)
            if not later:
                break
            # A breakpoint was born below the layer that it is evaluated in.
            here = where(birth.layer[:later] == place)
            if len(here):
                own, limit = birth.unit[here], birth.limit[here]
                off[order[here]] = (z[here, own] - limit).abs() / z[here].abs().amax(1)
                z[here, own] = limit
            z = self.activation.apply_(z[:later]) @ weights[place].T
        return found, off


def _by_layer(layer: Tensor, layers: int) -> tuple[Tensor, list[int]]:
    """Return the order in which the highest `layer` comes first, and how many are in each layer or above; in the last, none."""
    order = torch.argsort(layer, descending=True)
    return order, [*(layer >= torch.arange(layers, device=layer.device).unsqueeze(1)).sum(1).tolist(), 0]


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
