"""The networks of one stack, from the first step to the end of the last of them."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..configuration import Configuration
from ..data import Dataset
from ..evaluation import accuracy, all_finite
from ..networks import MLPStack, initial_weights, layer_shapes
from ..randomness import generator
from .augmentation import Augmentation
from .saving import Saver, State
from .schedule import Schedule

# A check costs a forward pass over the training set, a third of an epoch: every fifth epoch, 7% of the time.
EPOCHS_BETWEEN_CHECKS = 5


def training_labels(y: Tensor, classes: int, labels: str, seed: int) -> Tensor:
    """Return the labels `[N]` that a network is trained on: `y` itself, or its uniformly random replacement of that seed."""
    if labels == "true":
        return y
    return torch.randint(classes, y.shape, generator=generator(seed, "labels")).to(y)


class Ended(NamedTuple):
    """How one network left its training, and its weights then."""

    weights: list[Tensor]
    steps_done: int
    seconds: float


class ActiveNetworks:
    """
    The networks that a run trains, and which of them are still in training.

    `active` are those still in training, as places in `configurations`, in the order in which they are stacked: networks of one
    seed side by side, and so seeds with equally many networks. `ended` are the others; `kept` are the weights that the
    schedule's `checkpoint_steps` has kept. The training points `x` are `[N, D]`, every network's `labels` `[S, N]`.
    """

    def __init__(
        self,
        configurations: Sequence[Configuration],
        dataset: Dataset,
        schedule: Schedule,
        saver: Saver | None,
        device: torch.device,
    ) -> None:
        first = configurations[0]
        self.configurations, self.schedule, self.saver = configurations, schedule, saver
        self.x, y = dataset.train.x.to(device), dataset.train.y.to(device)
        self.labels = torch.stack([training_labels(y, dataset.classes, c.labels, c.seed) for c in configurations])
        self.shapes = layer_shapes(self.x.shape[1], first.width, first.depth, dataset.classes)
        moved = first.augmentation != "none"
        self.augmentation = Augmentation(first.augmentation, dataset.image_shape, device) if moved else None
        seeds = [c.seed for c in configurations]
        self.active = sorted(range(len(seeds)), key=lambda i: (seeds.count(seeds[i]), seeds[i]))
        self.ended: dict[int, Ended] = {}
        self.kept: dict[int, list[Tensor]] = {}
        self.seconds = [0.0] * len(configurations)
        self._since = time.perf_counter()

    @property
    def active_configurations(self) -> list[Configuration]:
        """The configurations of the active networks, in their order."""
        return [self.configurations[i] for i in self.active]

    def initial_weights(self) -> list[Tensor]:
        """Return the initial weights of the active networks, `L` tensors `[S, fan_out, fan_in]`."""
        drawn = [initial_weights(self.shapes, c.activation, c.init_scale, c.seed) for c in self.active_configurations]
        return [torch.stack(layer).to(self.x.device) for layer in zip(*drawn, strict=True)]

    def charge(self) -> None:
        """Share the time since the last call out among the active networks."""
        if self.x.is_cuda:
            torch.cuda.synchronize(self.x.device)
        now = time.perf_counter()
        for i in self.active:
            self.seconds[i] += (now - self._since) / len(self.active)
        self._since = now

    def reached(self, weights: Sequence[Tensor]) -> Tensor:
        """Return which of the active networks have the accuracy at which they stop, or weights that are not finite; `[S]`."""
        leaving = ~all_finite(weights).cpu()
        if self.schedule.stop_at_accuracy is not None:
            stack = MLPStack(weights, self.configurations[0].activation)
            leaving |= accuracy(stack, self.x, self.labels[self.active]) >= self.schedule.stop_at_accuracy
        return leaving

    def end(self, places: Sequence[int], weights: Sequence[Tensor], done: Sequence[int]) -> list[int]:
        """Let the networks at these places of `active` go, given the weights and steps of all; return the places that stay."""
        self.charge()
        for place in places:
            i = self.active[place]
            self.ended[i] = Ended([layer[place].clone() for layer in weights], done[place], self.seconds[i])
        staying = [place for place in range(len(self.active)) if place not in set(places)]
        self.active = [self.active[place] for place in staying]
        return staying

    def keep(self, weights: Sequence[Tensor]) -> None:
        """Keep the active networks' weights as they are now."""
        self.kept = {i: [layer[place].clone() for layer in weights] for place, i in enumerate(self.active)}

    def state(self) -> State:
        """Return which networks are active, how the others ended, and what was kept."""
        self.charge()
        weights = {f"ended.{i}": ended.weights for i, ended in self.ended.items()}
        weights |= {f"kept.{i}": kept for i, kept in self.kept.items()}
        tensors = {f"{name}.{layer}": weight for name, layers in weights.items() for layer, weight in enumerate(layers)}
        ended = {i: (ended.steps_done, ended.seconds) for i, ended in self.ended.items()}
        return tensors, {"active": self.active, "ended": ended, "kept": list(self.kept), "seconds": self.seconds}

    def load_state(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        # JSON has no whole numbers as keys.
        self.ended = {int(i): Ended(self.weights(tensors, f"ended.{i}"), *how) for i, how in numbers["ended"].items()}
        self.kept = {i: self.weights(tensors, f"kept.{i}") for i in numbers["kept"]}
        self.active, self.seconds = numbers["active"], numbers["seconds"]
        self._since = time.perf_counter()

    def weights(self, tensors: dict[str, Tensor], prefix: str) -> list[Tensor]:
        """Return the weights that were saved under a name."""
        return [tensors[f"{prefix}.{layer}"].to(self.x.device) for layer in range(len(self.shapes))]
