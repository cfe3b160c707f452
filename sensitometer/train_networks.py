"""Train and measure a few networks in this process, without a survey's folder."""

from collections.abc import Sequence

from .configuration import Configuration
from .data import Dataset
from .device import check_device
from .errors import InvalidInputError, check_whole_number, dimensions
from .survey.job.train_and_measure import Result, train_and_measure
from .survey.scheduling.cost import TRANSITION_SAMPLES, Measures, Sizes
from .survey.scheduling.stacks import choose_stack_sizes, make_stacks
from .training import Schedule


def train(
    configurations: Sequence[Configuration],
    dataset: Dataset,
    *,
    schedule: Schedule | None = None,
    jacobian_points: int | None = None,
    transition_points: int | None = 0,
    transition_samples: int = TRANSITION_SAMPLES,
    device: str = "cpu",
) -> list[Result]:
    """
    Train and measure networks, as a survey does, in this process and on one thread.

    Networks of one shape are trained together, in stacks; a network's result does not depend, beyond float32 rounding, on what
    else is trained.

    Parameters
    ----------
    configurations
        The networks to train, all on `dataset`.
    schedule
        Learning-rate decay and early stopping; the paper's when None.
    jacobian_points
        Test points at which the Jacobian norms are taken, from the first; all when None, none when 0.
    transition_points
        Test points along whose translation loops transitions are counted (paper, S3), from the first; all when None, none when 0.
    transition_samples
        Points of each loop at which networks of tanh are sampled; their transitions cannot be counted exactly.
    device
        `cpu`, or a CUDA device.

    Returns
    -------
    list of Result
        In the order of `configurations`.

    Raises
    ------
    InvalidInputError
        A configuration names another data set, a minibatch is larger than the training set, the device is not there, the data
        lack training points or classes, or the points are no images, or too narrow ones, for a translation.
    """
    check_device(device)
    if jacobian_points is not None:
        jacobian_points = check_whole_number("jacobian_points", jacobian_points, least=0)
    if transition_points is not None:
        transition_points = check_whole_number("transition_points", transition_points, least=0)
    transition_samples = check_whole_number("transition_samples", transition_samples, least=2)
    _check(configurations, dataset)
    if transition_points != 0 and len(dataset.shape) != 3:
        raise InvalidInputError(
            "transition_points must be 0 for points that are no images [channels, height, width], which have no translation; "
            f"those of {dataset.name} are {dimensions(dataset.shape)}"
        )
    if transition_points != 0 and dataset.image_shape[2] < 2:
        raise InvalidInputError(
            "transition_points must be 0 for images less than 2 pixels wide, which have no translation; "
            f"those of {dataset.name} are {dimensions(dataset.image_shape)}"
        )
    measures = Measures(
        jacobian="all" if jacobian_points is None else jacobian_points,
        transitions="all" if transition_points is None else transition_points,
        transition_samples=transition_samples,
    )
    sizes = Sizes(dataset.train.x.shape[1], dataset.classes, len(dataset.train.y), len(dataset.test.y))
    results: dict[str, Result] = {}
    networks = choose_stack_sizes(configurations, {dataset.name: sizes}, device)
    for stack in make_stacks(configurations, networks):
        for result in train_and_measure(stack, dataset, schedule=schedule, measures=measures, device=device):
            results[result.row["id"]] = result
    return [results[configuration.id] for configuration in configurations]


def _check(configurations: Sequence[Configuration], dataset: Dataset) -> None:
    """Raise InvalidInputError unless all of them are configurations for this data set."""
    if not isinstance(dataset, Dataset):
        raise InvalidInputError(f"dataset must be a Dataset, as load_dataset returns it; got {dataset!r}")
    _check_trainable(dataset)
    if not isinstance(configurations, Sequence):
        raise InvalidInputError(f"configurations must be a list of Configuration; got {configurations!r}")
    for configuration in configurations:
        if not isinstance(configuration, Configuration):
            raise InvalidInputError(f"configurations must be a list of Configuration; got {configuration!r} in it")
        if configuration.dataset != dataset.name:
            raise InvalidInputError(
                f"the data set is {dataset.name}; configuration {configuration.id} is for {configuration.dataset}"
            )


def _check_trainable(dataset: Dataset) -> None:
    """Raise InvalidInputError unless a data set has training and test points with classes."""
    if not len(dataset.train.y):
        raise InvalidInputError(
            f"dataset must have training points; {dataset.name} has 0: give x_train and y_train, train_loader, or a folder train/"
        )
    for name, points in (("training", dataset.train), ("test", dataset.test)):
        if points.y.is_floating_point():
            raise InvalidInputError(
                f"dataset must have classes, whole numbers, to train on; the {name} points of {dataset.name} have floats, "
                "targets of a regression"
            )
        if (points.y < 0).any():
            raise InvalidInputError(f"dataset must have labels to train on; {name} points of {dataset.name} have none")
