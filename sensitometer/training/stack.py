"""The training of one stack, from the initial weights to the states of its networks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from ..configuration import Configuration
from ..data import Dataset
from ..errors import InvalidInputError
from ..evaluation import all_finite, evaluate
from ..networks import MLP, MLPStack
from .active_networks import ActiveNetworks, Ended
from .full_batch import FullBatchRun
from .minibatches import MinibatchRun
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
    if not configurations:
        raise InvalidInputError("configurations must hold at least one configuration; got none")
    if any(configuration.stack_key != configurations[0].stack_key for configuration in configurations):
        raise InvalidInputError("the configurations of a stack may differ in seed, learning_rate, init_scale and labels only")
    batch_size, points = configurations[0].batch_size, len(dataset.train.y)
    if batch_size is not None and batch_size > points:
        raise InvalidInputError(f"batch_size must be at most the number of training points, {points}; got {batch_size}")
    networks = ActiveNetworks(configurations, dataset, schedule or Schedule(), saver, torch.device(device))
    # Not kept: what the optimizer holds is freed before the networks are measured.
    (FullBatchRun if configurations[0].full_batch else MinibatchRun)(networks).train()
    trained = _judge(networks, dataset, networks.ended)
    # A network that diverged before the checkpoint already is as it ended.
    steps = networks.schedule.checkpoint_steps or 0
    diverged = {i for i, network in trained.items() if network.state == "diverged"}
    kept = {i: Ended(networks.kept[i], steps, networks.ended[i].seconds) for i in sorted(diverged & networks.kept.keys())}
    trained |= {i: network for i, network in _judge(networks, dataset, kept).items() if network.state != "diverged"}
    return [trained[i] for i in range(len(configurations))]


def _judge(networks: ActiveNetworks, dataset: Dataset, ended: Mapping[int, Ended]) -> dict[int, Trained]:
    """Measure the fit of networks that have ended, by their place in `configurations`, and name their states."""
    if not ended:
        return {}
    places = sorted(ended)
    first = networks.configurations[0]
    layers = zip(*(ended[i].weights for i in places), strict=True)
    stack = MLPStack([torch.stack(layer) for layer in layers], first.activation)
    train_accuracy, train_loss = evaluate(stack, networks.x, networks.labels[places], first.loss)
    test_accuracy, test_loss = evaluate(stack, dataset.test.x.to(networks.x), dataset.test.y.to(networks.labels), first.loss)
    finite = all_finite(stack.weights).cpu() & train_loss.isfinite() & test_loss.isfinite()
    fits = torch.stack([train_accuracy, test_accuracy, train_loss, test_loss], 1).tolist()
    judged = {}
    for i, fit, is_finite in zip(places, fits, finite.tolist(), strict=True):
        state = "diverged" if not is_finite else "fitted" if fit[0] == 1 else "unfitted"
        weights, steps_done, seconds = ended[i]
        judged[i] = Trained(networks.configurations[i], MLP(weights, first.activation), state, steps_done, seconds, *fit)
    return judged
