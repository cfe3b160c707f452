r"""
The Frobenius norm of the input-output Jacobian (paper, S3): exact, at each point.

Networks of this package have a pass of their own (`chain.py`); the Jacobians of any other model come from autograd.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from ...errors import InvalidInputError, check_whole_number, described
from ...networks import MLP, MLPStack, as_stack
from .chain import Chain
from .softmax import through_softmax

KINDS = ("probabilities", "logits")
# Numbers in a chunk of whole Jacobians of an arbitrary model, 8 MiB: its activations, which nobody counts, take far more.
GENERIC_CHUNK = 2**20
# A model may raise these when it is given points of a shape that it does not take.
REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)

Model = MLP | MLPStack | Callable[[Tensor], Tensor]


def jacobian_norm(
    model: Model, x: Tensor, *, of: str = "probabilities", target: Tensor | None = None, chunk_size: int | None = None
) -> Tensor:
    r"""
    Return $\|\partial g(x) / \partial x^T\|_F$ at each point (paper, S3), where $g$ is the softmax of the logits, or the logits.

    Parameters
    ----------
    model
        An `MLP`, an `MLPStack`, or any module or callable that maps points `[n, ...]` to logits `[n, C]`, each row of which
        depends on its own point alone (normalisation and dropout layers must be in evaluation mode).
    x
        The points: `[N, D]` for an `MLP` or `MLPStack`, `[N, ...]` for any other model.
    of
        `probabilities` (the paper's Jacobian norm) or `logits`.
    target
        Classes `[N]`: take only the row of the Jacobian that belongs to each point's class, $\|J_y\|_2$.
    chunk_size
        Points at once; chosen to fit the cache, or memory, when None.

    Returns
    -------
    Tensor
        `[N]`, or `[S, N]` for a stack; of the type and on the device of `x`.

    Raises
    ------
    InvalidInputError
        An argument is not as above.
    """
    chunk_size = check_arguments(x, of, chunk_size)
    if isinstance(model, MLPStack):
        norms = _of_stack(model, x, of, target, chunk_size)
    elif isinstance(model, MLP):
        norms = _of_stack(as_stack(model), x, of, target, chunk_size)[0]
    else:
        norms = _of_callable(model, x, of, target, chunk_size)
    return norms.to(x.dtype)


@torch.no_grad()
def jacobian_norms(stack: MLPStack, x: Tensor, *, chunk_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the norms of probabilities and of logits from one pass, each float64 `[S, N]`; see `jacobian_norm`."""
    norms = Chain(stack).norms(x, KINDS, chunk_size)
    return norms["probabilities"], norms["logits"]


@torch.no_grad()
def _of_stack(stack: MLPStack, x: Tensor, kind: str, target: Tensor | None, chunk_size: int | None) -> Tensor:
    """Return the norms, float64 `[S, N]`."""
    if x.ndim != 2 or x.shape[1] != stack.weights[0].shape[2]:
        raise InvalidInputError(f"x must be points [N, {stack.weights[0].shape[2]}]; got {list(x.shape)}")
    if target is None:
        return Chain(stack).norms(x, (kind,), chunk_size)[kind]
    target = checked_classes("target", target, len(x), stack.weights[-1].shape[1])
    return Chain(stack).row_norms(x, target, kind, chunk_size)


def _of_callable(
    model: Callable[[Tensor], Tensor], x: Tensor, kind: str, target: Tensor | None, chunk_size: int | None
) -> Tensor:
    """Return the norms from whole Jacobians of the logits, float64 `[N]`, a chunk of points at a time."""
    classes = number_of_classes(model, x)
    if target is not None:
        target = checked_classes("target", target, len(x), classes)
    norms = []
    for place, J, logits in whole_jacobians(model, x, classes, chunk_size):
        factor = logits.new_ones(1, 1)
        if kind == "probabilities":
            J, factor = through_softmax(logits.unsqueeze(2), J)
        if target is not None:
            J = J[torch.arange(len(J), device=x.device), target[place]].unsqueeze(1)
        norms.append(factor[:, 0] * torch.linalg.vector_norm(J, dim=(1, 2)))
    return torch.cat(norms)


def check_arguments(x: object, kind: str, chunk_size: int | None) -> int | None:
    """Return `chunk_size` as an `int` or None; InvalidInputError unless `x` is finite points `[N, ...]`, and the others fit."""
    if kind not in KINDS:
        raise InvalidInputError(f"of must be one of {', '.join(KINDS)}; got {kind!r}")
    if chunk_size is not None:
        chunk_size = check_whole_number("chunk_size", chunk_size)
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or not len(x):
        raise InvalidInputError("x must be a floating-point tensor of points [N, ...], at least one")
    # Norms would not always show it: the slope of a unit that is given nan, or is saturated by inf, may be 0.
    if not x.isfinite().all():
        raise InvalidInputError("x must be finite; some points are not")
    return chunk_size


def checked_classes(name: str, labels: object, points: int, classes: int) -> Tensor:
    """Return the argument `name`, the class of each point, as int64 `[N]`, or raise InvalidInputError."""
    integers = (torch.int64, torch.int32, torch.int16, torch.uint8)
    if not isinstance(labels, Tensor) or labels.dtype not in integers or labels.shape != (points,):
        raise InvalidInputError(f"{name} must be a tensor of classes [{points}], one per point; got {described(labels)}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InvalidInputError(f"{name} must hold classes 0 to {classes - 1}; got {low} to {high}")
    return labels.long()


def whole_jacobians(
    model: Callable[[Tensor], Tensor], x: Tensor, classes: int, chunk_size: int | None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """
    Yield some points after the other: their place, the Jacobians of the logits, `[n, C, D]`, and the logits `[n, C]`; float64.

    Each class takes a backward pass of all points. `vmap(jacrev)` would refuse what it cannot vectorise, and is no faster.
    """
    size = chunk_size or max(1, GENERIC_CHUNK // (classes * x[0].numel()))
    for start in range(0, len(x), size):
        place = slice(start, start + size)
        with torch.inference_mode(False), torch.enable_grad():
            points, logits = tracked(model, x[place])
            J = torch.empty(len(points), classes, points[0].numel(), dtype=torch.float64, device=x.device)
            for c in range(classes):
                J[:, c] = gradient(logits[:, c].sum(), points, keep=c < classes - 1).flatten(1)
        yield place, J, logits.detach().double()


def tracked(model: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a copy of the points `x` whose gradients are recorded, and the model's logits at it."""
    # Copied outside of inference mode, whose tensors take part in no gradient.
    points = x.detach().clone().requires_grad_()
    try:
        # Another copy: a model may begin by changing its input in place.
        return points, model(points.clone())
    except RuntimeError as error:
        if "nference tensor" not in str(error):
            raise
        raise InvalidInputError(
            "model holds tensors that were made under torch.inference_mode, through which no gradient passes; "
            "expected a differentiable model"
        ) from error


def gradient(output: Tensor, points: Tensor, weights: Tensor | None = None, *, keep: bool) -> Tensor:
    """Return the gradient by the points of the `output`, summed with `weights`; `keep` its graph for another one."""
    slope = None
    if output.requires_grad:
        (slope,) = torch.autograd.grad(output, points, weights, retain_graph=keep, allow_unused=True)
    if slope is None:
        # A constant has the gradient 0, but a model that detaches its input looks the same.
        raise InvalidInputError(
            "the model's logits do not depend on its input through autograd (detached, or constant); "
            "expected a differentiable model"
        )
    return slope


def number_of_classes(model: Callable[[Tensor], Tensor], x: Tensor) -> int:
    """Return how many logits a model of one network has, tried at the first of the points `x`, or raise InvalidInputError."""
    if isinstance(model, MLPStack):
        raise InvalidInputError("model must be one network; got an MLPStack: measure its networks one by one, stack[i]")
    check_model(model)
    with torch.no_grad():
        return logits_of(model, x[:1]).shape[1]


def logits_of(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Return the logits of a model of one network, `[n, C]`, at the points `x` `[n, ...]`, or raise InvalidInputError."""
    try:
        logits = model(x.clone())  # a model may begin by changing its input in place
    except REFUSALS as error:
        raise not_taken(x, error) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(x) or not logits.is_floating_point():
        expected = "model must map points [n, ...] to logits [n, C]"
        raise InvalidInputError(f"{expected}; it maps {list(x.shape)} to {described(logits)}")
    return logits


def not_taken(x: Tensor, error: Exception) -> InvalidInputError:
    """Return what to raise when a model raises one of `REFUSALS` at the points `x`."""
    return InvalidInputError(f"model does not take {x.dtype} points {list(x.shape)}: {first_line(error)}")


def first_line(error: Exception) -> str:
    """Return the first line of an error, after the error's name where it says nothing, or only which key is missing."""
    line = str(error).strip().partition("\n")[0]
    return line if line and not isinstance(error, KeyError) else f"{type(error).__name__} {line}".rstrip()


def check_model(model: object) -> None:
    """Raise InvalidInputError if it is not callable, or a layer that would mix or drop points is in training mode."""
    if not callable(model):
        raise InvalidInputError(f"model must be an MLP, an MLPStack, a module or another callable; got {type(model).__name__}")
    for name, module in model.named_modules() if isinstance(model, nn.Module) else ():
        if module.training and isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd | nn.RReLU):
            raise InvalidInputError(
                f"model must be in evaluation mode, but its layer {name or type(module).__name__!r} is in training mode: "
                "call model.eval() first"
            )
