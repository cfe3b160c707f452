r"""
The Frobenius norm of the input-output Jacobian (paper, S3): exact, at each point.

Networks of this package have a pass of their own (`chain.py`); for any other model autograd pulls rows back (`pullback.py`).
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...errors import InvalidInputError, check_whole_number, described
from ...models.adapting import HALF, AdaptedModel, Inputs, unwrapped
from ...networks import MLP, MLPStack, as_stack
from .chain import Chain
from .pullback import norms

KINDS = ("probabilities", "logits", "sigmoid", "outputs")
# How far from 1 the outputs of a softmax add up, by rounding.
ROUNDING = 1e-4

Model = MLP | MLPStack | Callable[..., Any]


def jacobian_norm(
    model: Model,
    x: Tensor,
    *,
    of: str = "probabilities",
    target: Tensor | None = None,
    output: str | int | None = None,
    inputs: Inputs | None = None,
    chunk_size: int | None = None,
    create_graph: bool = False,
) -> Tensor:
    r"""
    Return $\|\partial g(x) / \partial x^T\|_F$ at each point (paper, S3), $g$ being the softmax of the logits or another output.

    Parameters
    ----------
    model
        An `MLP`, an `MLPStack`, or any module or callable of points `[n, ...]`, each row of whose output depends on its own point
        alone. Two forward passes check that. A model of half precision is measured in a float32 copy, and a warning says so;
        compiled models run uncompiled.
    x
        The points: `[N, D]` for an `MLP` or `MLPStack`, `[N, ...]` for any other model; embeddings `[N, words, width]` for a
        language model, which are passed as `inputs_embeds` where it has that argument.
    of
        `probabilities` (the paper's Jacobian norm: of the softmax of logits `[n, C]`), `logits`, `sigmoid` (of the sigmoid of
        each logit: for models of one logit, or of several labels), or `outputs` (of all outputs of any shape: for regression,
        segmentation, or a model that ends in a softmax).
    target
        Classes `[N]`: take only the row of the Jacobian that belongs to each point's class, $\|J_y\|_2$.
    output
        The name or the place of the output, of a model that returns a dictionary, a tuple or an object. None for its only tensor,
        or its `logits`.
    inputs
        Further inputs of the model, by name (a mapping) or by place after the points (a list): tensors `[N, ...]`, a row per
        point; anything else is passed as it is.
    chunk_size
        Points at once; chosen to fit the cache, or memory, when None.
    create_graph
        Whether gradients of the norms can be taken, as those of a regulariser. One network alone.

    Returns
    -------
    Tensor
        `[N]`, or `[S, N]` for a stack; of the type (float32 for half precision) and on the device of `x`.

    Raises
    ------
    InvalidInputError
        An argument is not as above, or the model's outputs are not what `of` says.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Linear(3, 1, bias=False)
    >>> _ = torch.nn.init.ones_(model.weight)
    >>> jacobian_norm(model, torch.zeros(2, 3), of="outputs").tolist()  # the norm of (1, 1, 1)
    [1.7320507764816284, 1.7320507764816284]
    """
    chunk_size = check_arguments(x, of, chunk_size)
    model = unwrapped(model)
    if isinstance(model, MLP | MLPStack) and not create_graph:
        stack = as_stack(model) if isinstance(model, MLP) else model
        result = _of_stack(stack, x, of, target, chunk_size, {"output": output, "inputs": inputs})
        result = result[0] if isinstance(model, MLP) else result
    else:
        adapted = adapted_model(model, x, output=output, inputs=inputs)
        check_outputs(of, adapted.example)
        if create_graph and adapted.note:
            raise InvalidInputError(
                f"create_graph needs a model that is measured as it is; it is {adapted.note}: call model.float()"
            )
        if target is not None:
            target = checked_classes("target", target, len(x), adapted.example[0].numel())
        result = norms(adapted, x, of, target, chunk_size, create_graph=create_graph)
    with torch.inference_mode(False), torch.set_grad_enabled(create_graph):
        return result.to(torch.float32 if x.dtype in HALF else x.dtype)


@torch.no_grad()
def jacobian_norms(stack: MLPStack, x: Tensor, *, chunk_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the norms of probabilities and of logits from one pass, each float64 `[S, N]`; see `jacobian_norm`."""
    both = Chain(stack).norms(x, ("probabilities", "logits"), chunk_size)
    return both["probabilities"], both["logits"]


@torch.no_grad()
def _of_stack(
    stack: MLPStack, x: Tensor, kind: str, target: Tensor | None, chunk_size: int | None, refused: dict[str, object]
) -> Tensor:
    """Return the norms, float64 `[S, N]`."""
    for name, value in refused.items():
        if value is not None:
            raise InvalidInputError(f"{name} must be None for an MLP, which has one input and one output; got {described(value)}")
    if x.ndim != 2 or x.shape[1] != stack.weights[0].shape[2]:
        raise InvalidInputError(f"x must be points [N, {stack.weights[0].shape[2]}]; got {list(x.shape)}")
    classes = stack.weights[-1].shape[1]
    if target is not None:
        target = checked_classes("target", target, len(x), classes)
    if kind == "sigmoid":
        return torch.stack(
            [
                norms(AdaptedModel(network, x), x, kind, target, chunk_size)
                for network in map(stack.__getitem__, range(len(stack)))
            ]
        )
    if kind == "probabilities":
        check_outputs(kind, torch.zeros(1, classes))
    kind = "logits" if kind == "outputs" else kind
    if target is None:
        return Chain(stack).norms(x, (kind,), chunk_size)[kind]
    return Chain(stack).row_norms(x, target, kind, chunk_size)


def adapted_model(model: Model, x: Tensor, *, output: str | int | None = None, inputs: Inputs | None = None) -> AdaptedModel:
    """Return a model as a function from points to outputs, and warn if it is measured in a copy."""
    adapted = AdaptedModel(model, x, output=output, inputs=inputs)
    if adapted.note:
        warnings.warn(f"the model is {adapted.note}", stacklevel=3)
    return adapted


def check_outputs(kind: str, outputs: Tensor) -> None:
    """Raise InvalidInputError, with the cure, unless the Jacobian norm of `kind` makes sense for outputs `[n, ...]`."""
    if kind == "outputs":
        return
    if outputs.ndim != 2:
        shape = ", ".join(map(str, ["n", *outputs.shape[1:]]))
        raise InvalidInputError(f"of={kind!r} needs a model of logits [n, C]; it gives [{shape}]: use of='outputs'")
    if kind == "sigmoid":
        return
    if kind == "probabilities" and outputs.shape[1] == 1:
        raise InvalidInputError(
            "of='probabilities' needs at least 2 logits: the softmax of one is 1 at every point; for a model of one output use "
            "of='sigmoid' (a logit of two classes) or of='outputs' (regression)"
        )
    if ends_in_softmax(outputs):
        raise InvalidInputError(
            f"of={kind!r} needs logits, but the model ends in a softmax already (its outputs add up to 1): use of='outputs', "
            "which measures these probabilities"
        )


def ends_in_softmax(outputs: Tensor) -> bool:
    """Return whether outputs `[n, C]` are probabilities already."""
    inside = outputs.ndim == 2 and outputs.shape[1] > 1 and bool(((outputs >= 0) & (outputs <= 1)).all())
    return inside and bool(((outputs.double().sum(1) - 1).abs() < ROUNDING).all())


def check_arguments(x: object, kind: str, chunk_size: int | None) -> int | None:
    """Return `chunk_size` as an `int` or None; InvalidInputError unless `x` is finite points `[N, ...]`, and the others fit."""
    if kind not in KINDS:
        raise InvalidInputError(f"of must be one of {', '.join(KINDS)}; got {kind!r}")
    if chunk_size is not None:
        chunk_size = check_whole_number("chunk_size", chunk_size)
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or not len(x):
        raise InvalidInputError(f"x must be a floating-point tensor of points [N, ...], at least one; got {described(x)}")
    # Norms would not always show it: the slope of a unit that is given nan, or is saturated by inf, may be 0.
    if not (x.detach().sum().isfinite() or x.isfinite().all()):
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
