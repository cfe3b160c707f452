r"""
How much the Jacobian changes along a path (paper, S3): $C = \frac12 \sum_i \|f'(z_i) - f'(z_{i+1})\|_F$, exactly.

A piecewise-linear network's logits have a constant Jacobian between transitions. Where unit j of layer l crosses a boundary its
slope changes by $\Delta$, and the Jacobian by the matrix of rank one
$\Delta \; (W_L D_{L-1} \cdots W_{l+1})_{\cdot j} \; (W_l D_{l-1} \cdots W_1)_{j \cdot}$, whose norm is that of the column times
that of the row. As the number of samples grows, the paper's sum tends to that over all transitions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..activations import Activation, activation
from ..errors import InvalidInputError
from ..networks import MLP, MLPStack
from ..paths import Path, as_paths
from .crossings import Crossings
from .transitions import as_stack, check_paths, exact_crossings

# Transitions that are evaluated together.
AT_ONCE = 2**12


@torch.no_grad()
def curvature(model: MLP | MLPStack, path: Path | Sequence[Path]) -> Tensor:
    r"""
    Return half the sum of the Frobenius norms of the changes of the logits' Jacobian along a path (paper, S3).

    Transitions that coincide count one by one, though the paper's sum would take the norm of their sum.

    Parameters
    ----------
    model
        An `MLP` or `MLPStack` with a piecewise-linear activation.
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
    """
    if not isinstance(model, MLP | MLPStack):
        raise InvalidInputError(f"model must be an MLP or an MLPStack; got {type(model).__name__}")
    paths, stack = as_paths(path), as_stack(model)
    check_paths(stack, paths)
    found = exact_crossings(stack, paths, keep=True)
    changes = torch.zeros(len(stack) * len(paths), dtype=torch.float64, device=stack.weights[0].device)
    chosen = activation(stack.activation)
    for trace in torch.unique(found.trace).tolist():
        network, place = divmod(trace, len(paths))
        weights = [weight.double() for weight in stack[network].weights]
        for part in torch.split((found.trace == trace).nonzero().view(-1), AT_ONCE):
            changes[trace] += _changes(weights, chosen, paths[place], found, part).sum()
    shaped = changes.view(len(stack), len(paths)) / 2
    shaped = shaped if not isinstance(path, Path) else shaped[:, 0]
    return shaped if isinstance(model, MLPStack) else shaped[0]


def _changes(weights: Sequence[Tensor], chosen: Activation, path: Path, found: Crossings, part: Tensor) -> Tensor:
    """Return the Frobenius norm of the change of the Jacobian at some transitions of a network along a path, float64 `[n]`."""
    basis = path.basis.double() @ weights[0].T
    layer, unit = found.layer[part], found.unit[part]
    slopes, z = [], path.combine(basis, found.t[part])
    for weight in weights[1:]:
        h = chosen.apply_(z)
        slopes.append(chosen.slope(h))
        z = h @ weight.T
    rows = torch.empty_like(found.t[part])
    columns = torch.empty_like(rows)
    # The norm of a row of W_l D ... W_1 is that of its product with any F for which F F^T = W_1 W_1^T.
    first = torch.linalg.qr(weights[0].T, mode="r").R.T
    for place in torch.unique(layer).tolist():
        here = (layer == place).nonzero().view(-1)
        rows[here] = _row_norms(weights, slopes, first, place, here, unit[here])
        columns[here] = _column_norms(weights, slopes, place, here, unit[here])
    return _steps(chosen).to(rows.device)[found.boundary[part]] * rows * columns


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
