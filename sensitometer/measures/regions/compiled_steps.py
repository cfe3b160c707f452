r"""
The steps of a walk along straight segments, compiled for the processor: what `steps.py` says, in one pass each.

Pre-activations are read once to find out where they are, and once more to make the activations of the next layer. What is done
with flags goes by words of eight units.
"""

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...activations import Activation
from ..compiling import compiled
from .crossings import Found, Rows, products
from .steps import ABOVE, CLOSE, Insertion

Array = Any

WORD = 8
# Of each byte of a word the lowest bit, and the next.
ONES = np.uint64(0x0101010101010101)
ALL_CLOSE = np.uint64(CLOSE) * ONES
# So many crossings of a piece, and more, are sorted by merging.
MANY = 64
# Rows at most that are interpolated between two products: so few that their rounding errors do not add up to much.
BETWEEN = 15
# Rows at which products are taken before what is between them is interpolated: so few that, of some hundred units, they
# stay in the second cache.
BLOCK = 512


def sides(z: Tensor, edges: list[int], low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """See `Steps`. Flags are padded to whole words."""
    R, W = z.shape
    flags = torch.empty(low.shape[1], R, -(-W // WORD) * WORD, dtype=torch.uint8)
    close = _sides(z.numpy(), np.array(edges), low.numpy(), high.numpy(), flags.numpy(), _words(flags))
    return flags, torch.from_numpy(close)


def changes(flags: Tensor, trace: Tensor) -> Tensor:
    """See `Steps`."""
    return torch.from_numpy(_changes(_words(flags), trace.numpy()))


def crossings(z: Tensor, flags: Tensor, rows: Rows, limits: Tensor) -> Found:
    """See `Steps`."""
    columns = _crossings(z.numpy(), _words(flags), rows.trace.numpy(), rows.t.numpy(), limits.numpy())
    return Found(*map(torch.from_numpy, columns))


def doubts(
    layer: int, z: Tensor, flags: Tensor, rows: Rows, close: Tensor, limits: Tensor, counts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See `Steps`."""
    what, t, above = _doubts(
        *(layer, z.numpy(), flags.numpy(), _words(flags), rows.trace.numpy(), rows.t.numpy(), rows.born.numpy()),
        *(close.numpy(), limits.numpy(), counts.numpy()),
    )
    return torch.from_numpy(what), torch.from_numpy(t), torch.from_numpy(above)


def merge(rows: Rows, found: Found, names: Tensor) -> Insertion:
    """See `Steps`."""
    old = rows.trace.numpy(), rows.t.numpy(), rows.born.numpy()
    trace, t, born, before, crossing = map(torch.from_numpy, _merge(*old, found.piece.numpy(), found.t.numpy(), names.numpy()))
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
    """See `Steps`. Between products, each crossing turns the line that the layer above is on."""
    if fastest is None:
        return products(activations(z, insertion, torch.arange(here.start, here.stop), activation), weights, edges)
    found, crossing = insertion.found, insertion.crossing.numpy()
    at = here.start + np.array(edges)
    places = _anchors(crossing, found.change.numpy(), at, fastest.numpy(), BETWEEN)
    out = z.new_empty(here.stop - here.start, weights.shape[2])
    h, known = (z.new_empty(min(len(places), BLOCK + 1), size) for size in weights.shape[1:])
    insert = z.numpy(), h.numpy(), *_inserted(z, insertion, activation)
    line = out.numpy(), here.start, crossing, *(one.numpy() for one in (found.unit, found.boundary, found.place, found.change))
    for weight, (start, stop) in zip(weights, itertools.pairwise(np.searchsorted(places, at).tolist()), strict=True):
        matrix = weight.numpy()
        # Of two blocks in a row the last and the first is the same.
        for first in range(start, max(start + 1, stop - 1), BLOCK):
            block = places[first : min(first + BLOCK + 1, stop)]
            _insert(block, *insert)
            torch.mm(h[: len(block)], weight, out=known[: len(block)])
            _between(matrix, block, known.numpy(), *line)
    return out


def activations(z: Tensor, insertion: Insertion, places: Tensor, activation: Activation) -> Tensor:
    """Return the activations `[n, W]` at the rows `places` `[n]`, from the pre-activations `z` `[R, W]` at the old ones."""
    out = z.new_empty(len(places), z.shape[1])
    _insert(places.numpy(), z.numpy(), out.numpy(), *_inserted(z, insertion, activation))
    return out


def _inserted(z: Tensor, insertion: Insertion, activation: Activation) -> tuple[Any, ...]:
    """Return what `_insert` takes last."""
    assert activation.clamp is not None
    rows, found, number = insertion.rows, insertion.found, z.numpy().dtype.type
    columns = insertion.before, insertion.crossing, rows.trace, rows.t, found.unit, found.boundary, found.place
    limits = np.array(activation.boundaries, number)
    return *(column.numpy() for column in columns), limits, *map(number, activation.clamp)


def _words(flags: Tensor) -> Array:
    """Return the flags of eight units each, uint64 `[B, R, words]`."""
    return flags.numpy().view(np.uint64)


@compiled
def _sides(z: Array, edges: Array, low: Array, high: Array, flags: Array, words: Array) -> Array:
    W = z.shape[1]
    close = np.empty((len(flags), len(z)), np.int64)
    for boundary in range(len(flags)):
        for network in range(len(edges) - 1):
            lowest, highest = low[network, boundary], high[network, boundary]
            for row in range(edges[network], edges[network + 1]):
                for unit in range(W):
                    value = z[row, unit]
                    above = value > lowest
                    flags[boundary, row, unit] = above * ABOVE + (above & (value <= highest)) * CLOSE
                flags[boundary, row, W:] = 0
                count = np.uint64(0)
                for word in range(words.shape[2]):
                    count += _sum((words[boundary, row, word] & ALL_CLOSE) >> np.uint64(1))
                close[boundary, row] = np.int64(count)
    return close


@compiled
def _sum(bytes_: Any) -> Any:
    """Return the sum of a word's bytes, below 256: the highest byte of this product."""
    return (bytes_ * ONES) >> np.uint64(56)


@compiled
def _changes(words: Array, trace: Array) -> Array:
    changes = np.zeros(len(trace) - 1, np.int64)
    for boundary in range(len(words)):
        for row in range(len(changes)):
            if trace[row] != trace[row + 1]:
                continue
            count = np.uint64(0)
            for word in range(words.shape[2]):
                count += _sum((words[boundary, row, word] ^ words[boundary, row + 1, word]) & ONES)
            changes[row] += np.int64(count)
    return changes


@compiled
def _crossings(z: Array, words: Array, trace: Array, t: Array, limits: Array) -> Any:
    changes = _changes(words, trace)
    total = changes.sum()
    piece, unit, boundary = (np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.int64))
    share, change, where = np.empty(total, z.dtype), np.empty(total, z.dtype), np.empty(total, np.float64)
    zero, half, one, infinite = z.dtype.type(0), z.dtype.type(0.5), z.dtype.type(1), z.dtype.type(np.inf)
    stop = 0
    for row in range(len(changes)):
        if not changes[row]:
            continue
        start = stop
        near = np.uint64(0)
        for limit in range(len(limits)):
            for word in range(words.shape[2]):
                near |= words[limit, row, word] | words[limit, row + 1, word]
        smooth = near & ALL_CLOSE == 0
        for limit in range(len(limits)):
            for word in range(words.shape[2]):
                changed = (words[limit, row, word] ^ words[limit, row + 1, word]) & ONES
                at = word * WORD
                while changed:
                    if changed & np.uint64(1):
                        begin, end = z[row, at], z[row + 1, at]
                        tau = (limits[limit] - begin) / (end - begin)
                        # Where rounding has put both ends on one side the nearer end is the crossing.
                        tau = half if np.isnan(tau) else min(max(tau, zero), one)
                        piece[stop], unit[stop], boundary[stop], share[stop] = row, at, limit, tau
                        change[stop] = abs(end - begin) if smooth else infinite
                        stop += 1
                    changed >>= np.uint64(WORD)
                    at += 1
        _sort(share[start:stop], unit[start:stop], boundary[start:stop], change[start:stop])
        for place in range(start, stop):
            tau = np.float64(share[place])
            # As torch.lerp does it.
            if tau < 0.5:
                where[place] = t[row] + tau * (t[row + 1] - t[row])
            else:
                where[place] = t[row + 1] - (t[row + 1] - t[row]) * (1.0 - tau)
    return piece, unit, boundary, share, where, change


@compiled
def _sort(share: Array, unit: Array, boundary: Array, change: Array) -> None:
    """Put the crossings of a piece into their order; equal ones keep theirs."""
    if len(share) >= MANY:
        order = np.argsort(share, kind="mergesort")
        share[:], unit[:], boundary[:], change[:] = share[order], unit[order], boundary[order], change[order]
        return
    for place in range(1, len(share)):
        tau, one, limit, far = share[place], unit[place], boundary[place], change[place]
        while place > 0 and share[place - 1] > tau:
            share[place], unit[place] = share[place - 1], unit[place - 1]
            boundary[place], change[place] = boundary[place - 1], change[place - 1]
            place -= 1
        share[place], unit[place], boundary[place], change[place] = tau, one, limit, far


@compiled
def _doubts(
    layer: int,
    z: Array,
    flags: Array,
    words: Array,
    trace: Array,
    t: Array,
    born: Array,
    close: Array,
    limits: Array,
    counts: Array,
) -> Any:
    total = close.sum()
    what, where, above = np.empty((9, total), np.int64), np.empty((3, total), np.float64), np.empty((3, total), np.float64)
    rows, n = len(trace), 0
    for limit in range(len(flags)):
        for row in range(rows):
            if not close[limit, row]:
                continue
            counts[trace[row]] += close[limit, row]
            begins = row == 0 or trace[row - 1] != trace[row]
            ends = row == rows - 1 or trace[row + 1] != trace[row]
            for word in range(words.shape[2]):
                near = words[limit, row, word] & ALL_CLOSE
                at = word * WORD
                while near:
                    if near & np.uint64(CLOSE):
                        before = np.uint8(CLOSE) if begins else flags[limit, row - 1, at]
                        after = np.uint8(CLOSE) if ends else flags[limit, row + 1, at]
                        what[0, n], what[1, n], what[2, n], what[3, n] = limit * (rows + 2) + row, layer, at, limit
                        what[4, n], what[5, n] = trace[row], born[row]
                        what[6, n] = (before | after) & CLOSE != 0 or (before ^ after) & ABOVE == 0
                        what[7, n] = -1 if begins else before & ABOVE
                        what[8, n] = -1 if ends else after & ABOVE
                        for place, there in enumerate((row, max(row - 1, 0), min(row + 1, rows - 1))):
                            where[place, n], above[place, n] = t[there], np.float64(z[there, at]) - np.float64(limits[limit])
                        n += 1
                    near >>= np.uint64(WORD)
                    at += 1
    return what, where, above


@compiled
def _merge(trace: Array, t: Array, born: Array, piece: Array, t_new: Array, names: Array) -> Any:
    rows = len(trace) + len(piece)
    traces, ts, borns = np.empty(rows, np.int64), np.empty(rows, np.float64), np.empty(rows, np.int64)
    before, crossing = np.empty(rows, np.int64), np.empty(rows, np.int64)
    place, new = 0, 0
    for row in range(len(trace)):
        traces[place], ts[place], borns[place], before[place], crossing[place] = trace[row], t[row], born[row], row, -1
        place += 1
        while new < len(piece) and piece[new] == row:
            traces[place], ts[place], borns[place] = trace[row], t_new[new], names[new]
            before[place], crossing[place] = row, new
            place += 1
            new += 1
    return traces, ts, borns, before, crossing


@compiled
def _insert(
    places: Array, z: Array, out: Array, before: Array, crossing: Array, trace: Array, t: Array, unit: Array, boundary: Array,
    share: Array, limits: Array, shift: float, low: float, high: float,
) -> None:  # fmt: skip
    W = z.shape[1]
    half, one = z.dtype.type(0.5), z.dtype.type(1)
    for place in range(len(places)):
        row = places[place]
        begin, new = z[before[row]], crossing[row]
        if new < 0:
            for at in range(W):
                out[place, at] = min(max(begin[at] + shift, low), high)
            continue
        end, tau = z[before[row] + 1], share[new]
        # As torch.lerp does it.
        if tau < half:
            for at in range(W):
                out[place, at] = min(max(begin[at] + tau * (end[at] - begin[at]) + shift, low), high)
        else:
            rest = one - tau
            for at in range(W):
                out[place, at] = min(max(end[at] - (end[at] - begin[at]) * rest + shift, low), high)
        # Crossings that coincide are on their boundaries at each of them: what cancels above these units must cancel exactly.
        for step in (-1, 1):
            other = row
            while 0 <= other < len(trace) and trace[other] == trace[row] and t[other] == t[row]:
                if crossing[other] >= 0:
                    out[place, unit[crossing[other]]] = min(max(limits[boundary[crossing[other]]] + shift, low), high)
                other += step


@compiled
def _anchors(crossing: Array, change: Array, edges: Array, fastest: Array, between: int) -> Array:
    """Return the rows between the `edges` that products are taken at: the first, the last, all old ones, and some of the new."""
    start, stop = edges[0], edges[-1]
    places, count, run = np.empty(stop - start, np.int64), 0, 0
    for network in range(len(fastest)):
        for row in range(edges[network], edges[network + 1]):
            new = crossing[row]
            if new >= 0 and start < row < stop - 1 and run < between and change[new] <= fastest[network]:
                run += 1
            else:
                places[count], run = row, 0
                count += 1
    return places[:count]


@compiled
def _between(
    weight: Array, places: Array, known: Array, out: Array, start: int, crossing: Array, unit: Array, boundary: Array,
    share: Array, change: Array,
) -> None:  # fmt: skip
    """
    Fill `out`, whose first row is `start`, from the first of the `places`, whose rows are `known`, to the last.

    From one place to the next the layer below is a straight line but for units that cross: the sum of what each adds from where
    it crosses to the end, and of one line from the beginning, is the difference of both ends. So that line is known, too.
    """
    W = out.shape[1]
    value, slope = np.empty(W, out.dtype), np.empty(W, out.dtype)
    zero, one = out.dtype.type(0), out.dtype.type(1)
    for place in range(len(places)):
        row = places[place]
        for at in range(W):
            out[row - start, at] = known[place, at]
        if place + 1 == len(places) or places[place + 1] == row + 1:
            continue
        last = places[place + 1]
        begin = zero if crossing[row] < 0 else share[crossing[row]]
        end = one if crossing[last] < 0 else share[crossing[last]]
        length = end - begin
        for at in range(W):
            value[at] = known[place, at]
        for at in range(W):
            slope[at] = known[place + 1, at] - value[at]
        for other in range(row + 1, last):
            new = crossing[other]
            turn, by = _turn(change[new], boundary[new]) * (end - share[new]), unit[new]
            for at in range(W):
                slope[at] -= turn * weight[by, at]
        behind = begin
        for other in range(row + 1, last):
            new = crossing[other]
            step = (share[new] - behind) / length if length > zero else zero
            behind = share[new]
            turn, by = _turn(change[new], boundary[new]) * length, unit[new]
            for at in range(W):
                steepness = slope[at]
                reached = value[at] + step * steepness
                value[at] = reached
                out[other - start, at] = reached
                slope[at] = steepness + turn * weight[by, at]


@compiled
def _turn(change: Any, boundary: int) -> Any:
    """
    Return how much steeper an activation gets where its pre-activation, which changes so much along a piece, crosses.

    Its slope is 1 above its first boundary, below its second, if it has one, and 0 elsewhere.
    """
    return change if boundary == 0 else -change
