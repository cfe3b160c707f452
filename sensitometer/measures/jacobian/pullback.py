r"""
The Jacobian norms of any model: rows of weights on its outputs, pulled back to its points by autograd.

A row $v$ of weights on the outputs $f$ gives $v^T \partial f / \partial x^T$ in one backward pass. The rows of the Jacobian of
the probabilities have the weights $p_c (e_c - p)$ (`softmax.py`), those of sigmoids $\sigma'(f_c)\, e_c$, those of the outputs
$e_c$. They are formed in float64 from the outputs, over a factor per point, so that nothing underflows at well-fitted points.

Small passes are made together, for many rows at once (`vmap`); large ones row after row, which keeps them in the cache.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...errors import InvalidInputError
from ...models.adapting import AdaptedModel
from .softmax import softmax_rows

# Numbers that autograd keeps of one chunk's forward pass, and points of a chunk (`benchmarks/any_model.py` chose these).
KEPT = 2**23
POINTS = 256
# Numbers of the passes that are made together, and the fewest rows for which that is faster than one by one.
TOGETHER = 2**21
FEWEST_ROWS = 8
# Weights of the rows that are formed at once.
WEIGHTS = 2**20
# Numbers of whole Jacobians at once, 64 MiB.
WHOLE = 2**23


class Rows(NamedTuple):
    """The weights on the outputs that make a Jacobian's rows."""

    # From classes int64 `[k]`, or `[n, 1]`, one per point: the weights over the factor, float64 `[n, k, K]`.
    weights: Callable[[Tensor], Tensor]
    factor: Tensor  # float64 [n]


class Plan(NamedTuple):
    """How a model's passes are divided."""

    points: int  # of a chunk
    rows: int  # made together; 1 for one by one


def plan_for(model: AdaptedModel, x: Tensor, chunk_size: int | None) -> Plan:
    """Return how many points, and how many rows, of a model of points such as `x` are worked on at once."""
    kept = _numbers_kept(model, x)
    points = chunk_size or max(1, min(len(x), POINTS, KEPT // kept))
    rows = min(model.example[0].numel(), TOGETHER // (points * kept))
    return Plan(points, rows if rows >= min(FEWEST_ROWS, model.example[0].numel()) else 1)


def _numbers_kept(model: AdaptedModel, x: Tensor) -> int:
    """Return how many numbers autograd keeps per point between the passes."""
    kept: dict[int, int] = {}
    shared = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in shared:
            kept[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        points, outputs = tracked(model, x, slice(0, 1))
    return sum(kept.values()) + points.numel() + outputs.numel()


def tracked(model: AdaptedModel, x: Tensor, place: slice, *, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """Return points whose gradients are recorded, and the model's outputs `[n, K]` at them; `create_graph` keeps those of `x`."""
    with torch.inference_mode(False), torch.enable_grad():
        # Copied outside of inference mode, whose tensors take part in no gradient.
        points = model.points(x[place])
        points = points if create_graph and points.requires_grad else points.detach().clone().requires_grad_()
        # Fused attention has no second derivative.
        with sdpa_kernel(SDPBackend.MATH) if create_graph else nullcontext():
            outputs = model(points, place).flatten(1)
    if not outputs.requires_grad:
        raise not_differentiable()
    return points, outputs


def not_differentiable() -> InvalidInputError:
    """Return what to raise where no gradient reaches the points: a constant has the gradient 0, but looks the same."""
    return InvalidInputError(
        "the model's outputs do not depend on its input through autograd (detached, or constant); expected a differentiable model"
    )


def norms(
    model: AdaptedModel, x: Tensor, kind: str, target: Tensor | None, chunk_size: int | None, *, create_graph: bool = False
) -> Tensor:
    """Return the norms of the Jacobian of `kind`, or of its rows `target` `[N]`, at the points `x`; float64 `[N]`."""
    plan = plan_for(model, x, chunk_size)
    parts = []
    for start in range(0, len(x), plan.points):
        place = slice(start, start + plan.points)
        points, outputs = tracked(model, x, place, create_graph=create_graph)
        rows = jacobian_rows(kind, outputs if create_graph else outputs.detach())
        classes = None if target is None else target[place].unsqueeze(1)
        slopes = row_slopes(points, outputs, rows, classes, plan, create_graph=create_graph)
        squares = _sum_of_squares(slopes, create_graph=create_graph)
        # The square root of 0 has no slope.
        norm = torch.where(squares == 0, 0.0, torch.where(squares == 0, 1.0, squares).sqrt())
        parts.append(rows.factor * norm)
    return torch.cat(parts)


def jacobian_rows(kind: str, outputs: Tensor) -> Rows:
    """Return the rows of a Jacobian from the outputs `[n, K]`."""
    exact, (n, K) = outputs.double(), outputs.shape
    if kind == "probabilities":
        return Rows(*softmax_rows(exact))

    def unit(classes: Tensor) -> Tensor:
        index = classes.expand(n, -1).unsqueeze(2) if classes.ndim == 2 else classes.view(1, -1, 1).expand(n, -1, 1)
        return exact.new_zeros(n, index.shape[1], K).scatter_(2, index, 1.0)

    if kind != "sigmoid":
        return Rows(unit, exact.new_ones(n))
    # 1 - sigmoid(f) would be rounded to 0 where the sigmoid is 1.
    slopes = exact.sigmoid() * (-exact).sigmoid()
    factor = slopes.detach().amax(1)
    factor = torch.where(factor == 0, 1.0, factor)
    scaled = (slopes / factor.unsqueeze(1)).unsqueeze(1)
    return Rows(lambda classes: unit(classes) * scaled, factor)


def row_slopes(
    points: Tensor, outputs: Tensor, rows: Rows, classes: Tensor | None, plan: Plan, *, create_graph: bool = False
) -> Iterator[Tensor]:
    """Yield the rows of the Jacobian, or those of `classes` `[n, 1]`, over the factor, some at once: `[r, n, ...]`."""
    n, K = outputs.shape
    together = 1 if create_graph else plan.rows
    size = max(1, together, min(K, WEIGHTS // (n * K)) // together * together)
    blocks = [torch.arange(start, min(start + size, K), device=outputs.device) for start in range(0, K, size)]
    for block in blocks if classes is None else [classes]:
        weights = rows.weights(block).to(outputs.dtype)
        yield from pulled_back(points, outputs, weights, together if classes is None else 1, create_graph=create_graph)


def _sum_of_squares(slopes: Iterator[Tensor], *, create_graph: bool) -> Tensor:
    """Return the sum over the rows `[r, n, ...]` of their squared norms; float64 `[n]`."""
    squares: Tensor | float = 0.0
    for several in slopes:
        flat = several.flatten(2)
        # The norm of a row of zeros has no slope.
        norms = flat.double().square().sum(2) if create_graph else torch.linalg.vector_norm(flat, dim=2, dtype=torch.float64) ** 2
        squares = squares + norms.sum(0)
    return cast(Tensor, squares)


def pulled_back(
    points: Tensor, outputs: Tensor, weights: Tensor, together: int = 1, *, create_graph: bool = False
) -> Iterator[Tensor]:
    """Yield the gradients by the points of the outputs `[n, K]` with `weights` `[n, k, K]`, some rows at once: `[r, n, ...]`."""
    start = 0
    rows = weights.shape[1]
    while start < rows:
        block = weights[:, start : start + together]
        if together > 1:
            try:
                (slopes,) = torch.autograd.grad(
                    outputs, points, block.transpose(0, 1), retain_graph=True, allow_unused=True, is_grads_batched=True
                )
            except (RuntimeError, NotImplementedError):
                # An operation of the backward pass cannot be done for several rows at once, such as one of a custom function.
                together = 1
                continue
        else:
            (slopes,) = torch.autograd.grad(
                outputs, points, block[:, 0], retain_graph=True, allow_unused=True, create_graph=create_graph
            )
            slopes = None if slopes is None else slopes.unsqueeze(0)
        if slopes is None:
            raise not_differentiable()
        yield slopes
        start += block.shape[1]


def whole_jacobians(model: AdaptedModel, x: Tensor, chunk_size: int | None = None) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield chunk after chunk: its place, the Jacobians of the outputs `[n, K, D]`, and the outputs `[n, K]`; float64."""
    plan = plan_for(model, x, chunk_size)
    K, D = model.example[0].numel(), x[0].numel()
    size = chunk_size or max(1, min(plan.points, WHOLE // (K * D)))
    for start in range(0, len(x), size):
        place = slice(start, start + size)
        points, outputs = tracked(model, x, place)
        units = torch.eye(K, dtype=outputs.dtype, device=outputs.device).expand(len(points), K, K)
        J = torch.empty(len(points), K, D, dtype=torch.float64, device=x.device)
        row = 0
        for slopes in pulled_back(points, outputs, units, plan.rows):
            J[:, row : row + len(slopes)] = slopes.flatten(2).transpose(0, 1)
            row += len(slopes)
        yield place, J, outputs.detach().double()
