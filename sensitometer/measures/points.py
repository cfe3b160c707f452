"""The measures at each point of a set: Jacobian norms, and with labels losses and errors (paper, A.5.6)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..errors import InvalidInputError, counted, described
from ..losses import loss
from ..models.adapting import AdaptedModel, Inputs, unwrapped
from ..networks import MLP, as_stack
from .jacobian.norm import (
    adapted_model,
    check_arguments,
    check_outputs,
    checked_classes,
    ends_in_softmax,
    jacobian_norm,
    jacobian_norms,
)
from .jacobian.pullback import classifier_norms, norms

# The smallest positive number of float32.
SMALLEST = 2.0**-149
# Points of a forward pass.
POINTS = 256


@dataclass(frozen=True, eq=False)
class PointValues:
    r"""
    The measures at each of N points; float64 `[N]` unless said otherwise. None where the model or the labels have no such value.

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
    squared_error
        Mean over the outputs of the squared difference from the targets, for a regression.
    jacobian_norm
        $\|J\|_F$, of the probabilities, or of what `of` says.
    label_jacobian_norm
        $\|J_y\|_2$, of the probability of the true class alone.
    logit_jacobian_norm
        $\|\partial f / \partial x^T\|_F$, of the logits.
    class_logits
        Logits of the classes, `[N, C]`: the model's own; 0 and its only logit; or the logarithms of its probabilities, 2^-149
        for one that was rounded to 0.
    """

    label: Tensor | None
    predicted: Tensor | None
    confidence: Tensor | None
    cross_entropy: Tensor | None
    l2_loss: Tensor | None
    squared_error: Tensor | None
    jacobian_norm: Tensor
    label_jacobian_norm: Tensor | None
    logit_jacobian_norm: Tensor | None
    class_logits: Tensor | None

    def __repr__(self) -> str:
        return f"PointValues({counted(len(self.jacobian_norm), 'point')})"

    @property
    def correct(self) -> Tensor | None:
        """Whether the predicted class is the true one; bool `[N]`."""
        return None if self.predicted is None or self.label is None else self.predicted == self.label


def point_values(
    model: Callable[..., Any],
    x: Tensor,
    y: Tensor | None = None,
    *,
    of: str = "probabilities",
    output: str | int | None = None,
    inputs: Inputs | None = None,
    chunk_size: int | None = None,
) -> PointValues:
    """
    Measure a model at points (paper, A.5.6).

    Parameters
    ----------
    model, x, of, output, inputs, chunk_size
        As in `jacobian_norm`, for a model of one network. The forward pass of an `MLP` is done in float64.
    y
        The classes of the points, whole numbers `[N]`, or for a model of numbers floating-point targets of the outputs' shape;
        None for points without labels.

    Raises
    ------
    InvalidInputError
        An argument is not as above.

    Examples
    --------
    >>> import torch
    >>> values = point_values(torch.nn.Linear(4, 3), torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1]))
    >>> values
    PointValues(5 points)
    >>> values.correct.shape
    torch.Size([5])
    """
    chunk_size = check_arguments(x, of, chunk_size)
    model = unwrapped(model)
    if isinstance(model, MLP) and of == "probabilities":
        check_outputs(of, torch.zeros(1, len(model.weights[-1])))
        labels = _checked_labels(y, len(x), torch.zeros(1, len(model.weights[-1])), of)
        logits, *of_network = _of_network(model, x.double(), labels, chunk_size)
        return _values(labels, logits, None, logits, *of_network)
    adapted = adapted_model(model, x, output=output, inputs=inputs)
    check_outputs(of, adapted.example)
    labels = _checked_labels(y, len(x), adapted.example, of)
    if of == "probabilities":
        of_model = classifier_norms(adapted, x, x.new_zeros(len(x), dtype=torch.int64) if labels is None else labels, chunk_size)
        of_label = None if labels is None else of_model.of_label
        return _values(labels, of_model.logits, None, of_model.logits, of_model.of_probabilities, of_label, of_model.of_logits)
    class_logits, error = _fit(adapted, x, labels, of)
    norm = norms(adapted, x, of, None, chunk_size)
    of_logits = norms(adapted, x, "logits", None, chunk_size) if of == "sigmoid" else norm if of == "logits" else None
    logits = class_logits if of == "logits" else None
    return _values(None if class_logits is None else labels, class_logits, error, logits, norm, None, of_logits)


def _values(
    labels: Tensor | None,
    class_logits: Tensor | None,
    error: Tensor | None,
    logits: Tensor | None,
    norm: Tensor,
    label_norm: Tensor | None,
    logit_norm: Tensor | None,
) -> PointValues:
    """Put the values together: `class_logits` say what is predicted, `logits` are the model's own."""
    predicted = confidence = None
    if class_logits is not None:
        top = class_logits.max(1)
        predicted, confidence = torch.where(top.values.isnan(), -1, top.indices), class_logits.softmax(1).amax(1)

    def of_labels(name: str, values: Tensor | None) -> Tensor | None:
        if labels is None or values is None:
            return None
        return loss(name).values(values.T.unsqueeze(0), labels.view(1, 1, -1))[0]

    losses = of_labels("cross-entropy", class_logits), of_labels("l2", logits)
    return PointValues(labels, predicted, confidence, *losses, error, norm, label_norm, logit_norm, class_logits)


def gives_probabilities(outputs: Tensor) -> bool:
    """Return whether outputs `[n, ...]` are probabilities of classes, or that of the second of two classes."""
    of_two = outputs.shape[1:] == (1,) and bool(((outputs >= 0) & (outputs <= 1)).all())
    return of_two or ends_in_softmax(outputs)


def _checked_labels(y: Tensor | None, points: int, example: Tensor, kind: str) -> Tensor | None:
    """Return the labels, classes `[N]` or targets `[N, K]`, or raise InvalidInputError."""
    if y is None:
        return None
    if isinstance(y, Tensor) and y.is_floating_point():
        targets = y.flatten(1) if y.ndim > 1 else y.unsqueeze(1)
        if kind != "outputs":
            raise InvalidInputError(
                f"y must be whole numbers for of={kind!r}, the classes; got {described(y)}, targets of a regression, "
                "of='outputs': y.long() makes classes of them"
            )
        if targets.shape != (points, example[0].numel()):
            raise InvalidInputError(f"y must be targets [{points}, {example[0].numel()}], one per output; got {described(y)}")
        return targets.double()
    if kind == "outputs" and gives_probabilities(example):
        return checked_classes("y", y, points, max(2, example.shape[1]))
    if kind == "outputs":
        raise InvalidInputError(
            "y must be the floating-point targets of a regression for of='outputs'; got whole numbers: use of='probabilities' "
            "for classes, y.float() for targets, or None"
        )
    classes = example.shape[1] if kind != "sigmoid" else 2
    if kind == "sigmoid" and example.shape[1] > 1:
        raise InvalidInputError(
            f"of='sigmoid' takes the classes of one logit, 0 and 1, and the model gives {example.shape[1]}: use "
            "of='probabilities', or points without labels"
        )
    return checked_classes("y", y, points, classes)


def _of_network(network: MLP, x: Tensor, y: Tensor | None, chunk_size: int | None) -> tuple[Any, ...]:
    """Return the logits, float64 `[N, C]`, and the norms of all probabilities, of the label's, of the logits."""
    # The points are float64, as the norms are: float32 would end at 1e-45.
    of_label = None if y is None else jacobian_norm(network, x, target=y, chunk_size=chunk_size)
    of_probabilities, of_logits = (norm[0] for norm in jacobian_norms(as_stack(network), x, chunk_size=chunk_size))
    exact = MLP([weight.double() for weight in network.weights], network.activation)
    with torch.no_grad():
        logits = torch.cat([exact(points) for points in torch.split(x, POINTS)])
    return logits, of_probabilities, of_label, of_logits


@torch.no_grad()
def _outputs(model: AdaptedModel, x: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the outputs of some points after the other: their place, and outputs `[n, K]`."""
    for start in range(0, len(x), POINTS):
        place = slice(start, start + POINTS)
        yield place, model(model.points(x[place]), place).flatten(1)


def _log_probabilities(outputs: Tensor) -> Tensor:
    """Return the logarithms of probabilities `[n, C]`, or of two classes from that of the second one, `[n, 1]`."""
    p = torch.cat([1 - outputs, outputs], 1) if outputs.shape[1] == 1 else outputs
    # A probability that was rounded to 0 is taken for the smallest float32.
    return p.clamp(min=SMALLEST).log()


def _fit(model: AdaptedModel, x: Tensor, y: Tensor | None, kind: str) -> tuple[Tensor | None, Tensor | None]:
    """Return logits of classes `[N, C]`, or the squared errors `[N]`, float64; None for what a model does not have."""
    if kind == "sigmoid" and model.example.shape[1] == 1:
        return torch.cat([pad(outputs.double(), (1, 0)) for _, outputs in _outputs(model, x)]), None
    if kind == "logits":
        return torch.cat([outputs.double() for _, outputs in _outputs(model, x)]), None
    if ends_in_softmax(model.example) or (model.example.shape[1:] == (1,) and y is not None and not y.is_floating_point()):
        return torch.cat([_log_probabilities(outputs.double()) for _, outputs in _outputs(model, x)]), None
    if y is None or kind == "sigmoid":
        return None, None
    errors = [(outputs.double() - y[place].to(outputs.device)).square().mean(1) for place, outputs in _outputs(model, x)]
    return None, torch.cat(errors)
