r"""
Transitions between samples of a path, as the paper counts them (S3): $\sum_i \|c(z_i) - c(z_{i+1})\|_1$ over K samples.

A sampled count misses pairs of crossings of one unit between neighbouring samples (A.1.2).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..activations import activation
from ..networks import MLP
from ..paths import Path

# Pre-activations of one layer in a chunk, which is to stay in the last cache.
CHUNK = 2**20

# Maps parameters `[n]` of a path to the codes int8 `[n, units]` of each layer at these points.
Codes = Callable[[Tensor], list[Tensor]]


class Sampled(NamedTuple):
    """The counts along one path."""

    per_layer: Tensor  # int64 [layers]
    # For each layer, float64 [n]: the middle of the interval of each transition, in the order of the path; None if not asked.
    positions: list[Tensor] | None


def count_sampled(codes: Codes, size: int, path: Path, samples: int, *, keep: bool) -> Sampled:
    """Count the transitions between `samples` evenly spaced points of a path, `size` of them at a time."""
    step = path.span / (samples if path.closed else samples - 1)
    first: list[Tensor] = []
    before: list[Tensor] = []
    counts, positions = [], []
    for start in range(0, samples, size):
        stop = min(start + size, samples)
        layers = codes(torch.arange(start, stop, dtype=torch.float64) * step)
        first = first or [layer[:1] for layer in layers]
        before = before or [layer[:0] for layer in layers]
        offset = start - len(before[0])
        around = path.closed and stop == samples
        after = first if around else [layer[:0] for layer in layers]
        changes = [_changes(torch.cat(parts)) for parts in zip(before, layers, after, strict=True)]
        counts.append(torch.stack([jumps.sum() for _, jumps in changes]))
        positions.append([(offset + place).repeat_interleave(jumps) for place, jumps in changes] if keep else [])
        before = [layer[-1:] for layer in layers]
    middles = [(torch.cat(layer).double() + 0.5) * step for layer in zip(*positions, strict=True)] if keep else None
    return Sampled(torch.stack(counts).sum(0), middles)


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


def _changes(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return where units change their pieces from one of `codes` `[n, units]` to the next, and by how much; int64 `[m]` each."""
    units = max(1, codes.shape[1])
    place = where(codes[1:] != codes[:-1])
    flat = codes.reshape(-1)
    return place // units, (flat[place + units].long() - flat[place].long()).abs()


def network_codes(network: MLP, path: Path) -> tuple[Codes, int]:
    """
    Return the codes of a network's hidden layers along a path, and the number of points to ask for at a time.

    The first layer is the product of its weights with the path's few basis points, combined for each sample.
    """
    basis = path.basis.to(network.weights[0]) @ network.weights[0].T

    def codes(t: Tensor) -> list[Tensor]:
        return list(layer_codes(network, path.combine(basis, t.to(basis.device)), range(len(network.weights) - 1)))

    return codes, max(64, CHUNK // max(len(weight) for weight in network.weights))


def preactivations(network: MLP, z: Tensor) -> Iterator[Tensor]:
    """Yield the pre-activations of each layer, the logits last, `[n, W]`, from the first layer's; the next overwrites them."""
    apply_ = activation(network.activation).apply_
    for weight in network.weights[1:]:
        yield z
        z = apply_(z) @ weight.T
    yield z


def layer_codes(network: MLP, z: Tensor, layers: Sequence[int]) -> Iterator[Tensor]:
    """Yield the codes of some hidden layers, ascending from 0, int8 `[n, W]`, from the pre-activations of the first."""
    boundaries = activation(network.activation).boundaries
    for layer, values in zip(range(layers[-1] + 1), preactivations(network, z), strict=False):
        if layer in layers:
            yield codes_of(values, boundaries)


def codes_of(z: Tensor, boundaries: Sequence[float]) -> Tensor:
    """Return the number of boundaries strictly below each pre-activation, int8; `z` and the codes are of any shape."""
    first, *others = boundaries
    codes = _above(z, first).view(torch.int8)
    for limit in others:
        codes += _above(z, limit).view(torch.int8)
    return codes


def _above(z: Tensor, limit: float) -> Tensor:
    """Return `z > limit`. On a CPU by NumPy, whose comparison is some ten times faster than torch's."""
    if z.device.type != "cpu":
        return z > limit
    numbers = z.numpy()
    return torch.from_numpy(numbers > numbers.dtype.type(limit))
