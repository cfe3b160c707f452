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
from ...models.adapting import as_model_takes, check_mode, shape_taken, unwrapped
from ...networks import MLP, MLPStack, as_stack
from ...paths import Ellipse, Path, Polyline, as_paths, reshaped
from ..module_codes import ModuleCodes
from ..sampled import Codes, Sampled, count_sampled, network_codes
from .arcs import Arcs
from .graph import Graph, layer_names, stack_graph
from .modules.exporting import module_graph
from .segments import Segments
from .walk import Crossings, Walk

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
        The modules that call the activations, such as `layer1.0.relu`, or `layer1.0:relu` for a function that the code of the
        module `layer1.0` calls; the operations, such as `relu`, if sampled; `layer 1`, `layer 2`, ... for an `MLP`.
    positions
        The path's parameter at each transition, sorted, float64 `[n]`: in lists for the activations, nested in lists for the
        paths and the networks where there are several. None if it was not asked for.
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
    model: Model,
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
        One path, or a list of them, of points `[D]` or `[channels, height, width]`. Images are flattened, and flat points made
        square images of one or three colours, for a model that takes these alone.
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
    >>> from sensitometer import paths, transitions
    >>> line = paths.Polyline(torch.tensor([[-2.0], [2.0]]), closed=False)
    >>> transitions(torch.nn.Hardtanh(), line)
    TransitionCount(2 transitions of 1 activation)
    """
    paths, model = as_paths(path), unwrapped(model)
    if method not in METHODS:
        raise InvalidInputError(f"method must be one of {', '.join(METHODS)}; got {method!r}")
    samples = check_whole_number("samples", samples, least=2)
    measure = _exact if method == "exact" else partial(_sampled, samples=samples)
    per_layer, where, names = measure(model, paths, keep=positions)
    if isinstance(path, Path):
        per_layer, where = per_layer[:, 0], [network[0] for network in where]
    if not isinstance(model, MLPStack):
        per_layer, where = per_layer[0], where[0]
    return TransitionCount(per_layer.sum(-1), per_layer, names, where if positions else None)


def checked_paths(stack: MLPStack, paths: Sequence[Path]) -> list[Path]:
    """Return paths of the networks' inputs, images flattened; InvalidInputError if they do not fit or weights are not finite."""
    if not all_finite(stack.weights).all():
        raise InvalidInputError("the network's weights must be finite; some are not")
    D = stack.weights[0].shape[2]
    for path in paths:
        if path.basis[0].numel() != D:
            raise InvalidInputError(f"path must be one of points [{D}], the network's inputs; got {list(path.basis.shape[1:])}")
    return [reshaped(path, (D,)) for path in paths]


def path_graph(model: Model, paths: Sequence[Path]) -> tuple[Graph, list[Path]]:
    """Return a model as a graph, and paths of its points; InvalidInputError if it is not piecewise linear or takes others."""
    if isinstance(model, MLP | MLPStack):
        stack = as_stack(model)
        if stack.activation == "tanh":
            raise InvalidInputError(
                "exact transitions need a piecewise-linear activation; tanh has no pieces: use method='sampled'"
            )
        return stack_graph(stack), checked_paths(stack, paths)
    paths = paths_taken(model, paths)
    return module_graph(model, paths[0].points(paths[0].parameters(4))), paths


def paths_taken(model: Callable[..., Any], paths: Sequence[Path]) -> list[Path]:
    """Return paths of points of the shape that a model takes (`shape_taken`); InvalidInputError if their shapes differ."""
    check_mode(model)
    shapes = {tuple(path.basis.shape[1:]) for path in paths}
    if len(shapes) > 1:
        got = ", ".join(str(list(shape)) for shape in sorted(shapes))
        raise InvalidInputError(f"paths must be of points of one shape; got {got}")
    shape = shape_taken(model, as_model_takes(model, paths[0].points(paths[0].parameters(2))))
    return [reshaped(path, shape) for path in paths]


def exact_crossings(graph: Graph, paths: Sequence[Path], *, keep: bool) -> tuple[Array, Crossings]:
    """Return the counts of changes of pieces along paths, int64 `[S, P, stages]`, and with `keep` the changes one by one."""
    counts = np.zeros((graph.networks, len(paths), len(graph.stages)), np.int64)
    none = np.zeros(0, np.int64)
    kept = [Crossings(none, none, none, none, none, np.zeros(0))]
    for kind, geometry in ((Polyline, Segments), (Ellipse, Arcs)) if graph.stages else ():
        places = np.array([place for place, path in enumerate(paths) if isinstance(path, kind)], np.int64)
        if len(places):
            walk = Walk(graph, geometry([paths[place] for place in places]), keep=keep)
            walk.run()
            counts[:, places] = walk.counts.reshape(graph.networks, len(places), -1)
            kept += [crossings._replace(path=places[crossings.path]) for crossings in walk.kept]
    return counts, Crossings(*(np.concatenate(columns) for columns in zip(*kept, strict=True)))


# The counts, int64 `[S, P, activations]`; for each network and path the positions by activation; the activations' names.
_Counts = tuple[Tensor, list[list[Any]], tuple[str, ...]]

# Returns the codes along a path, and how many points to ask for at a time.
_CodesAlong = Callable[[Path], tuple[Codes, int]]


def _exact(model: Model, paths: Sequence[Path], *, keep: bool) -> _Counts:
    graph, paths = path_graph(model, paths)
    counts, crossings = exact_crossings(graph, paths, keep=keep)
    positions: list[list[Any]] = [[None] * len(paths)] * graph.networks
    if keep:
        t = crossings.t[np.lexsort((crossings.t, crossings.stage, crossings.path, crossings.network))]
        layers = iter(torch.split(torch.from_numpy(t), counts.ravel().tolist()))
        positions = [[[next(layers) for _ in graph.stages] for _ in paths] for _ in range(graph.networks)]
    return torch.from_numpy(counts), positions, graph.names


@torch.no_grad()
def _sampled(model: Model, paths: Sequence[Path], *, samples: int, keep: bool) -> _Counts:
    if isinstance(model, MLP | MLPStack):
        stack = as_stack(model)
        paths, names = checked_paths(stack, paths), layer_names(stack)
        codes_along: list[_CodesAlong] = [partial(network_codes, stack[place]) for place in range(len(stack))]
    else:
        paths = paths_taken(model, paths)
        codes_of_model, names = _model_codes(model, paths[0])
        codes_along = [codes_of_model]
    none = Sampled(torch.zeros(0, dtype=torch.int64), [])
    sampled = [
        [count_sampled(*along(path), path, samples, keep=keep) if names else none for path in paths] for along in codes_along
    ]
    per_layer = torch.stack([torch.stack([counts.per_layer for counts in network]) for network in sampled])
    return per_layer, [[counts.positions for counts in network] for network in sampled], names


def _model_codes(model: Callable[[Tensor], Tensor], path: Path) -> tuple[_CodesAlong, tuple[str, ...]]:
    """Return how to get a model's codes along a path, with the number of points to ask for at a time; and the codes' names."""
    points = as_model_takes(model, path.points(path.parameters(2)))
    codes = ModuleCodes(model, points)
    units = sum(layer.shape[1] for layer in codes(points))

    def along(path: Path) -> tuple[Codes, int]:
        size = max(1, MODULE_CHUNK // max(units, path.basis[0].numel()))
        return lambda t: codes(as_model_takes(model, path.points(t))), size

    return along, tuple(codes.names)
