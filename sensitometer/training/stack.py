"""The training of one stack, from the initial weights to the states of its networks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..configuration import Configuration
from ..data import Dataset
from ..errors import InvalidInputError
from ..evaluation import all_finite, evaluate
from ..networks import MLP, MLPStack
from .full_batch import FullBatchRun
from .minibatches import MinibatchRun
from .roster import Ended, Roster
from .saving import Saver
from .schedule import Schedule


@dataclass(frozen=True)
class Trained:
    """One network after its training, with the measures of its fit (each a mean over the whole set; paper, A.5)."""

    configuration: Configuration
    network: MLP
    state: str
    steps_done: int
    seconds: float
    train_accuracy: float
    test_accuracy: float
    train_loss: float
    test_loss: float


def train_stack(
    configurations: Sequence[Configuration],
    dataset: Dataset,
    *,
    schedule: Schedule | None = None,
    saver: Saver | None = None,
    device: str | torch.device = "cpu",
) -> list[Trained]:
    """
    Train networks of one shape in one pass.

    Each minibatch is the next `batch_size` points of the epoch's random order; the points left over at the end of an epoch
    are not visited in it (an interpretation: the paper does not say). Orders, initial weights, augmentation and random labels
    come from each network's own seed, so that a result does not depend, beyond float32 rounding, on the rest of the stack.

    Parameters
    ----------
    configurations
        `S` of them, alike in `Configuration.stack_key`, on `dataset`.
    schedule
        Learning-rate decay and early stopping; the paper's when None.
    saver
        Where the state is saved every few minutes. If there is a state, the training goes on from it, to the same bits.

    Returns
    -------
    list of Trained
        In the order of `configurations`. The state is `fitted` (train accuracy 1), `unfitted`, or `diverged` (a weight or a
        loss that is not finite).

    Raises
    ------
    InvalidInputError
        The configurations cannot be one stack, a minibatch is larger than the training set, or images that are not square are to
        be rotated.
    """
    _check(configurations, dataset)
    device = torch.device(device)
    roster = Roster(configurations, dataset, schedule or Schedule(), saver, device)
    # Not kept: what the optimizer holds is freed before the networks are measured.
    (FullBatchRun if configurations[0].full_batch else MinibatchRun)(roster).train()
    ended = [roster.ended[place] for place in range(len(configurations))]
    trained = _judge(configurations, ended, dataset, roster.x, roster.labels)
    diverged = [place for place, one in enumerate(trained) if one.state == "diverged" and place in roster.kept]
    if diverged:
        steps = roster.schedule.checkpoint_steps or 0
        kept = [Ended(roster.kept[place], steps, ended[place].seconds) for place in diverged]
        judged = _judge([configurations[place] for place in diverged], kept, dataset, roster.x, roster.labels[diverged])
        for place, one in zip(diverged, judged, strict=True):
            if one.state != "diverged":  # as it is where it diverged before the checkpoint already
                trained[place] = one
    return trained


def _check(configurations: Sequence[Configuration], dataset: Dataset) -> None:
    if not configurations:
        raise InvalidInputError("configurations must hold at least one configuration; got none")
    for configuration in configurations:
        if configuration.stack_key != configurations[0].stack_key:
            raise InvalidInputError("the configurations of a stack may differ in seed, learning_rate, init_scale and labels only")
    batch_size, points = configurations[0].batch_size, len(dataset.train.y)
    if batch_size is not None and batch_size > points:
        raise InvalidInputError(f"batch_size must be at most the number of training points, {points}; got {batch_size}")


def _judge(
    configurations: Sequence[Configuration], ended: Sequence[Ended], dataset: Dataset, x: Tensor, labels: Tensor
) -> list[Trained]:
    """Measure the fit of networks that have ended, and name their states."""
    first = configurations[0]
    stack = MLPStack([torch.stack(layer) for layer in zip(*(e.weights for e in ended), strict=True)], first.activation)
    train_accuracy, train_loss = evaluate(stack, x, labels, first.loss)
    test_accuracy, test_loss = evaluate(stack, dataset.test.x.to(x), dataset.test.y.to(labels), first.loss)
    finite = all_finite(stack.weights).cpu() & train_loss.isfinite() & test_loss.isfinite()
    return [
        Trained(
            configuration=configuration,
            network=MLP(ended[i].weights, first.activation),
            state="diverged" if not finite[i] else "fitted" if train_accuracy[i] == 1 else "unfitted",
            steps_done=ended[i].steps_done,
            seconds=ended[i].seconds,
            train_accuracy=float(train_accuracy[i]),
            test_accuracy=float(test_accuracy[i]),
            train_loss=float(train_loss[i]),
            test_loss=float(test_loss[i]),
        )
        for i, configuration in enumerate(configurations)
    ]
