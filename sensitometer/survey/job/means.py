"""Measures of the trained networks of a survey: means over test points for their rows (paper, S3), and what is kept as arrays."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...data import Dataset
from ...errors import InvalidInputError, check_whole_number
from ...measures import jacobian_norms
from ...measures.regions.transitions import transitions
from ...networks import MLPStack
from ...paths import translation
from ...training import Trained
from ..scheduling.cost import TRANSITION_SAMPLES, Sizes, loops_at_once


@dataclass(frozen=True)
class Measures:
    """
    At how many test points, from the first, networks are measured; all when None, none when 0.

    Parameters
    ----------
    jacobian_points
        At which the Jacobian norms are taken.
    transition_points
        Along whose translation loops transitions are counted.
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
        """Return what the cost of measuring networks of `dataset` depends on."""
        test = len(dataset.test.y)
        return Sizes(
            inputs=dataset.train.x.shape[1],
            classes=dataset.classes,
            train_points=len(dataset.train.y),
            test_points=test,
            measured_points=len(dataset.test.y[: self.jacobian_points]),
            loops=len(dataset.test.y[: self.transition_points]),
            loop_vertices=dataset.image_shape[2],
            loop_samples=self.transition_samples,
            kept_points=self.kept_points,
            path_bins=self.path_bins,
            slices=self.slices,
        )


def measure_sound(trained: Sequence[Trained], dataset: Dataset, measures: Measures) -> list[dict[str, float]]:
    """Return the means of what is measured, by column, for each network of a stack; nothing of a network that diverged."""
    sound = [place for place, one in enumerate(trained) if one.state != "diverged"]
    found: list[dict[str, float]] = [{} for _ in trained]
    if not sound:
        return found
    layers = zip(*(trained[place].network.weights for place in sound), strict=True)
    stack = MLPStack([torch.stack(layer) for layer in layers], trained[0].network.activation)
    columns = mean_jacobian_norms(stack, dataset, measures) | mean_transitions(stack, dataset, measures)
    for name, values in columns.items():
        for place, value in zip(sound, values, strict=True):
            if not math.isnan(value):
                found[place][name] = value
    return found


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
    try:
        return {"transitions": (_total_transitions(stack, x, dataset, measures) / len(x)).tolist()}
    except InvalidInputError:
        # There is no count for a network whose weights are so large that float64 cannot tell its boundaries apart.
        if len(stack) == 1:
            return {"transitions": [math.nan]}
    alone = [MLPStack([weight[place : place + 1] for weight in stack.weights], stack.activation) for place in range(len(stack))]
    return {"transitions": [mean for one in alone for mean in mean_transitions(one, dataset, measures)["transitions"]]}


def _total_transitions(stack: MLPStack, x: Tensor, dataset: Dataset, measures: Measures) -> Tensor:
    """Return the sums of the transitions along the loops of the points `x`; float64 `[S]`."""
    method = "sampled" if stack.activation == "tanh" else "exact"
    total = torch.zeros(len(stack), dtype=torch.int64)
    at_once = loops_at_once(measures.sizes(dataset))
    for start in range(0, len(x), at_once):
        loops = [translation(image.view(dataset.image_shape)) for image in x[start : start + at_once]]
        total += transitions(stack, loops, method=method, samples=measures.transition_samples).total.sum(1).cpu()
    return total.double()
