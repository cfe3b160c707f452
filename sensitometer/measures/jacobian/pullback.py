r"""
The Jacobian norms of any model: rows of weights on its outputs, pulled back to its points by autograd.

A row $v$ of weights on the outputs $f$ gives $v^T \partial f / \partial x^T$ in one backward pass. The rows of the Jacobian of
the probabilities have the weights $p_c (e_c - p)$ (`softmax.py`). They add up to 0, so that one of them needs no pass. Those of
sigmoids have $\sigma'(f_c)\, e_c$, those of the outputs $e_c$. They are formed in float64 from the outputs, over a factor per
point, so that nothing underflows at well-fitted points.

Small passes are made together, for many rows at once (`vmap`); large ones row after row, which keeps them in the cache.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...errors import InvalidInputError, counted
from ...models.adapting import AdaptedModel, first_line, without_autocast
from .softmax import SoftmaxRows, mixing_of

# Numbers that autograd keeps of one chunk's forward pass, and points of a chunk (`benchmarks/any_model.py` chose these).
KEPT = 5 * 2**20
POINTS = 512
# Numbers of the passes that are made together, and the fewest rows for which that is faster than one by one.
TOGETHER = 2**21
FEWEST_ROWS = 8
# Weights of the rows that are formed at once.
WEIGHTS = 2**17


class Rows(NamedTuple):
    """The weights on the outputs that make a Jacobian's rows, over a factor."""

    block: Callable[[slice], Tensor]  # of the rows, float64 [n, k, K]
    of_class: Callable[[Tensor], Tensor]  # from classes, int64 [n, 1], one per point: float64 [n, 1, K]
    factor: Tensor  # float64 [n]
    passes: int  # how many there are
    balanced: bool  # one more row is minus the sum of all these


class Plan(NamedTuple):
    """How a model's passes are divided."""

    points: int  # of a chunk
    rows: int  # made together; 1 for one by one


def plan_for(
    model: AdaptedModel, x: Tensor, chunk_size: int | None, kind: str = "outputs", *, create_graph: bool = False
) -> Plan:
    """
    Return how many points, and how many rows, of a model of points such as `x` are worked on at once.

    Raises
    ------
    InvalidInputError
        The slopes of sigmoids are asked for, and the model ends in sigmoids already.
    """
    kept: dict[int, int] = {}
    shared = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in shared:
            kept[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        first, outputs = tracked(model, x, slice(0, 1), create_graph=create_graph)
    if kind in ("sigmoid", "probabilities") and _ends_in_sigmoid(outputs):
        raise InvalidInputError(f"of={kind!r} needs logits, but the model ends in a sigmoid already: use of='outputs'")
    numbers = sum(kept.values()) + first.numel() + outputs.numel()
    points = chunk_size or max(1, min(len(x), POINTS, KEPT // numbers))
    K = outputs.shape[1]
    rows = min(K, TOGETHER // (points * numbers))
    return Plan(points, rows if rows >= min(FEWEST_ROWS, K) and rows > 1 and _goes_together(first, outputs, create_graph) else 1)


def _ends_in_sigmoid(outputs: Tensor) -> bool:
    """Return whether the last operation, but for shapes and parts, is a sigmoid: logits may be from 0 to 1 by chance."""
    node = _last_operation(outputs, (*_VIEWS, "Select", "Slice", "Index", "Clamp"))
    return node is not None and node.name().startswith("Sigmoid")


# Operations that change the shape alone, by the beginnings of their names in autograd's graph.
_VIEWS = ("View", "UnsafeView", "Reshape", "Alias", "Squeeze", "Unsqueeze", "Clone")


def _last_operation(outputs: Tensor, passed_over: tuple[str, ...]) -> Any:
    """Return the node of the last operation in autograd's graph but for those passed over; None if there is none."""
    node = outputs.grad_fn
    while node is not None and node.name().startswith(passed_over):
        node = node.next_functions[0][0]
    return node


def _goes_together(points: Tensor, outputs: Tensor, create_graph: bool) -> bool:
    """
    Return whether several rows can be pulled back at once, with `create_graph` and then their slopes.

    Torch warns of operations that would take them one by one. It cannot take the slopes of some, such as max-pooling.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            (slopes,) = torch.autograd.grad(
                outputs,
                points,
                outputs.new_zeros(2, *outputs.shape),
                retain_graph=True,
                create_graph=create_graph,
                allow_unused=True,
                is_grads_batched=True,
            )
            if slopes is not None and slopes.requires_grad:
                torch.autograd.grad(slopes.sum(), points, retain_graph=True, allow_unused=True)
        except (RuntimeError, NotImplementedError):
            return False
    return not any("performance drop" in str(warning.message) for warning in said)


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
    plan = plan_for(model, x, chunk_size, kind, create_graph=create_graph)
    with torch.inference_mode(False), torch.set_grad_enabled(create_graph):
        places = [slice(start, start + plan.points) for start in range(0, len(x), plan.points)]
        return torch.cat([_norms_at(place, model, x, kind, target, plan, create_graph) for place in places])


def _norms_at(
    place: slice, model: AdaptedModel, x: Tensor, kind: str, target: Tensor | None, plan: Plan, create_graph: bool
) -> Tensor:
    """Return the norms at some of the points; a function, so that nothing is kept when the next chunk begins."""
    points, outputs = tracked(model, x, place, create_graph=create_graph)
    rows = jacobian_rows(kind, outputs, create_graph=create_graph)
    if target is None:
        factor, slopes = rows.factor, row_slopes(points, outputs, rows, plan, create_graph=create_graph)
    else:
        weights = rows.of_class(target[place].unsqueeze(1))
        # A single row may be far smaller than the factor.
        largest = _or_1(weights.detach().abs().amax((1, 2)))
        factor = rows.factor * largest
        weights = (weights / largest.view(-1, 1, 1)).to(outputs.dtype)
        slopes = pulled_back(points, outputs, weights, create_graph=create_graph)
    squares = _sum_of_squares(slopes, create_graph=create_graph)
    # The square root of 0 has no slope.
    return factor * torch.where(squares == 0, 0.0, _or_1(squares).sqrt())


def _add_up(outputs: Tensor) -> bool:
    """Return whether outputs `[n, K]` are those of one softmax each, and not of several."""
    return bool(((outputs.detach().double().sum(1) - 1).abs() < 1e-4).all())


def _or_1(values: Tensor) -> Tensor:
    """Return values with 1 for 0, to divide by."""
    return torch.where(values == 0, 1.0, values)


def jacobian_rows(kind: str, outputs: Tensor, *, create_graph: bool = False) -> Rows:
    """
    Return the rows of a Jacobian from the outputs `[n, K]`.

    If these are probabilities, the softmax at the end of the model is left out of the passes that follow: rows are formed in
    float64 from the probabilities, and pulled back to the logits, as those of `probabilities` are.
    """
    node = _last_operation(outputs, _VIEWS)
    if kind == "outputs" and not create_graph and node is not None and node.name().startswith("Softmax") and _add_up(outputs):
        node.register_hook(lambda gradients, of_outputs: of_outputs)
        return jacobian_rows("probabilities", outputs.detach().double().log())
    outputs = outputs if create_graph else outputs.detach()
    exact, (n, K) = outputs.double(), outputs.shape
    if kind == "probabilities":
        rows = SoftmaxRows(exact)
        return Rows(rows.others, rows.of_class, rows.factor, K - 1, balanced=True)
    values, factor = torch.ones_like(exact), exact.new_ones(n)
    if kind == "sigmoid":
        # 1 - sigmoid(f) would be rounded to 0 where the sigmoid is 1.
        slopes = exact.sigmoid() * (-exact).sigmoid()
        factor = _or_1(slopes.detach().amax(1))
        values = slopes / factor.unsqueeze(1)

    def block(place: slice) -> Tensor:
        rows = exact.new_zeros(n, *values[:, place].shape[1:], K)
        rows[:, :, place].diagonal(dim1=1, dim2=2).copy_(values[:, place])
        return rows

    def of_class(classes: Tensor) -> Tensor:
        return torch.zeros_like(exact).scatter(1, classes, values.gather(1, classes)).unsqueeze(1)

    return Rows(block, of_class, factor, K, balanced=False)


def row_slopes(points: Tensor, outputs: Tensor, rows: Rows, plan: Plan, *, create_graph: bool = False) -> Iterator[Tensor]:
    """Yield the rows of the Jacobian over the factor, some at once: `[r, n, ...]`."""
    n, K = outputs.shape
    size = max(1, plan.rows, min(rows.passes, WEIGHTS // (n * K)) // plan.rows * plan.rows)
    total = None
    for start in range(0, rows.passes, size):
        weights = rows.block(slice(start, min(start + size, rows.passes))).to(outputs.dtype)
        last = start + size >= rows.passes
        for slopes in pulled_back(points, outputs, weights, plan.rows, create_graph=create_graph, last=last):
            yield slopes
            if rows.balanced:
                total = _added(total, slopes.sum(0, keepdim=True) if len(slopes) > 1 else slopes, create_graph)
    if total is not None:
        yield -total


def _added(total: Tensor | None, slopes: Tensor, create_graph: bool) -> Tensor:
    """Return a sum, in place where no gradient needs what it was."""
    if total is None:
        return slopes.clone()  # it may be a view of what autograd holds, or of one number
    return total + slopes if create_graph else total.add_(slopes)


def _sum_of_squares(slopes: Iterator[Tensor], *, create_graph: bool) -> Tensor:
    """Return the sum of the squared norms of rows `[r, n, ...]`; float64 `[n]`."""
    squares: Tensor | float = 0.0
    for several in slopes:
        flat = several.flatten(2)
        # The norm of a row of zeros has no slope.
        norms = flat.double().square().sum(2) if create_graph else torch.linalg.vector_norm(flat, dim=2, dtype=torch.float64) ** 2
        squares = squares + norms.sum(0)
    return cast(Tensor, squares)


def pulled_back(
    points: Tensor, outputs: Tensor, weights: Tensor, together: int = 1, *, create_graph: bool = False, last: bool = True
) -> Iterator[Tensor]:
    """
    Yield the gradients by the points of the outputs `[n, K]` with `weights` `[n, k, K]`, some rows at once: `[r, n, ...]`.

    Buffers of the forward pass are freed on the way, in the last pass: memory that is in the cache is used again.
    """
    rows = weights.shape[1]
    for start in range(0, rows, together):
        block = weights[:, start : start + together].transpose(0, 1)
        try:
            with without_autocast(points.device):
                (slopes,) = torch.autograd.grad(
                    outputs,
                    points,
                    block if together > 1 else block[0],
                    retain_graph=create_graph or not last or start + together < rows,
                    create_graph=create_graph,
                    allow_unused=True,
                    is_grads_batched=together > 1,
                )
        except torch.OutOfMemoryError as error:
            raise InvalidInputError(
                f"out of memory with {counted(len(points), 'point')} at once: pass a smaller chunk_size"
            ) from error
        except (RuntimeError, NotImplementedError) as error:
            # Reentrant checkpoints among others, of which torch says what to do.
            raise InvalidInputError(f"no gradient passes back through the model: {first_line(error)}") from error
        if slopes is None:
            raise not_differentiable()
        yield slopes if together > 1 else slopes.unsqueeze(0)


class ClassifierNorms(NamedTuple):
    """The norms of a classifier's Jacobians at points, float64 `[n]`, and its logits, float64 `[n, C]`."""

    logits: Tensor
    of_probabilities: Tensor
    of_label: Tensor  # of the row of each point's class
    of_logits: Tensor


def classifier_norms(model: AdaptedModel, x: Tensor, y: Tensor, chunk_size: int | None) -> ClassifierNorms:
    r"""
    Return all norms of a classifier at points `x` of classes `y` `[N]` from the same passes, one per class and one more.

    With the rows $J_c$ of the logits' Jacobian and $u = \sum_j p_j J_j$ those of the probabilities are $p_c (J_c - u)$, and that
    of the most probable class is minus the sum of the others (`softmax.py`).
    """
    plan = plan_for(model, x, chunk_size, "probabilities")
    places = [slice(start, start + plan.points) for start in range(0, len(x), plan.points)]
    parts = [_classifier_norms_at(place, model, x, y[place], plan) for place in places]
    return ClassifierNorms(*(torch.cat(values) for values in zip(*parts, strict=True)))


@torch.no_grad()
def _classifier_norms_at(place: slice, model: AdaptedModel, x: Tensor, y: Tensor, plan: Plan) -> ClassifierNorms:
    points, outputs = tracked(model, x, place)
    logits = outputs.detach().double()
    mixing = mixing_of(logits.unsqueeze(2))
    others, top = mixing.others.squeeze(2), mixing.top.view(-1)
    n = len(logits)
    (mean,) = pulled_back(points, outputs, mixing.p.transpose(1, 2).to(outputs.dtype), last=False)
    mean = mean.flatten(2).double()
    squares, of_logits, of_label = torch.zeros(3, n, dtype=torch.float64, device=x.device)
    total, start = torch.zeros_like(mean[0]), 0
    units = jacobian_rows("logits", logits)
    for slopes in row_slopes(points, outputs, units, plan):
        rows = slopes.flatten(2).double()
        of_logits += torch.linalg.vector_norm(rows, dim=2).square().sum(0)
        here = slice(start, start + len(rows))
        rows = (rows - mean) * others[:, here].T.unsqueeze(2)
        sizes = torch.linalg.vector_norm(rows, dim=2).square()
        squares += sizes.sum(0)
        total -= rows.sum(0)
        inside = (y >= here.start) & (y < here.stop)
        of_label[inside] = sizes[y[inside] - start, inside.nonzero().view(-1)]
        start += len(rows)
    last = torch.linalg.vector_norm(total, dim=1).square()
    of_label = torch.where(y == top, last, of_label)
    factor = mixing.factor.view(-1)
    return ClassifierNorms(logits, factor * (squares + last).sqrt(), factor * of_label.sqrt(), of_logits.sqrt())
