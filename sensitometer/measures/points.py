"""The measures at each point of a labelled set: losses, confidence, and Jacobian norms (paper, A.5.6)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import counted
from ..losses import loss
from ..networks import MLP, as_stack
from .jacobian.norm import check_arguments, checked_classes, jacobian_norm, jacobian_norms, number_of_classes, whole_jacobians
from .jacobian.softmax import through_softmax

# Points of a forward pass.
POINTS = 256


@dataclass(frozen=True, eq=False)
class PointValues:
    r"""
    The measures at each of N points; float64 `[N]` unless said otherwise.

    Attributes
    ----------
    label
        The true class y; int64.
    predicted
        The class of the largest logit, -1 where the logits are no numbers; int64.
    confidence
        The probability of that class.
    cross_entropy, l2_loss
        The two losses, $-\log p_y$ and half the squared distance of the logits from the one-hot label.
    jacobian_norm
        $\|J\|_F$, of the probabilities.
    label_jacobian_norm
        $\|J_y\|_2$, of the probability of the true class alone.
    logit_jacobian_norm
        $\|\partial f / \partial x^T\|_F$, of the logits.
    """

    label: Tensor
    predicted: Tensor
    confidence: Tensor
    cross_entropy: Tensor
    l2_loss: Tensor
    jacobian_norm: Tensor
    label_jacobian_norm: Tensor
    logit_jacobian_norm: Tensor

    def __repr__(self) -> str:
        return f"PointValues({counted(len(self.label), 'point')})"

    @property
    def correct(self) -> Tensor:
        """Whether the predicted class is the true one; bool `[N]`."""
        return self.predicted == self.label


def point_values(model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, *, chunk_size: int | None = None) -> PointValues:
    """
    Measure a model at labelled points (paper, A.5.6).

    Parameters
    ----------
    model
        An `MLP`, or any module or callable that maps points `[n, ...]` to logits `[n, C]`, as in `jacobian_norm`. The forward
        pass of an `MLP` is done in float64.
    x
        The points: `[N, D]` for an `MLP`, `[N, ...]` for any other model.
    y
        Their classes, whole numbers `[N]`.
    chunk_size
        Points at once; chosen to fit the cache, or memory, when None.

    Raises
    ------
    InvalidInputError
        An argument is not as above.
    """
    chunk_size = check_arguments(x, "probabilities", chunk_size)
    classes = model.weights[-1].shape[0] if isinstance(model, MLP) else number_of_classes(model, x)
    y = checked_classes("y", y, len(x), classes)
    if isinstance(model, MLP):
        logits, *norms = _of_network(model, x.double(), y, chunk_size)
    else:
        logits, *norms = _of_callable(model, x, y, classes, chunk_size)
    top = logits.max(1)
    return PointValues(
        y,
        torch.where(top.values.isnan(), -1, top.indices),
        logits.softmax(1).amax(1),
        *(loss(name).values(logits.T.unsqueeze(0), y.view(1, 1, -1))[0] for name in ("cross-entropy", "l2")),
        *norms,
    )


def _of_network(network: MLP, x: Tensor, y: Tensor, chunk_size: int | None) -> tuple[Tensor, ...]:
    """Return the logits, float64 `[N, C]`, and the three norms, float64 `[N]`, in the order of `PointValues`."""
    # The points are float64, as the norms are: float32 would end at 1e-45.
    of_label = jacobian_norm(network, x, target=y, chunk_size=chunk_size)
    of_probabilities, of_logits = (norms[0] for norms in jacobian_norms(as_stack(network), x, chunk_size=chunk_size))
    exact = MLP([weight.double() for weight in network.weights], network.activation)
    with torch.no_grad():
        logits = torch.cat([exact(points) for points in torch.split(x, POINTS)])
    return logits, of_probabilities, of_label, of_logits


def _of_callable(
    model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, classes: int, chunk_size: int | None
) -> tuple[Tensor, ...]:
    """Return the same of any other model, from one Jacobian of each point's logits."""
    norm = torch.linalg.vector_norm
    chunks = []
    for place, J, logits in whole_jacobians(model, x, classes, chunk_size):
        of_logits = norm(J, dim=(1, 2))
        R, factor = through_softmax(logits.unsqueeze(2), J)
        factor = factor[:, 0]
        row = R[torch.arange(len(R), device=y.device), y[place]]
        chunks.append((logits, factor * norm(R, dim=(1, 2)), factor * norm(row, dim=1), of_logits))
    return tuple(torch.cat(parts) for parts in zip(*chunks, strict=True))
