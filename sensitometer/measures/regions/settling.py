"""
What float32 could not tell on a walk, decided in float64: `rounding.py` says when and why.

A path leaves some few of such cases, and a stack of networks thousands. Called from torch operation by operation, the few would
take as long as the walk; so NumPy and compiled loops do this on the processor, wherever the networks are, and only the products
with weights are torch's.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..compiling import compiled

Array = Any

# A breakpoint is found again in so many steps of Newton's method at most, each of at most so much of a segment; it is found when
# its unit is so near its boundary, relative to the largest pre-activation of the layer.
STEPS, FARTHEST, PRECISE = 4, 0.01, 1e-12
# A case whose side may matter: it is to be decided in float64, or has been.
OPEN, DECIDED = 1, 2


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

    what: Array
    t: Array
    z: Array

    def __getitem__(self, chosen: Array) -> "Cases":
        # Unlike what is indexed, what is taken always lies row by row, and loops are compiled for one layout only.
        return Cases(self.what.take(chosen, 1), self.t.take(chosen, 1), self.z.take(chosen, 1))


def joined(several: Sequence[Cases]) -> Cases:
    """Return all cases, each unit's in the order of its breakpoints, and of those of one breakpoint first ones first."""
    what, t, z = (np.concatenate([getattr(one, name) for one in several], 1) for name in ("what", "t", "z"))
    return Cases(what, t, z)[np.argsort(what[2] * (what[0].max() + 1) + what[0], kind="stable")]


def beside(cases: Cases, missed: Array, t: Array) -> tuple[Array, Array]:
    """
    Return the pairs of a missed breakpoint and a case in a layer above between whose neighbours it is; int64 `[p]` each.

    The traces and layers of missed breakpoints are `missed` `[2, m]`, where they are `t` `[m]`.
    """
    order = np.argsort(missed[0], kind="stable")
    trace, layer = missed.take(order, 1)
    first, last = (np.searchsorted(trace, cases.what[4], side) for side in ("left", "right"))
    breakpoint_, case = _beside(cases.what, cases.t, first, last, layer, t[order])
    return order[breakpoint_], case


@compiled
def _beside(what: Array, t: Array, first: Array, last: Array, layer: Array, t_missed: Array) -> Any:
    breakpoints, cases = [0 for _ in range(0)], [0 for _ in range(0)]
    for case in range(what.shape[1]):
        # Not what has been put in other missed breakpoints before: that follows the case that it was next to.
        if case and what[0, case] == what[0, case - 1] and what[2, case] == what[2, case - 1]:
            continue
        for missed in range(first[case], last[case]):
            if what[1, case] > layer[missed] and t[1, case] < t_missed[missed] < t[2, case]:
                breakpoints.append(missed)
                cases.append(case)
    return np.array(breakpoints, np.int64), np.array(cases, np.int64)


@dataclass(frozen=True)
class Runs:
    """
    What becomes of cases: where a unit stays close to a boundary for several breakpoints, and how often it changes sides there.

    Attributes
    ----------
    what
        int64 `[9, r]`, of the first case of each run, see `Cases`.
    more
        int64 `[r]`: how many crossings more than in float32 there are.
    lost
        bool `[r]`: whether a case belongs beyond a neighbour on the other side; what comes after that is not known.
    run, t
        int64 and float64 `[m]`: of which run, and about where, are the crossings of those in which float32 has missed some.
    """

    what: Array
    more: Array
    lost: Array
    run: Array
    t: Array


def runs_of(cases: Cases) -> Runs:
    """Return the runs of cases that are `joined`, all that may matter decided."""
    begin, more, lost, run, t = _runs(cases.what, cases.t, cases.z)
    return Runs(cases.what[:, begin], more, lost, run, t)


@compiled
def _runs(what: Array, t: Array, z: Array) -> Any:
    n = what.shape[1]
    begins, more, lost = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.bool_)
    run, at = np.empty(2 * n, np.int64), np.empty(2 * n, np.float64)
    runs = crossings = begin = 0
    while begin < n:
        end = begin + 1
        while (
            end < n and what[0, end] <= what[0, end - 1] + 1 and what[2, end] == what[2, begin] and what[4, end] == what[4, begin]
        ):
            end += 1
        before, after = what[7, begin], what[8, end - 1]
        t_before, t_after = t[1, begin], t[2, end - 1]
        # In their true order: two crossings that nearly coincide may have been found in the wrong one.
        order = begin + np.argsort(t[0, begin:end], kind="mergesort")
        # The same breakpoint ends one chunk and begins the next: both must have it in the same place.
        beyond = (before < 0 and order[0] != begin) or (after < 0 and order[-1] != end - 1)
        below, first = False, crossings
        side, t_last, z_last = before, t_before, z[1, begin]
        for place in range(len(order) + 1):
            if place < len(order):
                here = order[place]
                now, t_now, z_now = np.int64(z[0, here] > 0), t[0, here], z[0, here]
                below |= now == 0
                beyond |= (before >= 0 and before != now and t_now <= t_before) or (
                    after >= 0 and after != now and t_now >= t_after
                )
            else:
                now, t_now, z_now = after, t_after, z[2, end - 1]
            if side >= 0 and now >= 0 and side != now:
                share = z_last / (z_last - z_now)
                share = 0.5 if np.isnan(share) else min(max(share, 0.0), 1.0)
                run[crossings] = runs
                # Exactly at an end, if the unit is on its boundary there.
                if share < 0.5:
                    at[crossings] = t_last + share * (t_now - t_last)
                else:
                    at[crossings] = t_now - (1 - share) * (t_now - t_last)
                crossings += 1
            side, t_last, z_last = now, t_now, z_now
        changes = crossings - first
        more[runs] = changes - (before == 0) - (after == 0)  # for float32 all between is above
        if not below or (changes <= 1 and more[runs] <= 0):
            crossings = first  # it has missed none
        begins[runs], lost[runs] = begin, beyond
        runs += 1
        begin = end
    return begins[:runs], more[:runs], lost[:runs], run[:crossings], at[:crossings]


@dataclass(frozen=True)
class Births:
    """Whose crossings `[n]` have made breakpoints: int64 layer, -1 for none, and unit, and float64 the boundary itself."""

    layer: Array
    unit: Array
    limit: Array

    def __getitem__(self, chosen: Array) -> "Births":
        return Births(self.layer[chosen], self.unit[chosen], self.limit[chosen])


def evaluate(
    weights: Sequence[Tensor],
    clamp: tuple[float, float, float],
    ends: Array,
    share: Array,
    births: Births,
    layer: Array,
    unit: Array,
) -> tuple[Array, Array]:
    """
    Find breakpoints of a network again; return the units' pre-activations there, and where they are; float64 `[n]` each.

    Parameters
    ----------
    weights
        The hidden layers above the first, float64 `[fan_out, fan_in]`.
    clamp
        Of their activation.
    ends
        float64 `[2, n, W]`: the first pre-activations at both ends of the segment that each breakpoint is on.
    share
        float64 `[n]`: at what share of its segment it was found.
    births
        What made it a breakpoint.
    layer, unit
        int64 `[n]`: of what unit to return the pre-activation; in a layer above the one where the breakpoint was born. The
        highest layers come first.
    """
    network, (begin, end) = (weights, clamp), ends
    first, share, z, before = share, share.copy(), np.empty(len(share)), np.full(len(share), np.inf)
    todo = np.arange(len(share))
    for _ in range(STEPS):
        points, born = (begin[todo], end[todo]), births[todo]
        share[todo] += _shift(*network, *points, share[todo], born)
        z[todo], off = _forward(*network, *points, share[todo], born, layer[todo], unit[todo])
        # One that does not come nearer goes to and fro between two pieces.
        go_on = (off > PRECISE) & (off < before[todo] / 2)
        before[todo], todo = off, todo[go_on]
        if not len(todo):
            break
    # One that is not found again is no crossing in truth, but still a point of the path like any other.
    none = np.flatnonzero((before > PRECISE) | (share < 0) | (share > 1))
    if len(none):
        share[none] = first[none]
        born = Births(np.full_like(none, -1), births.unit[none], births.limit[none])
        z[none], _ = _forward(*network, begin[none], end[none], share[none], born, layer[none], unit[none])
    return z, share


def _shift(
    weights: Sequence[Tensor], clamp: tuple[float, float, float], begin: Array, end: Array, share: Array, births: Births
) -> Array:
    """Return Newton's step, as a share of the segment, from where a breakpoint was taken to be to where its unit crosses."""
    order = np.argsort(-births.layer, kind="stable")
    shift, born = np.zeros(len(share)), births[order]
    alive = _alive(born.layer, len(weights) + 1)
    some = order[: alive[0]]
    # Pre-activations and their slopes, at the breakpoints that were born in this layer or above.
    both = np.stack([begin[some] + share[some, np.newaxis] * (end[some] - begin[some]), end[some] - begin[some]], 1)
    for place, (now, later) in enumerate(itertools.pairwise(alive)):
        _newton(both, later, now, born.unit, born.limit, shift, *clamp)
        if not later:
            break
        both = _times(both[:later], weights[place])
    # More than that is no rounding error.
    shift[~(np.abs(shift) < FARTHEST)] = 0
    shift[order] = shift.copy()
    return shift


def _forward(
    weights: Sequence[Tensor],
    clamp: tuple[float, float, float],
    begin: Array,
    end: Array,
    share: Array,
    births: Births,
    layer: Array,
    unit: Array,
) -> tuple[Array, Array]:
    """
    Return the units' pre-activations with each breakpoint's own unit on its boundary, and how far from it that was.

    They are in the layers `layer` `[n]`, the highest first.
    """
    alive = _alive(layer, len(weights) + 1)
    z, off, found = begin + share[:, np.newaxis] * (end - begin), np.zeros(len(share)), np.empty(len(share))
    for place, (now, later) in enumerate(itertools.pairwise(alive)):
        found[later:now] = z[np.arange(later, now), unit[later:now]]
        if not later:
            break
        _settle(z, later, place, births.layer, births.unit, births.limit, off, *clamp)
        z = _times(z[:later], weights[place])
    return found, off


def _alive(layer: Array, layers: int) -> list[int]:
    """Return how many of the layers `[n]`, the highest first, are each layer or above; in the last, none."""
    alive: list[int] = np.searchsorted(-layer, -np.arange(layers), side="right").tolist()
    return [*alive, 0]


def _times(h: Array, weight: Tensor) -> Array:
    """Return `h` `[..., fan_in]`, contiguous, times the weights `[fan_out, fan_in]`: `[..., fan_out]`."""
    flat = torch.from_numpy(h).view(-1, h.shape[-1])
    return torch.mm(flat, weight.T).numpy().reshape(*h.shape[:-1], len(weight))


@compiled
def _newton(
    both: Array, later: int, now: int, unit: Array, limit: Array, step: Array, shift: float, low: float, high: float
) -> None:  # fmt: skip
    """Set the steps of the breakpoints from `later` to `now`; turn what is `both` at earlier ones into activations and slopes."""
    for row in range(later, now):
        step[row] = (limit[row] - both[row, 0, unit[row]]) / both[row, 1, unit[row]]
    for row in range(later):
        for at in range(both.shape[2]):
            value = min(max(both[row, 0, at] + shift, low), high)
            both[row, 0, at] = value
            both[row, 1, at] *= (value > low) & (value < high)


@compiled
def _settle(
    z: Array, rows: int, layer: int, born: Array, unit: Array, limit: Array, off: Array, shift: float, low: float, high: float
) -> None:  # fmt: skip
    """Put units that were born in this layer on their boundaries, note how far `off` they were, and turn `z` into activations."""
    for row in range(rows):
        if born[row] == layer:
            largest = 0.0
            for at in range(z.shape[1]):
                largest = max(largest, abs(z[row, at]))
            off[row] = abs(z[row, unit[row]] - limit[row]) / largest
            z[row, unit[row]] = limit[row]
        for at in range(z.shape[1]):
            z[row, at] = min(max(z[row, at] + shift, low), high)
