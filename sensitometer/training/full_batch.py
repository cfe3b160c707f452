"""The training of one stack by L-BFGS, on the whole training set at once."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ..configuration import Configuration
from ..optimizers import LBFGS, views
from ..randomness import generator
from .active_networks import EPOCHS_BETWEEN_CHECKS, ActiveNetworks
from .augmentation import Augmentation
from .backpropagation import Backpropagation
from .saving import State

# Activations of a chunk of points, in numbers: larger ones leave the cache.
CHUNK = 2**17


class Objective:
    """
    The mean loss over the training set, and its gradient, of `S` networks at once, a chunk of points at a time.

    Without augmentation all networks see the same points, and their first layers are one product.
    """

    def __init__(
        self,
        configuration: Configuration,
        S: int,
        shapes: Sequence[tuple[int, int]],
        x: Tensor,
        augmentation: Augmentation | None,
    ) -> None:
        N = len(x)
        self.x, self.augmentation, self.shapes = x, augmentation, shapes
        self.layers, self.gradients = ([x.new_empty(S, *shape) for shape in shapes] for _ in range(2))
        size = min(N, max(256, min(1024, CHUNK // (S * configuration.width))))
        shares = (S,) if augmentation is None else (1,) * S
        self.pass_ = Backpropagation(self.layers, self.gradients, configuration, shares, size, beta=1.0, alpha=1.0)
        self.chunks = []
        for start in range(0, N, size):
            # The last chunk is filled up with points whose error signals are multiplied by 0.
            places = torch.arange(start, start + size, device=x.device)
            scale = (places < N).to(x) / N
            self.chunks.append((places.clamp(max=N - 1), scale.view(1, 1, -1), min(size, N - start)))

    def __call__(self, points: Tensor, labels: Tensor, moves: Tensor | None) -> tuple[Tensor, Tensor]:
        """
        Return the losses `[S]`, float64, and their gradients `[S, P]`.

        `points` `[S, P]` are the weights, `labels` `[S, N]`; `moves` `[S, N]`, where there is augmentation.
        """
        for layer, weights in zip(self.layers, views(points, self.shapes), strict=True):
            layer.copy_(weights)
        for gradient in self.gradients:
            gradient.zero_()
        losses = points.new_zeros(len(points), dtype=torch.float64)
        for places, scale, count in self.chunks:
            inputs = self.pass_.inputs
            if self.augmentation is None:
                torch.index_select(self.x, 0, places, out=inputs[0])
            else:
                assert moves is not None
                images = self.x.index_select(0, places).expand(len(inputs), -1, -1).flatten(0, 1)
                self.augmentation.apply(images, moves[:, places].flatten(), out=inputs.flatten(0, 1))
            self.pass_.forward()
            chunk = labels[:, places].unsqueeze(1)
            losses += self.pass_.loss.values(self.pass_.logits.double(), chunk)[:, :count].sum(1)
            self.pass_.backward(chunk, scale)
        return losses / self.x.shape[0], torch.cat([layer.flatten(1) for layer in self.gradients], 1)


class FullBatchRun:
    """
    Rounds of one evaluation for every network; networks that are finished, stop or diverge leave on the way.

    With augmentation, a network's images are moved anew for each of its iterations, from a stream of its own, and stay as they
    are during its line search (an interpretation: a loss that changes from one trial to the next cannot be searched).
    """

    def __init__(self, networks: ActiveNetworks) -> None:
        self.networks = networks
        configurations, device = networks.active_configurations, networks.x.device
        points = torch.cat([layer.flatten(1) for layer in networks.initial_weights()], 1)
        saved = networks.saver.load() if networks.saver is not None else None
        # A saved history replaces this one: both together would take twice the memory of the widest networks.
        begun = points if saved is None else points[:0]
        self.optimizer = LBFGS(begun, configurations[0].steps, renewed=networks.augmentation is not None)
        self.rounds = 0
        self.streams = {i: generator(c.seed, "augmentation") for i, c in zip(networks.active, configurations, strict=True)}
        self.moves = None
        if networks.augmentation is not None:
            self.moves = torch.zeros(len(points), networks.x.shape[0], dtype=torch.int64, device=device)
        if saved is not None:
            self._load_state(*saved)
        self._take()

    def _take(self) -> None:
        """Make the objective of the active networks."""
        networks = self.networks
        first, active = networks.configurations[0], len(networks.active)
        self.objective = Objective(first, active, networks.shapes, networks.x, networks.augmentation)

    def train(self) -> None:
        """Train all networks to their end."""
        networks = self.networks
        while networks.active:
            if not all(self.optimizer.finished):
                self._round()
            self._retire()
            if networks.active and networks.saver is not None and networks.saver.due():
                networks.saver.save(*self._state())

    def _round(self) -> None:
        networks = self.networks
        if self.moves is not None and networks.augmentation is not None:
            for place, i in enumerate(networks.active):
                if self.optimizer.begun[place]:
                    self.moves[place] = networks.augmentation.draw(self.moves.shape[1], self.streams[i])
        labels = networks.labels[networks.active]
        self.optimizer.tell(*self.objective(self.optimizer.trials, labels, self.moves))
        self.rounds += 1

    def _retire(self) -> None:
        """Take the networks that are finished, diverged, or reached the accuracy asked for, out of the stack."""
        networks, optimizer = self.networks, self.optimizer
        leaving = torch.tensor(optimizer.finished)
        if self.rounds % EPOCHS_BETWEEN_CHECKS == 0 and not leaving.all():
            leaving |= networks.reached(views(optimizer.points, networks.shapes))
        if not leaving.any():
            return
        places = leaving.nonzero().flatten().tolist()
        if staying := networks.end(places, views(optimizer.points, networks.shapes), optimizer.done):
            optimizer.select(staying)
            self.moves = None if self.moves is None else self.moves[staying]
            self._take()

    def _state(self) -> State:
        tensors, numbers = self.networks.state()
        vectors, counts = self.optimizer.state()
        tensors |= {f"lbfgs.{name}": tensor for name, tensor in vectors.items()}
        tensors |= {f"stream.{i}": self.streams[i].get_state() for i in self.networks.active}
        if self.moves is not None:
            tensors["moves"] = self.moves
        return tensors, numbers | {"lbfgs": counts, "rounds": self.rounds}

    def _load_state(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        self.networks.load_state(tensors, numbers)
        vectors = {name.removeprefix("lbfgs."): tensor for name, tensor in tensors.items() if name.startswith("lbfgs.")}
        self.optimizer.load_state(vectors, numbers["lbfgs"])
        self.rounds = numbers["rounds"]
        for i in self.networks.active:
            self.streams[i].set_state(tensors[f"stream.{i}"])
        if self.moves is not None:
            self.moves = tensors["moves"].to(self.moves.device)
