r"""
The Frobenius norm of the input-output Jacobian (paper, S3): exact, at each point.

Networks of this package have a pass of their own (`chain.py`); those of any other model come from autograd.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ...errors import InvalidInputError
from ...networks import MLP, MLPStack, as_stack
from ..workspace import Workspace
from .chain import Chain, mixing_of, row_of
from .kernels import both_squared_norms, squared_norms

KINDS = ("probabilities", "logits")
# Numbers in a chunk of whole Jacobians of an arbitrary model, 4 MiB: its activations, which nobody counts, take far more.
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
    if of not in KINDS:
        raise InvalidInputError(f"of must be one of {', '.join(KINDS)}; got {of!r}")
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise InvalidInputError(f"chunk_size must be a whole number of at least 1; got {chunk_size!r}")
    check_points(x)
    if target is not None:
        target = _classes(target, len(x))
    if isinstance(model, MLPStack):
        norms = _of_stack(model, x, of, target, chunk_size)
    elif isinstance(model, MLP):
        norms = _of_stack(as_stack(model), x, of, target, chunk_size)[0]
    elif callable(model):
        norms = _of_callable(model, x, of, target, chunk_size)
    else:
        raise InvalidInputError(f"model must be an MLP, an MLPStack, a module or another callable; got {type(model).__name__}")
    return norms.to(x.dtype)


@torch.no_grad()
def jacobian_norms(stack: MLPStack, x: Tensor, *, chunk_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the norms of probabilities and of logits from one pass, each float64 `[S, N]`; see `jacobian_norm`."""
    chain = Chain(stack)
    norms = [chain.norms(points, KINDS) for points in chain.points(x, chunk_size)]
    probabilities, logits = (torch.cat([one[kind] for one in norms], 1) * chain.scale for kind in KINDS)
    return probabilities, logits


@torch.no_grad()
def _of_stack(stack: MLPStack, x: Tensor, of: str, target: Tensor | None, chunk_size: int | None) -> Tensor:
    """Return the norms, float64 `[S, N]`."""
    if x.ndim != 2 or x.shape[1] != stack.weights[0].shape[2]:
        raise InvalidInputError(f"x must be points [N, {stack.weights[0].shape[2]}]; got {list(x.shape)}")
    chain = Chain(stack)
    if target is not None:
        _check_target(target, stack.weights[-1].shape[1])
        norms = list(chain.row_norms(x, target, of, chunk_size))
    else:
        norms = [chain.norms(points, [of])[of] for points in chain.points(x, chunk_size)]
    return torch.cat(norms, 1) * chain.scale


def check_points(x: object) -> None:
    """Raise InvalidInputError unless `x` is a tensor of points `[N, ...]`, all of them finite."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or not len(x):
        raise InvalidInputError("x must be a floating-point tensor of points [N, ...], at least one")
    # Norms would not always show it: the slope of a unit that is given nan, or is saturated by inf, may be 0.
    if not x.isfinite().all():
        raise InvalidInputError("x must be finite; some points are not")


def _classes(target: object, points: int, name: str = "target") -> Tensor:
    """Return the argument `target`, which a caller may `name` otherwise, as int64 `[N]`, or raise InvalidInputError."""
    integers = (torch.int64, torch.int32, torch.int16, torch.uint8)
    if not isinstance(target, Tensor) or target.dtype not in integers or target.shape != (points,):
        got = f"{target.dtype} {list(target.shape)}" if isinstance(target, Tensor) else type(target).__name__
        raise InvalidInputError(f"{name} must be a tensor of classes [{points}], one a point; got {got}")
    return target.long()


def _check_target(target: Tensor, classes: int, name: str = "target") -> None:
    if int(target.min()) < 0 or int(target.max()) >= classes:
        raise InvalidInputError(f"{name} must hold classes 0 to {classes - 1}; got {int(target.min())} to {int(target.max())}")


def _of_callable(model: Callable[[Tensor], Tensor], x: Tensor, of: str, target: Tensor | None, chunk_size: int | None) -> Tensor:
    """Return the norms from whole Jacobians of the logits, float64 `[N]`, a chunk of points at a time."""
    if isinstance(model, nn.Module):
        check_evaluation_mode(model)
    # Copies: a model may begin by changing its input in place.
    shape = _logits_shape(model, x[:1].clone())
    if target is not None:
        _check_target(target, shape[1])
    size = chunk_size or max(1, GENERIC_CHUNK // (shape[1] * x[0].numel()))
    norms, space = [], Workspace()
    for start in range(0, len(x), size):
        J, logits = whole_jacobians(model, x[start : start + size])
        block, logits = J.permute(2, 1, 0).unsqueeze(0).contiguous(), logits.double().T.unsqueeze(0)
        if target is not None:
            own = target[start : start + size].view(1, 1, -1)
            row = row_of(logits, own, of)
            block = (block * row.to(block.dtype).unsqueeze(1)).sum(2, keepdim=True)
        if of == "probabilities" and target is None:
            mixing = mixing_of(logits, block.dtype)
            squares, _ = both_squared_norms(block, mixing, 0, space)
            norms.append((squares.double().sqrt() * mixing.factor)[0])
        else:
            norms.append(squared_norms(block, space).double().sqrt()[0])
    return torch.cat(norms)


def whole_jacobians(model: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """
    Return the Jacobians of the logits at the points `x` `[n, ...]`, `[n, C, D]`, and the logits `[n, C]`.

    Each class takes a backward pass of all points. `vmap(jacrev)` would refuse what it cannot vectorise, and is no faster.
    """
    with torch.inference_mode(False), torch.enable_grad():
        points, logits = tracked(model, x)
        last = logits.shape[1] - 1
        rows = [gradient(logits[:, c].sum(), points, keep=c < last).flatten(1) for c in range(last + 1)]
    return torch.stack(rows, 1), logits.detach()


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
    found = None
    if output.requires_grad:
        (found,) = torch.autograd.grad(output, points, weights, retain_graph=keep, allow_unused=True)
    if found is None:
        # A constant has the gradient 0, but a model that detaches its input looks the same.
        raise InvalidInputError(
            "the model's logits do not depend on its input through autograd (detached, or constant); "
            "expected a differentiable model"
        )
    return found


def _logits_shape(model: Callable[[Tensor], Tensor], x: Tensor) -> torch.Size:
    """Return the shape of the model's logits for one point `[1, ...]`, or raise InvalidInputError."""
    try:
        with torch.no_grad():
            logits = model(x)
    except REFUSALS as error:
        raise not_taken(x, error) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1 or not logits.is_floating_point():
        got = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InvalidInputError(f"model must map points [n, ...] to logits [n, C]; it maps {list(x.shape)} to {got}")
    return logits.shape


def not_taken(x: Tensor, error: Exception) -> InvalidInputError:
    """Return what to raise when a model raises one of `REFUSALS` at the points `x`."""
    return InvalidInputError(f"model does not take {x.dtype} points {list(x.shape)}: {first_line(error)}")


def first_line(error: Exception) -> str:
    """Return the first line of an error, after the error's name where it says nothing, or only which key is missing."""
    line = str(error).strip().partition("\n")[0]
    return line if line and not isinstance(error, KeyError) else f"{type(error).__name__} {line}".rstrip()


def check_evaluation_mode(model: nn.Module) -> None:
    """Raise InvalidInputError if a layer that would mix points, or drop some by chance, is in training mode."""
    for name, module in model.named_modules():
        if module.training and isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd | nn.RReLU):
            raise InvalidInputError(
                f"model must be in evaluation mode, but its layer {name or type(module).__name__!r} is in training mode: "
                "call model.eval() first"
            )
