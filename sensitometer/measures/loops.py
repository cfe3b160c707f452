"""Transitions along the translation loops of points (paper, S3)."""

import torch
from torch import Tensor

from ..networks import MLP, MLPStack
from ..paths import translation
from .regions.transitions import Model, transitions


def counting_method(model: Model) -> str:
    """Return the method by which a survey counts: `exact` for a network of piecewise-linear units, `sampled` for any other."""
    return "exact" if isinstance(model, MLP | MLPStack) and model.activation != "tanh" else "sampled"


def loop_transitions(
    model: Model,
    x: Tensor,
    image_shape: tuple[int, int, int],
    *,
    samples: int,
    method: str | None = None,
    at_once: int | None = None,
) -> Tensor:
    """
    Return the transitions along the translation loop of each of P points; int64 `[P]`, or `[S, P]` for a stack.

    The points `x` are `[P, D]`, or `[P, channels, height, width]` for models of images. The `method` is that of `counting_method`
    when None; `sampled` takes `samples` points per loop. Loops are counted `at_once`, all together when None.
    """
    method = method or counting_method(model)
    counts = []
    for images in torch.split(x.view(-1, *image_shape), at_once or len(x)):
        loops = [translation(image, flat=x.ndim == 2) for image in images]
        counts.append(transitions(model, loops, method=method, samples=samples).total)
    return torch.cat(counts, -1)
