r"""
Values at each point of a labelled set, and the bounds that its loss puts on its Jacobian (paper, A.3, A.5.6, A.5.7).

With $\ell$ the cross-entropy at a point of class $y$, $n$ classes, and $M = E\,\|\partial f / \partial x^T\|_F^2 / n$ over the
points, the paper derives, for rows of the logit Jacobian that are alike and independent,
$$\sqrt{n M / (n - 1)}\, e^{-\ell} (1 - e^{-\ell}) \lesssim \|J_y\|_2 \lesssim \sqrt{2 M}\, e^{-\ell} (1 - e^{-\ell}) \quad (5)$$
the same lower bound for $\|J\|_F$ (6), and, where the wrong classes share the rest of the probability equally,
$$\|J\|_F \approx \tfrac{\sqrt{M}}{n - 1} (1 - e^{-\ell}) \sqrt{n^2 e^{-2\ell} + n - 2} \quad (7)$$
Everything is float64, and $1 - e^{-\ell}$ is `-expm1(-l)`: the losses of well-fitted points are far below 1e-16.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import InvalidInputError
from ..losses import loss
from ..networks import MLP, MLPStack, as_stack
from .jacobian.norm import (
    _check_target,
    _classes,
    _logits_shape,
    check_evaluation_mode,
    check_points,
    jacobian_norm,
    jacobian_norms,
    whole_jacobians,
)

# Points of a forward pass, and numbers in the Jacobians of a model that is not of this package, 32 MiB.
POINTS = 256
NUMBERS = 2**22


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

    @property
    def correct(self) -> Tensor:
        """Whether the predicted class is the true one; bool `[N]`."""
        return self.predicted == self.label


@dataclass(frozen=True)
class JacobianBounds:
    """
    The bounds (5) and (6) and the approximation (7), as functions of the cross-entropy.

    Attributes
    ----------
    classes
        Number of classes, n.
    mean_square
        M, the mean square norm of the logit Jacobian over the points, divided by n.
    """

    classes: int
    mean_square: float

    def lower(self, cross_entropy: Tensor) -> Tensor:
        """Return the lower bound of (5) and (6) at each loss; the shape of `cross_entropy`."""
        return math.sqrt(self.classes * self.mean_square / (self.classes - 1)) * _spread(cross_entropy)

    def upper(self, cross_entropy: Tensor) -> Tensor:
        """Return the upper bound of (5) at each loss; the shape of `cross_entropy`."""
        return math.sqrt(2 * self.mean_square) * _spread(cross_entropy)

    def approximation(self, cross_entropy: Tensor) -> Tensor:
        """Return the approximation (7) at each loss; the shape of `cross_entropy`."""
        n, l = self.classes, cross_entropy.double()  # noqa: E741  the paper's letter
        return math.sqrt(self.mean_square) / (n - 1) * -torch.expm1(-l) * (n**2 * torch.exp(-2 * l) + (n - 2)).sqrt()

    def compare(self, values: PointValues) -> "BoundsComparison":
        """Return how the points' Jacobian norms lie to the bounds."""
        low, high, near = (bound(values.cross_entropy) for bound in (self.lower, self.upper, self.approximation))
        inside = (low <= values.label_jacobian_norm) & (values.label_jacobian_norm <= high)
        return BoundsComparison(
            inside=float(inside.double().mean()),
            above=float((values.jacobian_norm >= low).double().mean()),
            ratio=float((values.jacobian_norm / near).nanmedian()),
        )


@dataclass(frozen=True)
class BoundsComparison:
    r"""
    How measured Jacobian norms lie to the bounds.

    Attributes
    ----------
    inside
        The share of points whose $\|J_y\|_2$ is within (5).
    above
        The share of points whose $\|J\|_F$ is at least the lower bound (6).
    ratio
        The median of $\|J\|_F$ over its approximation (7).
    """

    inside: float
    above: float
    ratio: float


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
    if isinstance(model, MLPStack):
        raise InvalidInputError("model must be one network; got an MLPStack: measure its networks one by one, stack[i]")
    if isinstance(model, MLP):
        logits, norms = _of_network(model, x, y, chunk_size)
    else:
        logits, norms = _of_callable(model, x, y, chunk_size)
    y, top = y.long(), logits.max(1)
    return PointValues(
        y,
        torch.where(top.values.isnan(), -1, top.indices),
        logits.softmax(1).amax(1),
        *(loss(name).values(logits.T.unsqueeze(0), y.view(1, 1, -1))[0] for name in ("cross-entropy", "l2")),
        *norms,
    )


def _of_network(network: MLP, x: Tensor, y: Tensor, chunk_size: int | None) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the logits, float64 `[N, C]`, and the three norms, float64 `[N]`, in the order of `PointValues`."""
    check_points(x)
    # Norms are of the type of the points: float32 would end at 1e-45.
    x, y = x.double(), _classes(y, len(x), "y")
    _check_target(y, network.weights[-1].shape[0], "y")
    of_label = jacobian_norm(network, x, target=y, chunk_size=chunk_size)
    of_probabilities, of_logits = (norms[0] for norms in jacobian_norms(as_stack(network), x, chunk_size=chunk_size))
    exact = MLP([weight.double() for weight in network.weights], network.activation)
    with torch.no_grad():
        logits = torch.cat([exact(x[start : start + POINTS]) for start in range(0, len(x), POINTS)])
    return logits, (of_probabilities, of_label, of_logits)


def _of_callable(
    model: Callable[[Tensor], Tensor], x: Tensor, y: Tensor, chunk_size: int | None
) -> tuple[Tensor, Sequence[Tensor]]:
    """Return the same of any other model, from one Jacobian of each point's logits: a backward pass of all points a class."""
    if not callable(model):
        raise InvalidInputError(f"model must be an MLP, a module or another callable; got {type(model).__name__}")
    if isinstance(model, nn.Module):
        check_evaluation_mode(model)
    check_points(x)
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise InvalidInputError(f"chunk_size must be a whole number of at least 1; got {chunk_size!r}")
    # Copies, here and below, as models may work in place on what they are given.
    C = _logits_shape(model, x[:1].clone())[1]
    y = _classes(y, len(x), "y")
    _check_target(y, C, "y")
    size = chunk_size or max(1, min(POINTS, NUMBERS // (C * x[0].numel())))
    parts = []
    for start in range(0, len(x), size):
        J, logits = whole_jacobians(model, x[start : start + size])
        parts.append((logits.double(), *_norms(J.double(), logits.double(), y[start : start + size])))
    whole, *norms = (torch.cat(part) for part in zip(*parts, strict=True))
    return whole, norms


def _norms(J: Tensor, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    r"""
    Return the three norms from the Jacobian of the logits J, float64 `[n, C, D]`, which is overwritten.

    As in `jacobian`: with the differences $Y_j = J_j - J_m$ from the most probable class m, the rows of
    $(\mathrm{diag}(p) - p p^T) J$ are $p_i (Y_i - v)$ with $v = \sum_{j \ne m} p_j Y_j$, and $-p_m v$ for m; the second-largest
    probability t is taken out.
    """
    of_logits = torch.linalg.vector_norm(J, dim=(1, 2))
    p, top = logits.softmax(1), logits.argmax(1).view(-1, 1)
    others = p.scatter(1, top, 0.0)
    t = others.amax(1)
    q = (others / torch.where(t == 0, 1.0, t).unsqueeze(1)).unsqueeze(2)
    at_top = top.unsqueeze(2).expand(-1, 1, J.shape[2])
    Y = J.sub_(J.gather(1, at_top))
    v = (q * Y).sum(1, keepdim=True)
    R = Y.sub_(t.view(-1, 1, 1) * v).mul_(q).scatter_(1, at_top, -p.gather(1, top).unsqueeze(2) * v)
    own = R.gather(1, y.view(-1, 1, 1).expand(-1, 1, J.shape[2]))
    return t * torch.linalg.vector_norm(R, dim=(1, 2)), t * torch.linalg.vector_norm(own, dim=(1, 2)), of_logits


def jacobian_bounds(values: PointValues, classes: int) -> JacobianBounds:
    """
    Return the bounds for a model of so many `classes`, with M from the points that were measured (paper, A.3).

    Raises
    ------
    InvalidInputError
        There are fewer than 2 classes.
    """
    if not isinstance(values, PointValues):
        raise InvalidInputError(f"values must be PointValues, as point_values returns them; got {type(values).__name__}")
    if isinstance(classes, bool) or not isinstance(classes, int) or classes < 2:
        raise InvalidInputError(f"classes must be a whole number of at least 2; got {classes!r}")
    return JacobianBounds(classes, float(values.logit_jacobian_norm.square().mean()) / classes)


def _spread(cross_entropy: Tensor) -> Tensor:
    """Return $e^{-l} (1 - e^{-l})$ in float64."""
    minus = -cross_entropy.double()
    return minus.exp() * -torch.expm1(minus)
