"""The measures that a survey takes of its trained networks, and their means over test points, for the rows (paper, S3)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ...data import Dataset
from ...errors import InvalidInputError, check_whole_number
from ...measures import jacobian_norms
from ...measures.loops import loop_transitions
from ...networks import MLPStack, as_stack
from ...training import Trained
from ..scheduling.cost import TRANSITION_SAMPLES, Sizes, loops_at_once


@dataclass(frozen=True)
class Measures:
    """
    The measures that a survey takes.

    Parameters
    ----------
    jacobian_points, transition_points
        The number of test points, from the first, at which the Jacobian norms are taken, and along whose translation loops
        transitions are counted; all when None, none when 0.
    transition_samples
        Points of each path at which networks of tanh are sampled.
    kept_points, path_bins, slices
        The arrays that are kept: the measures of N random test points; sensitivity along ellipses in N bins of angle;
        whether boundaries on a slice.

    Raises
    ------
    InvalidInputError
        A number is not a whole one, or too small.
    """

    jacobian_points: int | None = None
    transition_points: int | None = 0
    transition_samples: int = TRANSITION_SAMPLES
    kept_points: int = 0
    path_bins: int = 0
    slices: bool = False

    def __post_init__(self) -> None:
        for name in ("jacobian_points", "transition_points"):
            if getattr(self, name) is not None:
                check_whole_number(name, getattr(self, name), least=0)
        check_whole_number("transition_samples", self.transition_samples, least=2)

    def check(self, dataset: Dataset) -> None:
        """Raise InvalidInputError if transitions are asked for and the images are too narrow for a translation."""
        if self.transition_points != 0 and dataset.image_shape[2] < 2:
            expected = "transition_points must be 0 for images less than 2 pixels wide, which have no translation"
            raise InvalidInputError(f"{expected}; those of {dataset.name} are {' x '.join(map(str, dataset.image_shape))}")

    def sizes(self, dataset: Dataset) -> Sizes:
        """Return the sizes that decide the cost of measuring networks of `dataset`."""
        return Sizes(
            inputs=dataset.train.x.shape[1],
            classes=dataset.classes,
            train_points=len(dataset.train.y),
            test_points=len(dataset.test.y),
            measured_points=len(dataset.test.y[: self.jacobian_points]),
            loops=len(dataset.test.y[: self.transition_points]),
            loop_vertices=dataset.image_shape[2],
            loop_samples=self.transition_samples,
            kept_points=self.kept_points,
            path_bins=self.path_bins,
            slices=self.slices,
        )


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
    x = dataset.test.x[: measures.jacobian_points]
    if not len(x):
        return {}
    probabilities, logits = (norms.mean(1).tolist() for norms in jacobian_norms(stack, x.to(stack.weights[0].device)))
    return {"jacobian_norm": probabilities, "logit_jacobian_norm": logits}


def mean_transitions(stack: MLPStack, dataset: Dataset, measures: Measures) -> dict[str, list[float]]:
    """Return the means of the transitions of `S` networks along the loops of test points; nothing if none are asked for."""
    x = dataset.test.x[: measures.transition_points]
    if not len(x):
        return {}
    at_once = loops_at_once(measures.sizes(dataset))
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
