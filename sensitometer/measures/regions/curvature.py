r"""
How much the Jacobian changes along a path (paper, S3): $C = \frac12 \sum_i \|f'(z_i) - f'(z_{i+1})\|_F$, exactly.

A piecewise-linear network's logits have a constant Jacobian between transitions. Where unit j of layer l crosses a boundary its
slope changes by $\Delta$, and the Jacobian by the matrix of rank one
$\Delta \; (W_L D_{L-1} \cdots W_{l+1})_{\cdot j} \; (W_l D_{l-1} \cdots W_1)_{j \cdot}$, whose norm is that of the column times
that of the row. Transitions that coincide, as where all units of a narrow bias-free layer go off together, change it by the
difference of the Jacobians in the middles of the neighbouring pieces, which is how other models are measured throughout. As the
number of samples grows, the paper's sum tends to that over all transitions.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...activations import activation
from ...models.adapting import unwrapped
from ...networks import MLP, MLPStack, as_stack
from ...paths import Path, as_paths
from .transitions import exact_crossings, path_graph
from .walk import Crossings

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
    >>> from sensitometer import paths
    >>> from sensitometer.measures import curvature
    >>> line = paths.Polyline(torch.tensor([[-1.0], [1.0]]), closed=False)
    >>> curvature(torch.nn.ReLU(), line)
    tensor(0.5000, dtype=torch.float64)
    """
    model = unwrapped(model)
    graph, paths = path_graph(model, as_paths(path))
    _, crossings = exact_crossings(graph, paths, keep=True)
    changes = torch.zeros(graph.networks, len(paths), dtype=torch.float64)
    for network, place in np.ndindex(*changes.shape):
        here = np.flatnonzero((crossings.network == network) & (crossings.path == place))
        here = here[np.argsort(crossings.t[here], kind="stable")]
        along_path = _part(crossings, here)
        places = _places(torch.from_numpy(along_path.t), paths[place])
        if isinstance(model, MLP | MLPStack):
            weights = [weight.detach().cpu().double() for weight in as_stack(model)[network].weights]
            exact, alone = MLP(weights, model.activation), places.sizes == 1
            single = _part(along_path, places.first[alone].numpy())
            for start in range(0, len(single.t), AT_ONCE):
                part = _part(single, slice(start, start + AT_ONCE))
                changes[network, place] += _rank_one_norms(exact, paths[place], part).sum()
            changes[network, place] += _whole_change(exact, paths[place], _part(places, ~alone))
        else:
            changes[network, place] = _whole_change(graph.outputs, paths[place], places)
    changes = changes[:, 0] if isinstance(path, Path) else changes
    return changes / 2 if isinstance(model, MLPStack) else changes[0] / 2


class _Places(NamedTuple):
    """Where crossings are along a path, those that coincide together."""

    first: Tensor  # int64 [n], the number of the first crossing of each place
    sizes: Tensor  # int64 [n], the numbers of crossings
    before: Tensor  # float64 [n], the middles of the pieces before each place
    after: Tensor  # and after it


Columns = TypeVar("Columns", Crossings, _Places)


def _part(columns: Columns, chosen: Any) -> Columns:
    """Return some of the crossings or places."""
    return type(columns)(*(column[chosen] for column in columns))


def _places(t: Tensor, path: Path) -> _Places:
    """
    Return the places of crossings at the sorted parameters `t`.

    At the ends of an open path the Jacobian does not change. The end of a closed one is its beginning: a place may lie around it.
    """
    gap, span = NEAR * path.span, path.span
    if path.closed:
        # Begin behind a gap. Where there is none the whole loop is one place, and the Jacobian the same everywhere.
        apart = torch.cat([t[:1] - t[-1:] + span, t.diff()]) > gap
        start = int(apart.int().argmax()) if apart.any() else len(t)
        order = torch.arange(len(t)).roll(-start)[: len(t) if apart.any() else 0]
        t = torch.where(order < start, t[order] + span, t[order])
    else:
        order = ((t > gap) & (t < span - gap)).nonzero().view(-1)
        t = t[order]
    first = (t.diff(prepend=t.new_full((1,), -math.inf)) > gap).nonzero().view(-1)
    size = first.diff(append=first.new_full((1,), len(t)))
    begins, ends = t[first], t[first + size - 1]
    before = torch.cat([ends[-1:] - span if path.closed else t.new_zeros(1), ends[:-1]])[: len(first)]
    after = torch.cat([begins[1:], begins[:1] + span if path.closed else t.new_full((1,), span)])[: len(first)]
    return _Places(order[first], size, torch.remainder((before + begins) / 2, span), torch.remainder((ends + after) / 2, span))


def _whole_change(outputs: Callable[[Tensor], Tensor], path: Path, places: _Places) -> float:
    """Return the sum of the changes of the Jacobian of a model's outputs at places on a path, from whole Jacobians."""
    basis, total = path.basis.detach().cpu().double(), 0.0
    if not len(places.first):
        return total
    classes = outputs(path.combine(basis, places.before[:1])).numel()
    size = max(1, FEW // (2 * classes * basis[0].numel()))
    for before, after in zip(torch.split(places.before, size), torch.split(places.after, size), strict=True):
        with torch.enable_grad():
            x = path.combine(basis, torch.cat([before, after])).requires_grad_()
            sums = outputs(x).reshape(len(x), -1).sum(0)
            rows = [torch.autograd.grad(output, x, retain_graph=True)[0].flatten(1) for output in sums]
        J = torch.stack(rows, 1)
        total += float(_norms(J[: len(before)] - J[len(before) :]).sum())
    return total


@torch.no_grad()
def _rank_one_norms(network: MLP, path: Path, crossings: Crossings) -> Tensor:
    """Return the norm of each unit's column of W_L D ... W_{l+1} times that of its row of W_l D ... W_1, in float64; `[n]`."""
    chosen, weights = activation(network.activation), network.weights
    slopes, z = [], path.combine(path.basis.detach().cpu().double() @ weights[0].T, torch.from_numpy(crossings.t))
    for weight in weights[1:]:
        h = chosen.apply_(z)
        slopes.append(chosen.slope(h))
        z = h @ weight.T
    # The norm of a row of W_l D ... W_1 is that of its product with any F for which F F^T = W_1 W_1^T.
    factors = [torch.linalg.qr(weights[0].T, mode="r").R.T, *weights[1:]]
    layers, units = torch.from_numpy(crossings.stage), torch.from_numpy(crossings.unit)
    norms = torch.empty(len(layers), dtype=torch.float64)
    for layer in torch.unique(layers).tolist():
        here = (layers == layer).nonzero().view(-1)
        row, column = factors[layer][units[here]], factors[layer + 1].T[units[here]]
        for below in range(layer - 1, -1, -1):
            row = (row * slopes[below][here]) @ factors[below]
        for above in range(layer + 1, len(slopes)):
            column = (column * slopes[above][here]) @ factors[above + 1].T
        norms[here] = _norms(row) * _norms(column)
    return norms


def _norms(values: Tensor) -> Tensor:
    """Return the norms of `values` `[n, ...]`, `[n]`."""
    return torch.linalg.vector_norm(values.flatten(1), dim=1)  # type: ignore[no-any-return]
