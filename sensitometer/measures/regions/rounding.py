r"""
How counts in float32 are those of float64.

A count depends on nothing but the side of its boundary on which each unit is at each breakpoint. float32 knows the side unless
the pre-activation is within its rounding error of the boundary. Even then a wrong side mostly moves a crossing from one piece to
the next and leaves the count alone: it matters where a unit is on one side at both neighbouring breakpoints, and touches its
boundary or crosses it twice in between, and where breakpoints lie so close together that several in a row are in doubt. These
few cases are decided in float64 afterwards: the breakpoint, itself the crossing of another unit in a lower layer, is found again
by Newton's method, and the network is evaluated there.

Where float32 has missed that a unit crosses there and back, two breakpoints are missing, and a unit of a layer above may turn
back at one of them. It is close to its boundary then, and decided at these breakpoints as well.

The rounding error is not bounded by theory, which would be far too careful, but measured: the networks are evaluated at some
points of the paths in both precisions. Networks in which it is not small (deep ones with large weights amplify it from layer to
layer) are walked in float64 altogether.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.linalg import vector_norm

from ...activations import Activation
from .crossings import Rows, Walk
from .settling import DECIDED, OPEN, Births, Cases, beside, evaluate, joined, runs_of
from .steps import ABOVE, Steps

Array = Any

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
# Pre-activations of a layer that are evaluated together, and cases that are kept before they are.
AT_ONCE, MOST = 2**19, 2**17
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
        sizes.append((_largest(rough - exact), _largest(exact), vector_norm(exact, 2, (1, 2)) / exact[0].numel() ** 0.5))
        rough, exact = activation.apply_(rough), activation.apply_(exact)
    error, largest, mean = (torch.stack(each, 1) for each in zip(*sizes, strict=True))
    values = SAFETY * torch.maximum(error, largest * EPS)
    fastest = values[:, 1:] / (INTERPOLATED * EPS)
    if len(weights) > 1:
        fastest /= torch.stack([_largest(weight) for weight in weights[1:]], 1)
    # What is infinite, or no number, is not smaller; and no unit may be infinitely fast.
    return Tolerances(values, fastest.float().clamp(max=torch.finfo(torch.float32).max), (values < LARGE * mean).all(1))


def _largest(values: Tensor) -> Tensor:
    return values.abs().amax((1, 2))  # the norm that says the same takes ten times as long


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
        assert activation.clamp is not None
        self.weights, self.clamp, self.points = weights, activation.clamp, torch.cat(list(points))
        lengths = np.array([len(vertices) for vertices in points])
        self.starts, self.last = lengths.cumsum() - lengths, lengths - 2
        self.rows, self.cases = 0, 0
        # Of each trace.
        self.doubts = torch.zeros(len(weights[0]) * len(points), dtype=torch.int64, device=self.points.device)
        self.lost = torch.zeros_like(self.doubts, dtype=torch.bool)
        self.open: list[Cases] = []
        # Breakpoints that float32 has missed: their trace, layer and name `[3, m]`, and where they are.
        self.missed, self.missed_at = np.zeros((3, 0), np.int64), np.zeros(0)
        self.boundaries = np.array(activation.boundaries)
        self.fastest = tolerances.fastest
        around, middle = tolerances.values.T.unsqueeze(2), torch.from_numpy(self.boundaries).to(self.points.device)
        # [L - 1, S, B]
        self.low, self.high = (middle - around).float(), (middle + around).float()

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
        for number, limit in enumerate(self.boundaries):
            if of_each[number] > len(z):
                # Of a network that is dead here all pre-activations are 0, exactly.
                dead = ~z.any(1)
                # Not what flags are padded with.
                flags[number, dead, : z.shape[1]], close[number, dead] = ABOVE * (limit < 0), 0
        doubts = steps.doubts(layer, z, flags, rows, close, walk.limits, self.doubts)
        cases = Cases(*(column.cpu().numpy() for column in doubts))
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
        cases = joined(several)
        self._decide(walk, cases)
        cases = self._with_missed(walk, cases, self.missed, self.missed_at)
        runs = runs_of(cases)
        for layer in range(len(self.weights) - 1):
            here = runs.what[1, runs.run] == layer
            if here.any():
                _, _, unit, boundary, trace, *_ = runs.what[:, runs.run[here]]
                what, t = np.stack([trace, np.full_like(trace, layer), walk.name(layer, unit, boundary)]), runs.t[here]
                self.missed, self.missed_at = np.concatenate([self.missed, what], 1), np.concatenate([self.missed_at, t])
                more = self._with_missed(walk, cases, what, t)
                if more is not cases:
                    cases, runs = more, runs_of(more)
        columns = runs.what[4], runs.what[1], runs.more, runs.what[4, runs.lost]
        trace_, layer_, more_, lost = (torch.from_numpy(column).to(walk.device) for column in columns)
        walk.counts.index_put_((trace_, layer_), more_, accumulate=True)
        self.lost[lost] = True

    def _with_missed(self, walk: Walk, cases: Cases, missed: Array, t: Array) -> Cases:
        """Return the cases, and in missed breakpoints those in layers above that are next to these; all decided."""
        if not len(t):
            return cases
        breakpoint_, case = beside(cases, missed[:2], t)
        if not len(case):
            return cases
        cases.what[6, case] = np.maximum(cases.what[6, case], OPEN)
        new = cases[case]
        new.what[5], new.what[6], new.t[0] = missed[2, breakpoint_], OPEN, t[breakpoint_]
        cases = joined([cases, new])
        self._decide(walk, cases)
        return cases

    def doubtful(self, walk: Walk) -> Tensor:
        """Return the traces that float32 cannot decide, or of which too much is in doubt, after a walk; bool `[S P]`."""
        below = walk.counts.cumsum(1) - walk.counts
        widths = torch.tensor([weight.shape[1] for weight in self.weights], device=below.device)
        vertices = torch.from_numpy(self.last + 2).to(below.device).repeat(walk.networks).unsqueeze(1)
        return self.lost | (self.doubts > DOUBTFUL * ((below + vertices) * widths).sum(1))

    def _decide(self, walk: Walk, cases: Cases) -> None:
        """Put open cases where their breakpoints truly are, and as far above their boundaries as they truly are."""
        which = np.flatnonzero(cases.what[6] == OPEN)
        which = which[np.argsort(-cases.what[1, which], kind="stable")]
        network, size = cases.what[4, which] // walk.paths, max(16, AT_ONCE // walk.width)
        for one in np.unique(network).tolist():
            mine, weights = which[network == one], [weight[one].cpu() for weight in self.weights]
            for start in range(0, len(mine), size):
                chosen = mine[start : start + size]
                z, cases.t[0, chosen] = self._evaluate(walk, weights, cases.what[:, chosen], cases.t[0, chosen])
                cases.z[0, chosen] = z - self.boundaries[cases.what[3, chosen]]
        cases.what[6, which] = DECIDED

    def _evaluate(self, walk: Walk, weights: Sequence[Tensor], what: Array, t: Array) -> tuple[Array, Array]:
        """
        Find breakpoints of a network again, those of the highest layers first.

        Returns the pre-activations of the units there, and where they are; float64 `[n]` each.
        """
        first, *above = weights
        _, layer, unit, _, trace, born, *_ = what
        born_in, born_by, boundary = walk.named(born)
        path = trace % walk.paths
        segment = np.minimum(t.astype(np.int64), self.last[path])
        vertices, ends = np.unique(self.starts[path] + segment + np.array([[0], [1]]), return_inverse=True)
        z = (self.points[torch.from_numpy(vertices)].cpu().double() @ first.T).numpy()[ends.reshape(2, -1)]
        births = Births(born_in, born_by, self.boundaries[boundary])
        found, share = evaluate(above, self.clamp, z, t - segment, births, layer, unit)
        return found, segment + share
