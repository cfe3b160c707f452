r"""
Transitions between samples of a path, as the paper counts them (S3): $\sum_i \|c(z_i) - c(z_{i+1})\|_1$ over K samples.

A sampled count misses pairs of crossings of one unit between neighbouring samples (A.1.2).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..activations import Activation
from ..networks import MLP
from ..paths import Path

# Pre-activations of a layer in a chunk, which is to stay in the last cache.
CHUNK = 2**20

# Maps parameters `[n]` of a path to the codes int8 `[n, units]` of each layer at these points.
Codes = Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Sampled:
    """
    The counts along one path.

    Attributes
    ----------
    per_layer
        int64 `[layers]`.
    positions
        For each layer, float64 `[n]`: the middle of the interval of each transition, in the order of the path; None if not asked.
    """

    per_layer: Tensor
    positions: list[Tensor] | None


def count_sampled(codes: Codes, path: Path, samples: int, size: int, *, keep: bool) -> Sampled:
    """Count the transitions between `samples` evenly spaced points of a path, `size` of them at a time."""
    step = path.span / (samples if path.closed else samples - 1)
    first: list[Tensor] = []
    before: list[Tensor] = []
    counts, positions = [], []
    for start in range(0, samples, size):
        now = codes(torch.arange(start, min(start + size, samples), dtype=torch.float64) * step)
        if not before:
            first = [layer[:1] for layer in now]
        ends = before or [layer[:0] for layer in now]
        found = [_transitions(torch.cat([end, layer])) for end, layer in zip(ends, now, strict=True)]
        offset = start - len(ends[0])
        counts.append(torch.stack([times.sum() for _, times in found]))
        positions.append([(offset + place).repeat_interleave(times) for place, times in found] if keep else [])
        before = [layer[-1:] for layer in now]
    if path.closed:
        found = [_transitions(torch.cat([end, begin])) for end, begin in zip(before, first, strict=True)]
        counts.append(torch.stack([times.sum() for _, times in found]))
        positions.append([(samples - 1 + place).repeat_interleave(times) for place, times in found] if keep else [])
    where_ = [(torch.cat(layer).double() + 0.5) * step for layer in zip(*positions, strict=True)] if keep else None
    return Sampled(torch.stack(counts).sum(0), where_)


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


def _transitions(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return between which neighbours of `codes` `[n, units]` units change their pieces, and by how many; int64 `[m]` each."""
    units = max(1, codes.shape[1])
    place = where(codes[1:] != codes[:-1])
    flat = codes.reshape(-1)
    return place // units, (flat[place + units].long() - flat[place].long()).abs()


def network_codes(network: MLP, activation: Activation, path: Path) -> tuple[Codes, int]:
    """
    Return the codes of a network's hidden layers along a path, and how many points to ask for at a time.

    The first layer is the product of its weights with the path's few basis points, combined for each sample.
    """
    first, *others = network.weights[:-1]
    basis = path.basis.to(first) @ first.T

    def codes(t: Tensor) -> list[Tensor]:
        z = path.combine(basis, t.to(basis.device))
        found = [codes_of(z, activation.boundaries)]
        for weight in others:
            z = activation.apply_(z) @ weight.T
            found.append(codes_of(z, activation.boundaries))
        return found

    return codes, max(64, CHUNK // max(len(weight) for weight in network.weights))


def codes_of(z: Tensor, boundaries: Sequence[float]) -> Tensor:
    """Return how many boundaries lie below each pre-activation, int8."""
    sides = z.new_empty(z.shape, dtype=torch.bool)
    first, *others = boundaries
    codes = _above(sides, z, first).view(torch.int8)
    for limit in others:
        codes = codes + _above(torch.empty_like(sides), z, limit).view(torch.int8)
    return codes


def _above(out: Tensor, z: Tensor, limit: float) -> Tensor:
    """Write `z > limit` to `out` and return it. On a CPU by NumPy, whose comparison is some ten times faster than torch's."""
    if z.device.type != "cpu":
        return torch.gt(z, limit, out=out)
    numbers = z.numpy()
    np.greater(numbers, numbers.dtype.type(limit), out=out.numpy())
    return out
