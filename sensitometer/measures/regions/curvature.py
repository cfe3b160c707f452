r"""
How much the Jacobian changes along a path (paper, S3): $C = \frac12 \sum_i \|f'(z_i) - f'(z_{i+1})\|_F$, exactly.

A piecewise-linear network's logits have a constant Jacobian between transitions. Where unit j of layer l crosses a boundary its
slope changes by $\Delta$, and the Jacobian by the matrix of rank one
$\Delta \; (W_L D_{L-1} \cdots W_{l+1})_{\cdot j} \; (W_l D_{l-1} \cdots W_1)_{j \cdot}$, whose norm is that of the column times
that of the row. Transitions that coincide, as where all units of a narrow bias-free layer go off together, change it by the
difference of the Jacobians in the middles of the neighbouring pieces, which is how other models are measured throughout. As the
number of samples grows, the paper's sum tends to that over all transitions.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...activations import Activation, activation
from ...networks import MLP, MLPStack, as_stack
from ...paths import Path, as_paths
from .graph import Graph
from .transitions import exact_crossings, path_graph
from .walk import Crossings

Array = Any

# Transitions that are evaluated together.
AT_ONCE = 2**12
# Numbers of whole Jacobians that are taken together.
FEW = 2**22
# Transitions that are nearer than this share of the path coincide.
NEAR = 1e-9


def curvature(model: MLP | MLPStack | Callable[[Tensor], Tensor], path: Path | Sequence[Path]) -> Tensor:
    r"""
    Return half the sum of the Frobenius norms of the changes of the outputs' Jacobian along a path (paper, S3).

    Parameters
    ----------
    model
        A piecewise-linear model: an `MLP`, an `MLPStack`, or any module that `transitions` counts exactly.
    path
        One path, or a list of them, of the model's inputs.

    Returns
    -------
    Tensor
        float64 `[S, P]`, without the dimensions of a single network or path.

    Raises
    ------
    InvalidInputError
        An argument is not as above.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from sensitometer.measures import curvature
    >>> from sensitometer.paths import Polyline
    >>> line = Polyline(torch.tensor([[-1.0], [1.0]]), closed=False)
    >>> relu = nn.ReLU()
    >>> curvature(relu, line)
    tensor(0.5000, dtype=torch.float64)
    """
    graph, paths = path_graph(model, as_paths(path))
    found = exact_crossings(graph, paths, keep=True)
    changes = torch.zeros(graph.networks, len(paths), dtype=torch.float64)
    for pair in np.unique(found.pair):
        network, place = divmod(int(pair), len(paths))
        mine = np.flatnonzero(found.pair == pair)
        mine = mine[np.argsort(found.t[mine], kind="stable")]
        if isinstance(model, MLP | MLPStack):
            changes[network, place] = _of_network(as_stack(model)[network], paths[place], found, mine)
        else:
            changes[network, place] = _of_graph(graph, paths[place], torch.from_numpy(found.t[mine]))
    shaped = changes / 2
    shaped = shaped if not isinstance(path, Path) else shaped[:, 0]
    return shaped if isinstance(model, MLPStack) else shaped[0]


def _of_graph(graph: Graph, path: Path, t: Tensor) -> float:
    """Return the sum of the changes of a model's Jacobian at the transitions at `t` `[n]`, sorted."""
    _, before, after = _places(t, path)
    total = 0.0
    for J, K in zip(_module_jacobians(graph, path, before), _module_jacobians(graph, path, after), strict=True):
        total += float(torch.linalg.vector_norm(J - K, dim=(1, 2)).sum())
    return total


def _module_jacobians(graph: Graph, path: Path, t: Tensor) -> Iterator[Tensor]:
    """Yield the Jacobians `[n, C, D]` of a model's outputs at the parameters `t`, some at a time; float64."""
    if not len(t):
        return
    basis = path.basis.detach().cpu().double()
    classes = graph.outputs(path.combine(basis, t[:1])).numel()
    for part in torch.split(t, max(1, FEW // (classes * basis[0].numel()))):
        with torch.enable_grad():
            x = path.combine(basis, part).requires_grad_()
            outputs = graph.outputs(x).reshape(len(part), -1).sum(0)
            rows = [torch.autograd.grad(output, x, retain_graph=True)[0].flatten(1) for output in outputs]
        yield torch.stack(rows, 1)


@torch.no_grad()
def _of_network(network: MLP, path: Path, found: Crossings, mine: Array) -> float:
    """Return the sum of the changes of a network's Jacobian at the transitions `mine`, sorted along the path."""
    weights, chosen = [weight.detach().cpu().double() for weight in network.weights], activation(network.activation)
    places, before, after = _places(torch.from_numpy(found.t[mine]), path)
    single = torch.tensor([place.stop - place.start == 1 for place in places], dtype=torch.bool)
    alone = mine[[place.start for place in places if place.stop - place.start == 1]]
    total = 0.0
    for part in np.split(alone, range(AT_ONCE, len(alone), AT_ONCE)):
        total += float(_changes(weights, chosen, path, found, part).sum())
    size = max(1, FEW // (weights[-1].shape[0] * weights[0].shape[1]))
    for one, other in zip(torch.split(before[~single], size), torch.split(after[~single], size), strict=True):
        J, K = (_jacobians(weights, chosen, path, t) for t in (one, other))
        total += float(torch.linalg.vector_norm(J - K, dim=(1, 2)).sum())
    return total


def _places(t: Tensor, path: Path) -> tuple[list[slice], Tensor, Tensor]:
    """
    Put transitions that coincide together.

    At the ends of an open path the Jacobian does not change. The end of a closed one is its beginning.

    Returns
    -------
    tuple
        For each place, which of the sorted parameters `t` `[n]` are there, counted on beyond n where a place is around the
        beginning of a loop; and the middles of the pieces before and after it, float64 `[places]`.
    """
    gap, span, n = NEAR * path.span, path.span, len(t)
    if path.closed:
        first = torch.cat([t[:1] - (t[-1:] - span), t.diff()]) > gap
        firsts = first.nonzero().view(-1)
    else:
        inner = ((t > gap) & (t < span - gap)).nonzero().view(-1)
        firsts = inner[torch.cat([inner.new_ones(1), (t[inner].diff() > gap).long()])[: len(inner)].bool()]
    if not len(firsts):
        # None, or a loop that is one place.
        return [], t.new_zeros(0), t.new_zeros(0)
    stops = torch.cat([firsts[1:], firsts[:1] + n if path.closed else inner[-1:] + 1])
    twice = torch.cat([t, t + span])
    begins, ends = twice[firsts], twice[stops - 1]
    if path.closed:
        before, after = torch.cat([ends[-1:] - span, ends[:-1]]), torch.cat([begins[1:], begins[:1] + span])
    else:
        before, after = torch.cat([t.new_zeros(1), ends[:-1]]), torch.cat([begins[1:], t.new_full((1,), span)])
    places = [slice(start, stop) for start, stop in zip(firsts.tolist(), stops.tolist(), strict=True)]
    return places, torch.remainder((before + begins) / 2, span), torch.remainder((ends + after) / 2, span)


def _jacobians(weights: Sequence[Tensor], chosen: Activation, path: Path, t: Tensor) -> Tensor:
    """Return the Jacobians of the logits along a path, times an F for which F F^T = W_1 W_1^T; float64 `[n, C, R]`."""
    z = path.combine(path.basis.detach().cpu().double() @ weights[0].T, t)
    block: Tensor = torch.linalg.qr(weights[0].T, mode="r").R.T.expand(len(t), -1, -1)
    for weight in weights[1:]:
        h = chosen.apply_(z)
        block = torch.matmul(weight, chosen.slope(h).unsqueeze(2) * block)
        z = h @ weight.T
    return block


def _changes(weights: Sequence[Tensor], chosen: Activation, path: Path, found: Crossings, part: Array) -> Tensor:
    """Return the Frobenius norm of the change of the Jacobian at some transitions of a network along a path, float64 `[n]`."""
    basis = path.basis.detach().cpu().double() @ weights[0].T
    layer, unit, t = (torch.from_numpy(column[part]) for column in (found.stage, found.unit, found.t))
    slopes, z = [], path.combine(basis, t)
    for weight in weights[1:]:
        h = chosen.apply_(z)
        slopes.append(chosen.slope(h))
        z = h @ weight.T
    rows = torch.empty_like(t)
    columns = torch.empty_like(rows)
    # The norm of a row of W_l D ... W_1 is that of its product with any F for which F F^T = W_1 W_1^T.
    first = torch.linalg.qr(weights[0].T, mode="r").R.T
    for place in torch.unique(layer).tolist():
        here = (layer == place).nonzero().view(-1)
        rows[here] = _row_norms(weights, slopes, first, place, here, unit[here])
        columns[here] = _column_norms(weights, slopes, place, here, unit[here])
    return _steps(chosen)[torch.from_numpy(found.boundary[part])] * rows * columns


def _row_norms(
    weights: Sequence[Tensor], slopes: Sequence[Tensor], first: Tensor, layer: int, here: Tensor, unit: Tensor
) -> Tensor:
    """Return the norms of the units' rows of W_l D ... W_1, `[n]`."""
    if layer == 0:
        return _norms(first[unit])
    row = weights[layer][unit]
    for below in range(layer - 1, 0, -1):
        row = (row * slopes[below][here]) @ weights[below]
    return _norms((row * slopes[0][here]) @ first)


def _column_norms(weights: Sequence[Tensor], slopes: Sequence[Tensor], layer: int, here: Tensor, unit: Tensor) -> Tensor:
    """Return the norms of the units' columns of W_L D ... W_{l+1}, `[n]`."""
    column = weights[layer + 1].T[unit]
    for above in range(layer + 1, len(weights) - 1):
        column = (column * slopes[above][here]) @ weights[above + 1].T
    return _norms(column)


def _steps(chosen: Activation) -> Tensor:
    """Return by how much the slope changes at each boundary of an activation, in size; float64."""
    edges = torch.tensor(chosen.boundaries, dtype=torch.float64)
    below, above = (chosen.slope(chosen.apply_(edges + side)) for side in (-0.25, 0.25))
    return (above - below).abs()


def _norms(rows: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms
