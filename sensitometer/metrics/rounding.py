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
from dataclasses import dataclass

import torch
from torch import Tensor

from ..activations import Activation
from .crossings import Rows, Walk, where
from .steps import ABOVE, Steps

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
    """Return about SAMPLE points of paths with the vertices `points`, P tensors `[M, D]`: OF_ONE of one, of many one of some."""
    few = points[:: max(1, len(points) // SAMPLE)]
    each = max(1, min(OF_ONE, SAMPLE // len(few)))
    shares = (torch.arange(each, dtype=torch.float64, device=points[0].device) + 0.5) / each
    some = []
    for one in few:
        at = shares * (len(one) - 1)
        segment = at.long()
        some.append(torch.lerp(one[segment], one[segment + 1], (at - segment).unsqueeze(1).to(one)))
    return torch.cat(some)


def measure(weights: Sequence[Tensor], double: Sequence[Tensor], activation: Activation, x: Tensor) -> Tolerances:
    """Evaluate hidden layers `[S, fan_out, fan_in]`, given in float32 and in float64, at the points `x` `[n, D]`."""
    sizes = []
    rough, exact = x.float().expand(len(weights[0]), -1, -1), x.double().expand(len(weights[0]), -1, -1)
    for weight, precise in zip(weights, double, strict=True):
        rough, exact = torch.bmm(rough, weight.transpose(1, 2)), torch.bmm(exact, precise.transpose(1, 2))
        error, largest = ((one.abs().amax((1, 2))) for one in (rough - exact, exact))
        sizes.append(torch.stack([error, largest, exact.square().mean((1, 2))], 1))
        rough, exact = activation.apply_(rough), activation.apply_(exact)
    error, largest, square = torch.stack(sizes, 1).unbind(2)
    values = SAFETY * torch.maximum(error, largest * torch.finfo(torch.float32).eps)
    return Tolerances(values, ((values < LARGE * square.sqrt()) & values.isfinite()).all(1))


@dataclass(frozen=True)
class _Cases:
    """
    Units at breakpoints whose side of a boundary float32 does not know: n columns.

    Attributes
    ----------
    what
        int64 `[9, n]`: the breakpoint, numbered through all chunks so that those of different chunks are never neighbours; layer,
        unit and boundary; the trace, and what made it a breakpoint, as in `Rows.born`; the side that float32 has put the unit on;
        and those at the neighbouring breakpoints of the chunk and the trace, -1 where there is none. A side is 0 or 1.
    t
        float64 `[3, n]`: where float32 has put the breakpoint, and these neighbours.
    """

    what: Tensor
    t: Tensor

    def __getitem__(self, chosen: Tensor) -> "_Cases":
        return _Cases(self.what[:, chosen], self.t[:, chosen])


class Rounding:
    """
    Tells on which side of their boundaries units are, and where float32 was wrong afterwards.

    Parameters
    ----------
    weights
        The hidden layers `[S, fan_out, fan_in]`, in float64.
    activation
        Their activation.
    tolerances
        `[S, L - 1]`, of these networks.
    points
        The vertices of each path, the first of a closed one again at its end; P tensors `[M, D]`.
    """

    def __init__(self, weights: Sequence[Tensor], activation: Activation, tolerances: Tensor, points: Sequence[Tensor]) -> None:
        self.weights, self.activation, self.points = weights, activation, torch.cat(list(points))
        lengths = torch.tensor([len(vertices) for vertices in points], device=self.points.device)
        self.starts, self.last = lengths.cumsum(0) - lengths, lengths - 2
        self.rows, self.cases = 0, 0
        # Of each trace.
        self.doubts = torch.zeros(len(weights[0]) * len(points), dtype=torch.int64, device=self.points.device)
        self.lost = torch.zeros_like(self.doubts, dtype=torch.bool)
        self.open: list[_Cases] = []
        self.boundaries = torch.tensor(activation.boundaries, dtype=torch.float64, device=self.points.device)
        around = tolerances.T.unsqueeze(2)
        # [L - 1, S, B]
        self.low, self.high = (self.boundaries - around).float(), (self.boundaries + around).float()

    def limits(self, layer: int, networks: slice) -> tuple[Tensor, Tensor]:
        """Return between what values, float32 `[S, B]` each, pre-activations are too close to a boundary to tell their side."""
        return self.low[layer, networks], self.high[layer, networks]

    def keep(self, walk: Walk, layer: int, z: Tensor, rows: Rows, flags: Tensor, close: Tensor, steps: Steps) -> None:
        """
        Keep for `settle` what is too close to tell, and may matter, of pre-activations `z` `[R, W]`, whose `flags` say so.

        So many of each row are `close` `[B, R]`. What is 0 because the network is dead there is told by itself, and its flags and
        its number corrected.
        """
        of_each: list[int] = close.sum(1).tolist()
        if not any(of_each):
            return
        for number, limit in enumerate(self.activation.boundaries):
            if of_each[number] > len(z):
                # Of a network that is dead here all pre-activations are 0, exactly.
                dead = ~z.any(1)
                # Not what flags are padded with.
                flags[number, dead, : z.shape[1]], close[number, dead] = ABOVE * (limit < 0), 0
        row, unit, boundary, *sides = steps.doubts(flags, rows.trace, close, self.doubts)
        if len(row):
            # Rows of different boundaries are never neighbours, nor those of the next chunk.
            name = self.rows + boundary * (len(z) + 2) + row
            what = name, torch.full_like(row, layer), unit, boundary, rows.trace[row], rows.born[row], *sides
            beside = torch.stack([row, row - 1, row + 1]).clamp_(0, len(z) - 1)
            self.open.append(_Cases(torch.stack(what), rows.t[beside]))
        self.rows, self.cases = self.rows + len(flags) * (len(z) + 2), self.cases + len(row)
        if self.cases > MOST:
            self.settle(walk)

    def settle(self, walk: Walk) -> None:
        """Decide what is open in float64, and correct the walk's counts."""
        if not self.open:
            return
        cases = _Cases(torch.cat([one.what for one in self.open], 1), torch.cat([one.t for one in self.open], 1))
        # A unit may stay close for several rows, a run. What counts is how often it changes sides on the way through.
        cases = cases[torch.argsort(cases.what[2] * self.rows + cases.what[0])]
        row, layer, unit, _, trace, _, side, before, after = cases.what
        joined = (row[1:] == row[:-1] + 1) & (unit[1:] == unit[:-1]) & (trace[1:] == trace[:-1])
        first, last = (torch.cat(ends) for ends in ((joined.new_ones(1), ~joined), (~joined, joined.new_ones(1))))
        true, t = self._sides(walk, cases)
        # In their true order: two crossings that nearly coincide may have been found in the wrong one.
        run = first.cumsum(0) - 1
        order = torch.argsort(t, stable=True)
        order = order[torch.argsort(run[order], stable=True)]
        true, t = true[order], t[order]
        # One that belongs beyond a neighbour on the other side: what comes after that is not known here.
        begin, end = first.nonzero().view(-1)[run], last.nonzero().view(-1)[run]
        beyond = (before[begin] >= 0) & (before[begin] != true) & (t <= cases.t[1, begin])
        beyond |= (after[end] >= 0) & (after[end] != true) & (t >= cases.t[2, end])
        # The same breakpoint ends one chunk and begins the next: both must have it in the same place.
        edge = first & (before < 0) | last & (after < 0)
        beyond |= edge & (order != torch.arange(len(order), device=order.device))
        self.lost[trace[beyond]] = True
        change = _changes(torch.stack([true, side]), before, after, first, last)
        walk.counts.index_put_((trace, layer), change[0] - change[1], accumulate=True)
        self.open, self.cases = [], 0

    def doubtful(self, walk: Walk) -> Tensor:
        """Return the traces that float32 cannot decide, or of which too much is in doubt, after a walk; bool `[S P]`."""
        below = walk.counts.cumsum(1) - walk.counts
        widths = torch.tensor([weight.shape[1] for weight in self.weights], device=below.device)
        vertices = (self.last + 2).repeat(walk.networks).unsqueeze(1)
        return self.lost | (self.doubts > DOUBTFUL * ((below + vertices) * widths).sum(1))

    def _sides(self, walk: Walk, cases: _Cases) -> tuple[Tensor, Tensor]:
        """Return the true sides, 0 or 1, int64 `[n]`, and where on their paths the breakpoints truly are."""
        z, t = torch.empty_like(cases.t[0]), torch.empty_like(cases.t[0])
        network = cases.what[4] // walk.paths
        for one in torch.unique(network).tolist():
            for chosen in torch.split(where(network == one), AT_ONCE):
                z[chosen], t[chosen] = self._evaluate(walk, one, cases[chosen])
        return (z > self.boundaries[cases.what[3]]).long(), t

    def _evaluate(self, walk: Walk, network: int, cases: _Cases) -> tuple[Tensor, Tensor]:
        """Find the breakpoints of one network again; return the pre-activations of the units there, and where; float64 `[n]`."""
        first, *weights = (weight[network] for weight in self.weights)
        _, layer, unit, _, trace, born, *_ = cases.what
        born_in, born_by, boundary = walk.named(born)
        birth = _Birth(born_in, born_by, self.boundaries[boundary])
        path = trace % walk.paths
        segment = torch.minimum(cases.t[0].long(), self.last[path])
        used, ends = torch.unique(self.starts[path] + segment + torch.tensor([[0], [1]], device=path.device), return_inverse=True)
        begin, end = (self.points[used].double() @ first.T)[ends]
        share, z, before = cases.t[0] - segment, torch.empty_like(cases.t[0]), torch.full_like(cases.t[0], torch.inf)
        todo = torch.arange(len(z), device=z.device)
        for _ in range(STEPS):
            here = birth[todo]
            share[todo] += self._shift(weights, begin[todo], end[todo], share[todo], here)
            z[todo], off = self._forward(weights, begin[todo], end[todo], share[todo], here, layer[todo], unit[todo])
            # One that does not come nearer goes to and fro between two pieces.
            go_on = where((off > PRECISE) & (off < before[todo] / 2))
            before[todo], todo = off, todo[go_on]
            if not len(todo):
                break
        # One that is not found again is no crossing in truth, but still a point of the path like any other.
        none = where((before > PRECISE) | (share < 0) | (share > 1))
        if len(none):
            share[none] = (cases.t[0] - segment)[none]
            here = _Birth(torch.full_like(none, -1), birth.unit[none], birth.limit[none])
            z[none], _ = self._forward(weights, begin[none], end[none], share[none], here, layer[none], unit[none])
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


def _changes(sides: Tensor, before: Tensor, after: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """Return how many changes of `sides` `[2, n]` there are right before each case, and behind the last of a run; int64."""
    changes = first & (before >= 0) & (before != sides)
    changes[:, 1:] |= ~first[1:] & (sides[:, 1:] != sides[:, :-1])
    return changes.long() + (last & (after >= 0) & (after != sides))
