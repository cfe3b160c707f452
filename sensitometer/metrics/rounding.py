r"""
How counts in float32 are those of float64.

A count depends on nothing but the side of its boundary on which each unit is at each breakpoint. float32 knows the side unless
the pre-activation is within its rounding error of the boundary. Even then a wrong side mostly moves a crossing from one piece to
the next and leaves the count alone: it matters where a unit is on one side at both neighbouring breakpoints, and touches its
boundary or crosses it twice in between, and where breakpoints lie so close together that several in a row are in doubt. These
few cases are decided in float64 afterwards: the breakpoint, itself the crossing of another unit in a lower layer, is found again
by a step of Newton's method, and the network is evaluated there.

Where float32 has missed that a unit crosses there and back, two breakpoints are missing, and a unit of a layer above may turn
back at one of them. It is close to its boundary then, and decided at these breakpoints as well.

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
# Multiples of the golden ratio are spread evenly, modulo 1, however many there are.
GOLDEN = (5**0.5 - 1) / 2
SAFETY = 16.0
# What a unit that is interpolated adds to the error of one of the layer above is such a fraction of its tolerance at most.
INTERPOLATED = 8.0
EPS = torch.finfo(torch.float32).eps
# A rounding error of so much of the pre-activations is not small.
LARGE = 1e-3
# Cases that are evaluated together, and those that are kept before they are.
AT_ONCE, MOST = 2**11, 2**17
# Missed breakpoints times cases that are compared at once.
PAIRS = 2**22
# A breakpoint is found again in so many steps of Newton's method at most, each of at most so much of a segment; it is found when
# its unit is so near its boundary, relative to the largest pre-activation of the layer.
STEPS, FARTHEST, PRECISE = 4, 0.01, 1e-12
# Of the pre-activations along a path, if more than this share is in doubt, it is walked in float64.
DOUBTFUL = 5e-4
# A case whose side may matter: it is to be decided in float64, or has been.
OPEN, DECIDED = 1, 2


@dataclass(frozen=True)
class Tolerances:
    """
    Distances from a boundary below which float32 does not know the side.

    Attributes
    ----------
    values
        float64 `[S, L - 1]`, for each network and hidden layer.
    fastest
        float32 `[S, L - 2]`, for each network and hidden layer but the last: how much a unit may change along a straight piece if
        what it adds to the layer above is interpolated from where it crosses, which is known up to float32's precision.
    single
        bool `[S]`: which networks may be walked in float32.
    """

    values: Tensor
    fastest: Tensor
    single: Tensor

    def __getitem__(self, networks: Tensor) -> "Tolerances":
        return Tolerances(self.values[networks], self.fastest[networks], self.single[networks])


def some_points(points: Sequence[Tensor]) -> Tensor:
    """
    Return about SAMPLE points of paths with the vertices `points`, P tensors `[M, D]`: OF_ONE of one, of many one of some.

    Every other one is a vertex: on data, say, pre-activations are not as large as between.
    """
    few = points[:: max(1, len(points) // SAMPLE)]
    each = max(1, min(OF_ONE, SAMPLE // len(few)))
    some = []
    for number, one in enumerate(few):
        # Spread evenly over each path, and over those with one each.
        at = [index * GOLDEN % 1 * (len(one) - 1) for index in range(number * each, (number + 1) * each)]
        at = [position if index % 2 else round(position) for index, position in enumerate(at, number * each)]
        segment = [min(int(position), len(one) - 2) for position in at]
        shares = one.new_tensor([position - before for position, before in zip(at, segment, strict=True)])
        some.append(torch.lerp(one[segment], one[[before + 1 for before in segment]], shares.unsqueeze(1)))
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
    values = SAFETY * torch.maximum(error, largest * EPS)
    fastest = values[:, 1:] / (INTERPOLATED * EPS)
    for layer, weight in enumerate(weights[1:]):
        fastest[:, layer] /= weight.abs().amax((1, 2))
    return Tolerances(values, fastest.float(), ((values < LARGE * square.sqrt()) & values.isfinite()).all(1))


@dataclass(frozen=True)
class Cases:
    """
    Units at breakpoints whose side of a boundary float32 does not know, and has put above: n columns.

    The true side does not matter if both neighbours are sure, and on different sides: the unit crosses once, wherever that is.

    Attributes
    ----------
    what
        int64 `[9, n]`: the breakpoint, numbered through all chunks so that those of different chunks are never neighbours; layer,
        unit and boundary; the trace, and what made it a breakpoint, as in `Rows.born`; whether the side may matter, 0, OPEN or
        DECIDED; and the sides at the neighbouring breakpoints of the chunk and the trace, 0 or 1, or -1 where there is none.
    t
        float64 `[3, n]`: where the breakpoint is, and these neighbours.
    z
        float64 `[3, n]`: how far above its boundary the unit is at these.
    """

    what: Tensor
    t: Tensor
    z: Tensor

    def __getitem__(self, chosen: Tensor) -> "Cases":
        return Cases(self.what[:, chosen], self.t[:, chosen], self.z[:, chosen])


def _joined(several: Sequence[Cases]) -> Cases:
    """Return all cases, each unit's in the order of its breakpoints, and of those of one breakpoint first ones first."""
    what, t, z = (torch.cat([getattr(one, name) for one in several], 1) for name in ("what", "t", "z"))
    return Cases(what, t, z)[torch.argsort(what[2] * (what[0].max() + 1) + what[0], stable=True)]


def _beside(cases: Cases, missed: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pairs of a missed breakpoint and a case in a layer above between whose neighbours it is; int64 `[n]` each."""
    # Not what has been put in other missed breakpoints before: that follows the case that it was next to.
    found = (cases.what[[0, 2], 1:] != cases.what[[0, 2], :-1]).any(0)
    found = torch.cat([found.new_ones(1), found])
    pairs = [torch.zeros(2, 0, dtype=torch.int64, device=t.device)]
    for trace in torch.unique(missed[0]).tolist():
        near = where(found & (cases.what[4] == trace))
        layer, (_, before, after) = cases.what[1, near], cases.t[:, near]
        for here in torch.split(where(missed[0] == trace), max(1, PAIRS // max(1, len(near)))):
            place = t[here].unsqueeze(1)
            which, case = ((layer > missed[1, here].unsqueeze(1)) & (before < place) & (place < after)).nonzero().unbind(1)
            pairs.append(torch.stack([here[which], near[case]]))
    breakpoint_, case = torch.cat(pairs, 1)
    return breakpoint_, case


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
        Of these networks.
    points
        The vertices of each path, the first of a closed one again at its end; P tensors `[M, D]`.
    """

    def __init__(
        self, weights: Sequence[Tensor], activation: Activation, tolerances: Tolerances, points: Sequence[Tensor]
    ) -> None:
        self.weights, self.activation, self.points = weights, activation, torch.cat(list(points))
        lengths = torch.tensor([len(vertices) for vertices in points], device=self.points.device)
        self.starts, self.last = lengths.cumsum(0) - lengths, lengths - 2
        self.rows, self.cases = 0, 0
        # Of each trace.
        self.doubts = torch.zeros(len(weights[0]) * len(points), dtype=torch.int64, device=self.points.device)
        self.lost = torch.zeros_like(self.doubts, dtype=torch.bool)
        self.open: list[Cases] = []
        # Breakpoints that float32 has missed: their trace, layer and name `[3, m]`, and where they are.
        self.missed, self.missed_at = self.doubts.new_zeros(3, 0), torch.zeros(0, dtype=torch.float64, device=self.points.device)
        self.boundaries = torch.tensor(activation.boundaries, dtype=torch.float64, device=self.points.device)
        self.fastest = tolerances.fastest
        around = tolerances.values.T.unsqueeze(2)
        # [L - 1, S, B]
        self.low, self.high = (self.boundaries - around).float(), (self.boundaries + around).float()

    def limits(self, layer: int, networks: slice) -> tuple[Tensor, Tensor]:
        """Return between what values, float32 `[S, B]` each, pre-activations are too close to a boundary to tell their side."""
        return self.low[layer, networks], self.high[layer, networks]

    def keep(self, walk: Walk, layer: int, z: Tensor, rows: Rows, flags: Tensor, close: Tensor, steps: Steps) -> None:
        """
        Keep for `settle` what is too close to tell of pre-activations `z` `[R, W]`, whose `flags` say so.

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
        cases = Cases(*steps.doubts(layer, z, flags, rows, close, walk.limits, self.doubts))
        if cases.what.shape[1]:
            # Not even the rows of different boundaries are neighbours, nor those of the next chunk.
            cases.what[0] += self.rows
            self.open.append(cases)
        self.rows, self.cases = self.rows + len(flags) * (len(z) + 2), self.cases + cases.what.shape[1]
        if self.cases > MOST:
            self.settle(walk)

    def settle(self, walk: Walk) -> None:
        """
        Decide what is open in float64, and correct the walk's counts.

        Where float32 has missed that a unit crosses there and back, those of the layers above may turn back. What is close to its
        boundary there is looked at in these breakpoints, too, from the lowest layer to the highest.
        """
        several, self.open, self.cases = self.open, [], 0
        if not several or not (len(self.missed_at) or any(one.what[6].any() for one in several)):
            return
        cases = _joined(several)
        self._decide(walk, cases)
        cases = self._with_missed(walk, cases, self.missed, self.missed_at)
        runs = _Runs(cases)
        for layer in range(len(self.weights) - 1):
            missed = runs.missed[runs.what[1, runs.missed] == layer]
            if len(missed):
                what, t = runs.breakpoints(walk, missed)
                self.missed, self.missed_at = torch.cat([self.missed, what], 1), torch.cat([self.missed_at, t])
                more = self._with_missed(walk, cases, what, t)
                if more is not cases:
                    cases, runs = more, _Runs(more)
        self.lost[runs.what[4, runs.beyond]] = True
        walk.counts.index_put_((runs.what[4], runs.what[1]), runs.more, accumulate=True)

    def _with_missed(self, walk: Walk, cases: Cases, missed: Tensor, t: Tensor) -> Cases:
        """Return the cases, and in missed breakpoints those in layers above that are next to these; all decided."""
        breakpoint_, case = _beside(cases, missed, t)
        if not len(case):
            return cases
        cases.what[6, case] = cases.what[6, case].clamp(min=OPEN)
        new = cases[case]
        new.what[5], new.what[6], new.t[0] = missed[2, breakpoint_], OPEN, t[breakpoint_]
        cases = _joined([cases, new])
        self._decide(walk, cases)
        return cases

    def doubtful(self, walk: Walk) -> Tensor:
        """Return the traces that float32 cannot decide, or of which too much is in doubt, after a walk; bool `[S P]`."""
        below = walk.counts.cumsum(1) - walk.counts
        widths = torch.tensor([weight.shape[1] for weight in self.weights], device=below.device)
        vertices = (self.last + 2).repeat(walk.networks).unsqueeze(1)
        return self.lost | (self.doubts > DOUBTFUL * ((below + vertices) * widths).sum(1))

    def _decide(self, walk: Walk, cases: Cases) -> None:
        """Put open cases where their breakpoints truly are, and as far above their boundaries as they truly are."""
        which = where(cases.what[6] == OPEN)
        network = cases.what[4, which] // walk.paths
        for one in torch.unique(network).tolist():
            for chosen in torch.split(which[network == one], AT_ONCE):
                z, cases.t[0, chosen] = self._evaluate(walk, one, cases[chosen])
                cases.z[0, chosen] = z - self.boundaries[cases.what[3, chosen]]
        cases.what[6, which] = DECIDED

    def _evaluate(self, walk: Walk, network: int, cases: Cases) -> tuple[Tensor, Tensor]:
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


class _Runs:
    """
    What becomes of cases: where a unit stays close to a boundary for several breakpoints, and how often it changes sides there.

    Attributes
    ----------
    what
        int64 `[9, r]`, of the first case of each run, see `Cases`.
    more
        int64 `[r]`: how many crossings more than in float32 there are.
    missed
        int64 `[m]`: the runs in which float32 has missed crossings.
    beyond
        int64 `[b]`: those of which one case belongs beyond a neighbour on the other side; what comes after that is not known.
    """

    def __init__(self, cases: Cases) -> None:
        row, _, unit, _, trace, *_ = cases.what
        joined = (row[1:] <= row[:-1] + 1) & (unit[1:] == unit[:-1]) & (trace[1:] == trace[:-1])
        begin = where(torch.cat([joined.new_ones(1), ~joined]))
        end = where(torch.cat([~joined, joined.new_ones(1)]))
        run = torch.arange(len(begin), device=begin.device).repeat_interleave(end - begin + 1)
        # In their true order: two crossings that nearly coincide may have been found in the wrong one.
        order = torch.argsort(cases.t[0], stable=True)
        order = order[torch.argsort(run[order], stable=True)]
        before, after = cases.what[7, begin], cases.what[8, end]
        # The points of each run: the neighbour before, all cases, the neighbour behind.
        first, last = begin + 2 * run[begin], end + 2 * run[end] + 2
        inside = torch.arange(len(run), device=run.device) + 2 * run + 1
        self._t, self._z = cases.t.new_empty(2, len(run) + 2 * len(begin))
        for points, values in ((self._t, cases.t), (self._z, cases.z)):
            points[first], points[inside], points[last] = values[1, begin], values[0, order], values[2, end]
        side = (self._z > 0).long()
        side[first], side[last] = before, after
        known = (side >= 0).long()
        self._changed = (side[1:] != side[:-1]) & (known[1:] & known[:-1] > 0)
        self._changed[first[1:] - 1] = False
        self._run = torch.repeat_interleave(end - begin + 3)
        changes, below = begin.new_zeros(2, len(begin))
        changes.index_add_(0, self._run[1:], self._changed.long())
        below.index_add_(0, run, 1 - side[inside])
        in_float32 = (before == 0).long() + (after == 0).long()

        self.what, self.more = cases.what[:, begin], changes - in_float32
        self.missed = where((below > 0) & ((changes > 1) | (self.more > 0)))
        t, true = self._t[inside], side[inside]
        beyond = (before[run] >= 0) & (before[run] != true) & (t <= self._t[first][run])
        beyond |= (after[run] >= 0) & (after[run] != true) & (t >= self._t[last][run])
        # The same breakpoint ends one chunk and begins the next: both must have it in the same place.
        moved = order != torch.arange(len(order), device=order.device)
        edge = (before < 0) & moved[begin] | (after < 0) & moved[end]
        self.beyond = torch.cat([run[beyond], where(edge)])

    def breakpoints(self, walk: Walk, runs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the crossings in some runs: their trace, layer and name, int64 `[3, n]`, and about where, float64 `[n]`."""
        before = where(self._changed & torch.isin(self._run[1:], runs))
        z, far = self._z[before], self._z[before + 1]
        share = (z / (z - far)).nan_to_num(0.5).clamp(0, 1)
        _, layer, unit, boundary, trace, *_ = self.what[:, self._run[before]]
        where_ = torch.lerp(self._t[before], self._t[before + 1], share)
        return torch.stack([trace, layer, walk.name(layer, unit, boundary)]), where_
