r"""
How much the Jacobian changes along a path (paper, S3): $C = \frac12 \sum_i \|f'(z_i) - f'(z_{i+1})\|_F$, exactly.

A piecewise-linear network's logits have a constant Jacobian between transitions. Where unit j of layer l crosses a boundary its
slope changes by $\Delta$, and the Jacobian by the matrix of rank one
$\Delta \; (W_L D_{L-1} \cdots W_{l+1})_{\cdot j} \; (W_l D_{l-1} \cdots W_1)_{j \cdot}$, whose norm is that of the column times
that of the row. Transitions that coincide, as where all units of a narrow bias-free layer go off together, change it by the
difference of the Jacobians in the middles of the neighbouring pieces. As the number of samples grows, the paper's sum tends to
that over all transitions.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...activations import Activation, activation
from ...errors import InvalidInputError
from ...networks import MLP, MLPStack, as_stack
from ...paths import Path, as_paths
from .crossings import Crossings
from .transitions import check_paths, exact_crossings

# Transitions that are evaluated together.
AT_ONCE = 2**12
# Whole Jacobians that are taken together.
FEW = 2**8
# Transitions that are nearer than this share of the path coincide.
NEAR = 1e-9


@torch.no_grad()
def curvature(model: MLP | MLPStack, path: Path | Sequence[Path]) -> Tensor:
    r"""
    Return half the sum of the Frobenius norms of the changes of the logits' Jacobian along a path (paper, S3).

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
        mine = (found.trace == trace).nonzero().view(-1)
        mine = mine[torch.argsort(found.t[mine])]
        alone, before, after = _apart(found.t[mine], paths[place])
        for part in torch.split(mine[alone], AT_ONCE):
            changes[trace] += _changes(weights, chosen, paths[place], found, part).sum()
        for one, other in zip(torch.split(before, FEW), torch.split(after, FEW), strict=True):
            J, K = (_jacobians(weights, chosen, paths[place], t) for t in (one, other))
            changes[trace] += torch.linalg.vector_norm(J - K, dim=(1, 2)).sum()
    shaped = changes.view(len(stack), len(paths)) / 2
    shaped = shaped if not isinstance(path, Path) else shaped[:, 0]
    return shaped if isinstance(model, MLPStack) else shaped[0]


def _apart(t: Tensor, path: Path) -> tuple[Tensor, Tensor, Tensor]:
    """
    Tell transitions that are alone from groups that coincide.

    Returns which of the sorted parameters `t` `[n]` are alone, bool `[n]`, and for each group of others, float64 `[groups]`, the
    middles of the pieces before and after it.
    """
    gap, span = NEAR * path.span, path.span
    before = torch.cat([t[-1:] - span if path.closed else t.new_zeros(1), t[:-1]])
    after = torch.cat([t[1:], t[:1] + span if path.closed else t.new_full((1,), span)])
    first, last = t - before > gap, after - t > gap
    begin, end = (first & ~last).nonzero().view(-1), (last & ~first).nonzero().view(-1)
    if len(begin) and begin[0] > end[0]:
        # A group at the start of a loop begins before it.
        end = end.roll(-1)
    middles = ((before[begin] + t[begin]) / 2, (t[end] + after[end]) / 2)
    return first & last, torch.remainder(middles[0], span), torch.remainder(middles[1], span)


def _jacobians(weights: Sequence[Tensor], chosen: Activation, path: Path, t: Tensor) -> Tensor:
    """Return the Jacobians of the logits along a path, times an F for which F F^T = W_1 W_1^T; float64 `[n, C, R]`."""
    z = path.combine(path.basis.double() @ weights[0].T, t)
    block: Tensor = torch.linalg.qr(weights[0].T, mode="r").R.T.expand(len(t), -1, -1)
    for weight in weights[1:]:
        h = chosen.apply_(z)
        block = torch.matmul(weight, chosen.slope(h).unsqueeze(2) * block)
        z = h @ weight.T
    return block


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
