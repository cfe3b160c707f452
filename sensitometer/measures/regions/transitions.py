r"""
Transitions: how many boundaries between linear regions a path crosses (paper, S3), exact or sampled as in the paper.

The code of a unit is the number of its activation's boundaries that lie strictly below its pre-activation; for a maximum of
several, as in max-pooling, it is the number of the winner. The transitions along a path are the changes of all codes; a jump over
two boundaries counts twice, a change of the winner once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import InvalidInputError, check_whole_number, counted, dimensions
from ...evaluation import all_finite
from ...networks import MLP, MLPStack, as_stack
from ...paths import Ellipse, Path, Polyline, as_paths, flattened
from ..module_codes import ModuleCodes
from ..sampled import count_sampled, network_codes
from .arcs import Arcs
from .graph import Graph, layer_names, stack_graph
from .modules.exporting import as_model_takes, module_graph
from .segments import Segments
from .walk import Crossings, Geometry, Walk

Array = Any
Model = MLP | MLPStack | Callable[[Tensor], Tensor]

METHODS = ("exact", "sampled")
# Numbers in a chunk of points, or of their units, for a model that is not of this package.
MODULE_CHUNK = 2**20


@dataclass(frozen=True)
class TransitionCount:
    """
    Transitions along paths. Dimensions of a single network or a single path are left out.

    Attributes
    ----------
    total
        int64 `[S, P]`: `[]`, `[S]` for a stack, `[P]` for a list of paths.
    per_layer
        int64 `[S, P, activations]`: by hidden layer, or by activation in the order in which the model calls them.
    names
        The names of the modules that call the activations, such as `layer1.0.relu`, or `layer1.0:relu` for a function that the
        code of the module `layer1.0` calls; `layer 1`, `layer 2`, ... for an `MLP`. A module that is sampled
        has the names of the operations, such as `relu`.
    positions
        float64 `[n]` for each activation: the path's parameter at each transition, sorted; in lists for the activations, nested
        in lists for the paths and the networks where there are several. None if it was not asked for.
    """

    total: Tensor
    per_layer: Tensor
    names: tuple[str, ...] = ()
    positions: Any = None

    def __repr__(self) -> str:
        pairs = f"{dimensions(self.total.shape)} counts, " if self.total.ndim else ""
        total, activations = counted(int(self.total.sum()), "transition"), counted(self.per_layer.shape[-1], "activation")
        return f"TransitionCount({pairs}{total} of {activations})"


def transitions(
    model: MLP | MLPStack | Callable[[Tensor], Tensor],
    path: Path | Sequence[Path],
    *,
    method: str = "exact",
    samples: int = 2**20,
    positions: bool = False,
) -> TransitionCount:
    """
    Count the transitions of a model's units along a path, or along each of several paths (paper, S3).

    Parameters
    ----------
    model
        An `MLP`, an `MLPStack`, or any module or callable that maps points `[n, ...]` to outputs, each from its own point alone.
    path
        One path, or a list of them, of points `[D]` or `[channels, height, width]`, as the model takes them.
    method
        `exact`: every transition of a piecewise-linear model, found in float64. A module is read as a graph by `torch.export`
        once, and remembered; its parameters are read each time. `sampled`: at `samples` points of each path, evenly spaced by its
        parameter, for any model whose activations `ModuleCodes` knows.
    samples
        Points of a path for `sampled`; the paper's 2^20 by default.
    positions
        Whether to return where the transitions are.

    Raises
    ------
    InvalidInputError
        An argument is not as above; `exact` names the operation that is not piecewise linear, and says where it is.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sensitometer import paths, transitions
    >>> line = paths.Polyline(torch.tensor([[-2.0], [2.0]]), closed=False)
    >>> transitions(nn.Hardtanh(), line)
    TransitionCount(2 transitions of 1 activation)
    """
    paths = as_paths(path)
    if method not in METHODS:
        raise InvalidInputError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    check_whole_number("samples", samples, least=2)
    several = isinstance(model, MLPStack), not isinstance(path, Path)
    if method == "exact":
        graph, paths = path_graph(model, paths)
        return _shaped(_exact(graph, paths, positions), graph.names, *several)
    if not isinstance(model, MLP | MLPStack):
        counts, names = _sampled_model(model, paths, samples, positions)
        return _shaped([counts], names, *several)
    stack = as_stack(model)
    paths = checked_paths(stack, paths)
    counted = [_sampled_network(stack[place], paths, samples, positions) for place in range(len(stack))]
    return _shaped(counted, layer_names(stack), *several)


# For each path: int64 `[layers]`, and the positions by layer.
_Counts = list[tuple[Tensor, list[Tensor] | None]]


def _shaped(counts: list[_Counts], names: tuple[str, ...], several_networks: bool, several_paths: bool) -> TransitionCount:
    """Lay the counts of each network and path out as `TransitionCount` says."""
    per_layer = torch.stack([torch.stack([layers for layers, _ in network]) for network in counts])
    where: Any = [[positions for _, positions in network] for network in counts]
    if not several_paths:
        per_layer, where = per_layer[:, 0], [network[0] for network in where]
    if not several_networks:
        per_layer, where = per_layer[0], where[0]
    return TransitionCount(per_layer.sum(-1), per_layer, names, where if counts[0][0][1] is not None else None)


def checked_paths(stack: MLPStack, paths: Sequence[Path]) -> list[Path]:
    """
    Return paths of the networks' inputs: flat ones as they are, and images flattened.

    Raises
    ------
    InvalidInputError
        The points have another number of dimensions, or weights are not finite.
    """
    if not all_finite(stack.weights).all():
        raise InvalidInputError("the network's weights must be finite; some are not")
    D = stack.weights[0].shape[2]
    for path in paths:
        if path.basis[0].numel() != D:
            raise InvalidInputError(f"path must be one of points [{D}], the network's inputs; got {list(path.basis.shape[1:])}")
    return [flattened(path) for path in paths]


def path_graph(model: Model, paths: Sequence[Path]) -> tuple[Graph, list[Path]]:
    """
    Return a model as a graph, and the paths as its points.

    Raises
    ------
    InvalidInputError
        The model is not piecewise linear, or does not take the points of the paths, or these differ in shape.
    """
    if isinstance(model, MLP | MLPStack):
        stack = as_stack(model)
        if stack.activation == "tanh":
            raise InvalidInputError(
                "exact transitions need a piecewise-linear activation; tanh has no pieces: use method='sampled'"
            )
        return stack_graph(stack), checked_paths(stack, paths)
    shapes = {tuple(path.basis.shape[1:]) for path in paths}
    if len(shapes) > 1:
        got = ", ".join(str(list(shape)) for shape in sorted(shapes))
        raise InvalidInputError(f"paths must be of points of one shape; got {got}")
    return module_graph(model, paths[0].points(paths[0].parameters(4))), list(paths)


def exact_crossings(graph: Graph, paths: Sequence[Path], *, keep: bool) -> Crossings:
    """Return all changes of pieces along paths, the pairs numbered by network, then path; one by one with `keep`."""
    counts = np.zeros((graph.networks * len(paths), len(graph.stages)), np.int64)
    empty = np.zeros(0, np.int64)
    columns: list[tuple[Array, ...]] = [(empty, empty, empty, empty, np.zeros(0))]
    for kind in (Polyline, Ellipse) if graph.stages else ():
        places = np.array([place for place, path in enumerate(paths) if isinstance(path, kind)], np.int64)
        if not len(places):
            continue
        some: list[Any] = [paths[place] for place in places]
        geometry: Geometry = Segments(some) if kind is Polyline else Arcs(some)
        found = Walk(graph, geometry, len(some), keep=keep).run()
        network, own = np.divmod(np.arange(len(found.counts)), len(some))
        counts[network * len(paths) + places[own]] = found.counts
        pair = found.pair // len(some) * len(paths) + places[found.pair % len(some)]
        columns.append((pair, found.stage, found.unit, found.boundary, found.t))
    return Crossings(counts, *(np.concatenate(column) for column in zip(*columns, strict=True)))


def _exact(graph: Graph, paths: Sequence[Path], keep: bool) -> list[_Counts]:
    found = exact_crossings(graph, paths, keep=keep)
    where: list[list[Tensor] | None] = [None] * len(found.counts)
    if keep:
        order = np.lexsort((found.t, found.stage, found.pair))
        each = torch.split(torch.from_numpy(found.t[order]), found.counts.ravel().tolist())
        stages = len(graph.stages)
        where = [list(each[pair * stages : (pair + 1) * stages]) for pair in range(len(found.counts))]
    pairs = list(zip(torch.from_numpy(found.counts), where, strict=True))
    return [list(pairs[start : start + len(paths)]) for start in range(0, len(pairs), len(paths))]


@torch.no_grad()
def _sampled_network(network: MLP, paths: Sequence[Path], samples: int, keep: bool) -> _Counts:
    if len(network.weights) == 1:
        empty = torch.zeros(0, dtype=torch.int64)
        return [(empty, [] if keep else None) for _ in paths]
    counts = []
    for path in paths:
        codes, size = network_codes(network, path)
        found = count_sampled(codes, path, samples, size, keep=keep)
        counts.append((found.per_layer, found.positions))
    return counts


@torch.no_grad()
def _sampled_model(
    model: Callable[[Tensor], Tensor], paths: Sequence[Path], samples: int, keep: bool
) -> tuple[_Counts, tuple[str, ...]]:
    if not callable(model):
        raise InvalidInputError(f"model must be an MLP, an MLPStack, a module or another callable; got {type(model).__name__}")
    some = as_model_takes(model, paths[0].points(paths[0].parameters(2)))
    codes = ModuleCodes(model, some)
    units = sum(layer.shape[1] for layer in codes(some))
    counts = []
    for path in paths:
        size = max(1, MODULE_CHUNK // max(units, path.basis[0].numel()))
        found = count_sampled(partial(_points_codes, model, codes, path), path, samples, size, keep=keep)
        counts.append((found.per_layer, found.positions))
    return counts, tuple(codes.names)


def _points_codes(model: Callable[[Tensor], Tensor], codes: ModuleCodes, path: Path, t: Tensor) -> list[Tensor]:
    return codes(as_model_takes(model, path.points(t)))
