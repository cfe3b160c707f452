r"""
Transitions: how many boundaries between linear regions a path crosses (paper, S3), exact or sampled as in the paper.

The code of a hidden unit is the number of its activation's boundaries that lie strictly below its pre-activation; the
transitions along a path are the changes of all codes, a jump over two boundaries counting twice. Units of bias-free networks may
be exactly on a boundary: one that stays at 0 along a whole piece of the path, because all units below are off, has code 0 there.
What rests on a boundary only because contributions cancel does so up to rounding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...activations import Activation, activation
from ...errors import InvalidInputError
from ...evaluation import all_finite
from ...networks import MLP, MLPStack, as_stack
from ...paths import Ellipse, Path, Polyline, as_paths
from ..module_codes import ModuleCodes
from ..sampled import count_sampled, network_codes
from . import rounding
from .arcs import Arcs
from .crossings import Crossings, Geometry, Walk
from .segments import Segments, vertices

METHODS = ("exact", "sampled")
# Numbers in a chunk of points, or of their units, for a model that is not of this package.
MODULE_CHUNK = 2**20
# A segment that comes so near 0, as a fraction of its vertices' norms, is walked in float64.
NEAR_0 = 1e-3


@dataclass(frozen=True)
class TransitionCount:
    """
    Transitions along paths. Dimensions of a single network or a single path are left out.

    Attributes
    ----------
    total
        int64 `[S, P]`: `[]`, `[S]` for a stack, `[P]` for a list of paths.
    per_layer
        int64 `[S, P, L - 1]`, by hidden layer; for other models by activation, in the order in which they are called.
    positions
        float64 `[n]` for each layer: the path's parameter at each transition, sorted; in lists for the layers, nested in lists
        for the paths and the networks where there are several. None if it was not asked for.
    """

    total: Tensor
    per_layer: Tensor
    positions: Any = None


def transitions(
    model: MLP | MLPStack | Callable[[Tensor], Tensor],
    path: Path | Sequence[Path],
    *,
    method: str = "exact",
    samples: int = 2**20,
    positions: bool = False,
) -> TransitionCount:
    """
    Count the transitions of a model's hidden units along a path, or along each of several paths (paper, S3).

    Parameters
    ----------
    model
        An `MLP` or an `MLPStack`; with `sampled` also any module or callable that maps points `[n, ...]` to outputs, whose
        activations `ModuleCodes` knows.
    path
        One path, or a list of them, of the model's inputs.
    method
        `exact`: every crossing of a boundary, for piecewise-linear activations; on polylines in float32 wherever that gives the
        count of float64, else in float64. `sampled`: at `samples` points of each path, evenly spaced by its parameter.
    samples
        Points of a path for `sampled`; the paper's 2^20 by default.
    positions
        Whether to return where the transitions are; exact ones are then found in float64.

    Raises
    ------
    InvalidInputError
        An argument is not as above: Tanh has no linear pieces whose crossings could be counted exactly.
    """
    paths = as_paths(path)
    if method not in METHODS:
        raise InvalidInputError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 2:
        raise InvalidInputError(f"samples must be a whole number of at least 2; got {samples!r}")
    if not isinstance(model, MLP | MLPStack):
        if method == "exact":
            raise InvalidInputError("exact transitions are those of an MLP or an MLPStack; for other models use method='sampled'")
        return _shaped([_sampled_model(model, paths, samples, positions)], False, not isinstance(path, Path))
    stack = as_stack(model)
    check_paths(stack, paths)
    if method == "exact":
        exact = _exact(stack, paths, positions)
    else:
        exact = [_sampled_network(stack[place], paths, samples, positions) for place in range(len(stack))]
    return _shaped(exact, isinstance(model, MLPStack), not isinstance(path, Path))


# Of each path: int64 `[layers]`, and the positions by layer.
_Counts = list[tuple[Tensor, list[Tensor] | None]]


def _shaped(counts: list[_Counts], several_networks: bool, several_paths: bool) -> TransitionCount:
    """Lay the counts of each network and path out as `TransitionCount` says."""
    per_layer = torch.stack([torch.stack([layers for layers, _ in network]) for network in counts])
    where: Any = [[positions for _, positions in network] for network in counts]
    if not several_paths:
        per_layer, where = per_layer[:, 0], [network[0] for network in where]
    if not several_networks:
        per_layer, where = per_layer[0], where[0]
    return TransitionCount(per_layer.sum(-1), per_layer, where if counts[0][0][1] is not None else None)


def check_paths(stack: MLPStack, paths: Sequence[Path]) -> None:
    """Raise InvalidInputError unless all paths are of the networks' inputs, and the weights are numbers."""
    if not all_finite(stack.weights).all():
        raise InvalidInputError("the network's weights must be finite; some are not")
    D = stack.weights[0].shape[2]
    for path in paths:
        if path.basis.shape[1:] != (D,):
            raise InvalidInputError(f"path must be one of points [{D}], the network's inputs; got {list(path.basis.shape[1:])}")


def exact_crossings(stack: MLPStack, paths: Sequence[Path], *, keep: bool) -> Crossings:
    """
    Return all crossings of networks along paths, the traces numbered by network, then path.

    With `keep` they are kept one by one, and found in float64.

    Raises
    ------
    InvalidInputError
        The activation is not piecewise linear.
    """
    if stack.activation == "tanh":
        raise InvalidInputError("exact transitions need a piecewise-linear activation; tanh has no pieces: use method='sampled'")
    chosen = activation(stack.activation)
    hidden = stack.weights[:-1]
    counts = torch.zeros(len(stack) * len(paths), len(hidden), dtype=torch.int64, device=stack.weights[0].device)
    groups: dict[tuple[bool, bool], list[int]] = {}
    for place, path in enumerate(paths if hidden else []):
        single = not keep and hidden[0].dtype != torch.float64 and isinstance(path, Polyline) and not _near_0(path, chosen)
        groups.setdefault((isinstance(path, Ellipse), single), []).append(place)
    found = []
    for (_, single), places in groups.items():
        some, which = [paths[place] for place in places], counts.new_tensor(places)
        every = torch.arange(len(stack) * len(some), device=counts.device)
        for traces, one in _single(hidden, chosen, some) if single else [(every, _double(hidden, chosen, some, keep=keep))]:
            trace = traces // len(which) * len(paths) + which[traces % len(which)]
            counts[trace] = one.counts
            found.append((trace[one.trace], one.layer, one.unit, one.boundary, one.t))
    empty = counts.new_zeros(0)
    columns = [torch.cat(column) for column in zip(*found, strict=True)] if found else [empty] * 4 + [empty.double()]
    return Crossings(counts, *columns)


def _near_0(path: Polyline, chosen: Activation) -> bool:
    """
    Return whether a path comes so near 0 that, in float32, a network without biases has all its boundaries in one place there.

    The distance of a segment from 0 is twice the area of the triangle, over the segment's length.
    """
    if 0.0 not in chosen.boundaries:
        return False
    points = vertices(path).double()
    square, product = (points * points).sum(1), (points[1:] * points[:-1]).sum(1)
    one, other = square[1:], square[:-1]
    area, allowed = one * other - product**2, NEAR_0**2 * one.maximum(other)
    return bool(((one.minimum(other) <= allowed) | ((product < 0) & (area <= allowed * (one + other - 2 * product)))).any())


def _single(hidden: Sequence[Tensor], chosen: Activation, paths: Sequence[Any]) -> list[tuple[Tensor, Crossings]]:
    """Walk float32 networks with these hidden layers along polylines; return the traces, and what was found along them."""
    every = torch.arange(len(hidden[0]) * len(paths), device=hidden[0].device)
    points = [vertices(path).to(hidden[0].device) for path in paths]
    double = [weight.double() for weight in hidden]
    tolerances = rounding.measure(hidden, double, chosen, rounding.some_points(points))
    single = tolerances.single.nonzero().view(-1)
    again = (~tolerances.single).repeat_interleave(len(paths))
    walks = []
    if len(single):
        all_ = len(single) == len(hidden[0])
        rough, precise = (weights if all_ else [weight[single] for weight in weights] for weights in (hidden, double))
        decides = rounding.Rounding(precise, chosen, tolerances[single], points)
        walk = Walk(rough, chosen, Segments(paths, decides, hidden[0].device), len(paths), keep=False)
        found = walk.run()
        decides.settle(walk)
        traces = every.view(-1, len(paths))[single].flatten()
        again[traces] = decides.doubtful(walk)
        walks.append((traces, found))
    # What follows replaces what float32 has found.
    for network in torch.unique(every[again] // len(paths)).tolist():
        which = again.view(-1, len(paths))[network].nonzero().view(-1)
        one = [weight[network : network + 1] for weight in double]
        walks.append((network * len(paths) + which, _double(one, chosen, [paths[place] for place in which.tolist()], keep=False)))
    return walks


def _double(hidden: Sequence[Tensor], chosen: Activation, paths: Sequence[Any], *, keep: bool) -> Crossings:
    """Walk networks in float64 along paths, all of one kind."""
    geometry: Geometry = Arcs(paths) if isinstance(paths[0], Ellipse) else Segments(paths, None, hidden[0].device)
    return Walk([weight.double() for weight in hidden], chosen, geometry, len(paths), keep=keep).run()


@torch.no_grad()
def _exact(stack: MLPStack, paths: Sequence[Path], keep: bool) -> list[_Counts]:
    found = exact_crossings(stack, paths, keep=keep)
    layers = len(stack.weights) - 1
    where: list[list[Tensor] | None] = [None] * len(found.counts)
    if keep:
        order = torch.argsort(found.t)
        order = order[torch.argsort((found.trace * max(1, layers) + found.layer)[order], stable=True)]
        each = torch.split(found.t[order], found.counts.flatten().tolist())
        where = [list(each[trace * layers : (trace + 1) * layers]) for trace in range(len(found.counts))]
    traces = list(zip(found.counts, where, strict=True))
    return [list(traces[start : start + len(paths)]) for start in range(0, len(traces), len(paths))]


@torch.no_grad()
def _sampled_network(network: MLP, paths: Sequence[Path], samples: int, keep: bool) -> _Counts:
    if len(network.weights) == 1:
        empty = torch.zeros(0, dtype=torch.int64)
        return [(empty, [] if keep else None) for _ in paths]
    counts = []
    for path in paths:
        codes, size = network_codes(network, activation(network.activation), path)
        found = count_sampled(codes, path, samples, size, keep=keep)
        counts.append((found.per_layer, found.positions))
    return counts


@torch.no_grad()
def _sampled_model(model: Callable[[Tensor], Tensor], paths: Sequence[Path], samples: int, keep: bool) -> _Counts:
    if not callable(model):
        raise InvalidInputError(f"model must be an MLP, an MLPStack, a module or another callable; got {type(model).__name__}")
    some = paths[0].points(paths[0].parameters(2))
    codes = ModuleCodes(model, some)
    units = sum(layer.shape[1] for layer in codes(some))
    counts = []
    for path in paths:
        size = max(1, MODULE_CHUNK // max(units, path.basis[0].numel()))
        found = count_sampled(partial(_points_codes, codes, path), path, samples, size, keep=keep)
        counts.append((found.per_layer, found.positions))
    return counts


def _points_codes(codes: ModuleCodes, path: Path, t: Tensor) -> list[Tensor]:
    return codes(path.points(t))
