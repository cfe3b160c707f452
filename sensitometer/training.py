"""The training of one stack, from the initial weights to the states of its networks."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .backpropagation import TrainingStack
from .configuration import Configuration
from .data import Dataset
from .errors import InvalidInputError
from .evaluation import accuracy, all_finite, evaluate
from .networks import MLP, MLPStack, initial_weights, layer_shapes
from .randomness import generator

# A check costs a forward pass over the training set, a third of an epoch: every fifth epoch, 7% of the time.
EPOCHS_BETWEEN_CHECKS = 5


@dataclass(frozen=True)
class Schedule:
    """
    What the networks of a survey share in their training.

    Parameters
    ----------
    decay_every_epochs
        The learning rate is multiplied by 0.1 every so many epochs (paper, A.5); None: never.
    stop_at_accuracy
        A network stops when its train accuracy, looked at every fifth epoch, has reached this share; None: never. This is
        ours: the paper trained for a fixed number of steps.
    """

    decay_every_epochs: int | None = 500
    stop_at_accuracy: float | None = None

    def __post_init__(self) -> None:
        decay, stop = self.decay_every_epochs, self.stop_at_accuracy
        if decay is not None and (not isinstance(decay, int) or decay < 1):
            raise InvalidInputError(f"decay_every_epochs must be a whole number of at least 1; got {decay!r}")
        if stop is not None and (not isinstance(stop, int | float) or not 0 < stop <= 1):
            raise InvalidInputError(f"stop_at_accuracy must be a number above 0 and at most 1; got {stop!r}")


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


def training_labels(y: Tensor, classes: int, labels: str, seed: int) -> Tensor:
    """Return the labels `[N]` that a network is trained on: `y` itself, or its uniformly random replacement of that seed."""
    if labels == "true":
        return y
    return torch.randint(classes, y.shape, generator=generator(seed, "labels")).to(y)


def train_stack(
    configurations: Sequence[Configuration],
    dataset: Dataset,
    *,
    schedule: Schedule | None = None,
    device: str | torch.device = "cpu",
) -> list[Trained]:
    """
    Train networks of one shape in one pass.

    Each minibatch is the next `batch_size` points of the epoch's random order; the points left over at the end of an epoch
    are not visited in it (an interpretation: the paper does not say). Orders, initial weights and random labels come from each
    network's own seed, so that a result does not depend, beyond float32 rounding, on the rest of the stack.

    Parameters
    ----------
    configurations
        `S` of them, alike in `Configuration.stack_key`, on `dataset`.
    schedule
        Learning-rate decay and early stopping; the paper's when None.

    Returns
    -------
    list of Trained
        In the order of `configurations`. The state is `fitted` (train accuracy 1), `unfitted`, or `diverged` (a weight or a
        loss that is not finite).

    Raises
    ------
    InvalidInputError
        The configurations cannot be one stack, or a minibatch is larger than the training set.
    """
    _check(configurations, dataset)
    device = torch.device(device)
    x, y = dataset.train.x.to(device), dataset.train.y.to(device)
    run = _Run(configurations, x, y, dataset.classes, schedule or Schedule())
    run.train()
    return _judge(configurations, run, dataset, device)


def _check(configurations: Sequence[Configuration], dataset: Dataset) -> None:
    if not configurations:
        raise InvalidInputError("configurations must hold at least one configuration; got none")
    for configuration in configurations:
        if configuration.stack_key != configurations[0].stack_key:
            raise InvalidInputError("the configurations of a stack may differ in seed, learning_rate, init_scale and labels only")
    batch_size, points = configurations[0].batch_size, len(dataset.train.y)
    if batch_size > points:
        raise InvalidInputError(f"batch_size must be at most the number of training points, {points}; got {batch_size}")


@dataclass
class _Ended:
    """How and when one network left its run, and its weights then."""

    weights: list[Tensor]
    steps_done: int
    seconds: float


def _judge(configurations: Sequence[Configuration], run: "_Run", dataset: Dataset, device: torch.device) -> list[Trained]:
    """Measure the fit of all networks of a finished run, and name their states."""
    ended = [run.ended[index] for index in range(len(configurations))]
    name = configurations[0].activation
    stack = MLPStack([torch.stack(layer) for layer in zip(*(e.weights for e in ended), strict=True)], name)
    train_accuracy, train_loss = evaluate(stack, run.x, run.labels)
    test_accuracy, test_loss = evaluate(stack, dataset.test.x.to(device), dataset.test.y.to(device))
    finite = all_finite(stack.weights).cpu() & train_loss.isfinite() & test_loss.isfinite()
    return [
        Trained(
            configuration=configuration,
            network=MLP(ended[i].weights, name),
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


class _Run:
    """The training of one stack from the first step to the last; networks that stop or diverge leave it on the way."""

    def __init__(self, configurations: Sequence[Configuration], x: Tensor, y: Tensor, classes: int, schedule: Schedule) -> None:
        self.configurations = configurations
        self.schedule = schedule
        self.x = x
        self.labels = torch.stack([training_labels(y, classes, c.labels, c.seed) for c in configurations])
        self.orders = {c.seed: generator(c.seed, "order") for c in configurations}
        self.ended: dict[int, _Ended] = {}
        self.seconds = [0.0] * len(configurations)
        # Networks that share their minibatches lie side by side, and so do seeds with equally many networks.
        shares = {seed: sum(c.seed == seed for c in configurations) for seed in self.orders}
        self.active = sorted(range(len(configurations)), key=lambda i: (shares[configurations[i].seed], configurations[i].seed))
        first = configurations[0]
        shapes = layer_shapes(x.shape[1], first.width, first.depth, classes)
        drawn = [initial_weights(shapes, c.activation, c.init_scale, c.seed) for c in configurations]
        weights = [torch.stack([drawn[i][layer] for i in self.active]).to(x.device) for layer in range(len(shapes))]
        rates = torch.tensor([configurations[i].learning_rate for i in self.active], device=x.device)
        self.stack = TrainingStack(weights, rates, [configurations[i] for i in self.active])

    def train(self) -> None:
        first = self.configurations[0]
        batches, decay = self.x.shape[0] // first.batch_size, self.schedule.decay_every_epochs
        done = epoch = 0
        while done < first.steps and self.active:
            start = time.perf_counter()
            if decay and epoch and epoch % decay == 0:
                self.stack.decay(0.1)
            steps = min(batches, first.steps - done)
            self._epoch(batches, steps)
            done, epoch = done + steps, epoch + 1
            self._charge(time.perf_counter() - start)
            if epoch % EPOCHS_BETWEEN_CHECKS == 0 and done < first.steps:
                self._retire(done)
        self._end(list(range(len(self.active))), done)

    def _epoch(self, batches: int, steps: int) -> None:
        size = self.configurations[0].batch_size
        seeds, points = self.stack.seeds, self.x.shape[0]
        orders = [torch.randperm(points, generator=self.orders[seed])[: batches * size] for seed in seeds]
        order = torch.stack(orders).to(self.x.device)
        indices = order.view(len(seeds), batches, size).transpose(0, 1).reshape(batches, -1)
        counts = torch.tensor(self.stack.counts, device=self.x.device)
        labels = self.labels[self.active].gather(1, order.repeat_interleave(counts, 0))
        labels = labels.view(len(self.active), batches, 1, size).transpose(0, 1).contiguous()
        for index, label in zip(indices[:steps].unbind(), labels[:steps].unbind(), strict=True):
            self.stack.step(self.x, index, label)

    def _charge(self, seconds: float) -> None:
        for index in self.active:
            self.seconds[index] += seconds / len(self.active)

    def _retire(self, done: int) -> None:
        """Take the networks that diverged, or reached the accuracy asked for, out of the stack."""
        start = time.perf_counter()
        leaving = ~all_finite(self.stack.weights).cpu()
        if self.schedule.stop_at_accuracy is not None:
            stack = MLPStack(self.stack.weights, self.configurations[0].activation)
            leaving |= accuracy(stack, self.x, self.labels[self.active]) >= self.schedule.stop_at_accuracy
        self._charge(time.perf_counter() - start)
        if not leaving.any():
            return
        self._end(leaving.nonzero().flatten().tolist(), done)
        staying = (~leaving).nonzero().flatten()
        self.active = [self.active[i] for i in staying.tolist()]
        if self.active:
            self.stack = self.stack.select(staying.to(self.x.device), [self.configurations[i] for i in self.active])

    def _end(self, places: Sequence[int], done: int) -> None:
        for place in places:
            index = self.active[place]
            weights = [layer[place].clone() for layer in self.stack.weights]
            self.ended[index] = _Ended(weights, done, self.seconds[index])
