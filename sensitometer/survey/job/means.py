"""The means over test points of what a survey measures of its trained networks, for the rows (paper, S3)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ...data import Dataset
from ...errors import InvalidInputError
from ...measures import jacobian_norms
from ...measures.loops import loop_transitions
from ...networks import MLPStack, as_stack
from ...training import Trained
from ..scheduling.cost import Measures, TestPoints

# Numbers in the vertices of the loops that networks are taken along in one call, so that these take little memory.
LOOP_NUMBERS = 2**22


def measure_sound(trained: Sequence[Trained], dataset: Dataset, measures: Measures) -> list[dict[str, float]]:
    """Return the means that are measured, by column, for each network of a stack; nothing of a network that diverged."""
    sound = [place for place, result in enumerate(trained) if result.state != "diverged"]
    means: list[dict[str, float]] = [{} for _ in trained]
    if not sound:
        return means
    layers = zip(*(trained[place].network.weights for place in sound), strict=True)
    stack = MLPStack([torch.stack(layer) for layer in layers], trained[0].network.activation)
    columns = mean_jacobian_norms(stack, dataset, measures) | mean_transitions(stack, dataset, measures)
    for name, values in columns.items():
        for place, value in zip(sound, values, strict=True):
            if not math.isnan(value):
                means[place][name] = value
    return means


def mean_jacobian_norms(stack: MLPStack, dataset: Dataset, measures: Measures) -> dict[str, list[float]]:
    """Return the means of the Jacobian norms of `S` networks over test points, by column; nothing if none are asked for."""
    x = _first(dataset, measures.jacobian)
    if not len(x):
        return {}
    probabilities, logits = (norms.mean(1).tolist() for norms in jacobian_norms(stack, x.to(stack.weights[0].device)))
    return {"jacobian_norm": probabilities, "logit_jacobian_norm": logits}


def mean_transitions(stack: MLPStack, dataset: Dataset, measures: Measures) -> dict[str, list[float]]:
    """Return the means of the transitions of `S` networks along the loops of test points; nothing if none are asked for."""
    x = _first(dataset, measures.transitions)
    if not len(x):
        return {}
    at_once = max(1, LOOP_NUMBERS // (dataset.image_shape[2] * x.shape[1]))
    try:
        counts = loop_transitions(stack, x, dataset.image_shape, samples=measures.transition_samples, at_once=at_once)
        means = (counts.sum(1).double() / len(x)).tolist()
    except InvalidInputError:
        # There is no count for a network whose weights are so large that float64 cannot tell its boundaries apart.
        if len(stack) == 1:
            return {"transitions": [math.nan]}
        alone = [mean_transitions(as_stack(stack[place]), dataset, measures) for place in range(len(stack))]
        means = [mean for columns in alone for mean in columns["transitions"]]
    return {"transitions": means}


def _first(dataset: Dataset, points: TestPoints) -> Tensor:
    return dataset.test.x if points == "all" else dataset.test.x[:points]
