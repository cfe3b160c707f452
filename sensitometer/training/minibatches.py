"""The training of one stack on minibatches."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..randomness import generator
from .active_networks import EPOCHS_BETWEEN_CHECKS, ActiveNetworks
from .backpropagation import TrainingStack
from .cuda_graph import GraphedStep
from .saving import State


class MinibatchRun:
    """
    Epochs of minibatches, drawn for each seed from its own streams; networks that stop or diverge leave on the way.

    Its state can be saved between any two steps: where it is in the epoch, and the streams as they were when the epoch began.
    """

    def __init__(self, networks: ActiveNetworks) -> None:
        self.networks = networks
        configurations = networks.active_configurations
        assert configurations[0].batch_size is not None
        self.size = configurations[0].batch_size
        self.batches = networks.x.shape[0] // self.size
        self.done = self.epoch = self.position = 0
        seeds = {c.seed for c in configurations}
        self.orders = {seed: generator(seed, "order") for seed in seeds}
        self.moves = {seed: generator(seed, "augmentation") for seed in seeds}
        self.at_epoch: dict[str, Tensor] = {}
        rates = torch.tensor([c.learning_rate for c in configurations], device=networks.x.device)
        self._take(TrainingStack(networks.initial_weights(), rates, configurations, networks.augmentation))
        if networks.saver is not None and (saved := networks.saver.load()) is not None:
            self._load_state(*saved)

    def _take(self, stack: TrainingStack) -> None:
        self.stack = stack
        self.step = GraphedStep(stack) if self.networks.x.is_cuda else stack.step

    def train(self) -> None:
        """Train all networks to their end."""
        networks, steps = self.networks, self.networks.configurations[0].steps
        while self.done < steps and networks.active:
            self._epoch(min(self.batches, steps - self.done + self.position))
            self.position, self.epoch = 0, self.epoch + 1
            if self.epoch % EPOCHS_BETWEEN_CHECKS == 0 and self.done < steps:
                self._retire()
        self._end(range(len(networks.active)))

    def _epoch(self, steps: int) -> None:
        """Take the steps of this epoch that are not yet done."""
        networks, stack, x = self.networks, self.stack, self.networks.x
        self._begin_epoch()
        minibatches = self._minibatches()
        for place in range(self.position, steps):
            stack.optimizer.prepare()
            self.step(x, *(tensor[place] for tensor in minibatches))
            self.done, self.position = self.done + 1, place + 1
            if self.done == networks.schedule.checkpoint_steps:
                networks.keep(stack.weights)
            if networks.saver is not None and networks.saver.due():
                networks.saver.save(*self._state())

    def _begin_epoch(self) -> None:
        """Decay the learning rates where it is time, and remember the streams; or put these back, in the midst of an epoch."""
        streams = {f"{kind}.{seed}": getattr(self, kind)[seed] for seed in self.stack.seeds for kind in ("orders", "moves")}
        if self.position:
            for name, stream in streams.items():
                stream.set_state(self.at_epoch[name])
            return
        self.at_epoch = {name: stream.get_state() for name, stream in streams.items()}
        decay = self.networks.schedule.decay_every_epochs
        if decay and self.epoch and self.epoch % decay == 0:
            self.stack.decay(0.1)

    def _minibatches(self) -> list[Tensor]:
        """Return the epoch's points `[batches, U B]`, labels `[batches, S, 1, B]` and moves, if any, `[batches, U B]`."""
        networks, seeds, device = self.networks, self.stack.seeds, self.networks.x.device
        used = self.batches * self.size

        def minibatches(drawn: list[Tensor]) -> Tensor:
            rows = torch.stack(drawn).to(device).view(len(seeds), self.batches, self.size)
            return rows.transpose(0, 1).reshape(self.batches, -1)

        orders = [torch.randperm(networks.x.shape[0], generator=self.orders[seed])[:used] for seed in seeds]
        moves = []
        if networks.augmentation is not None:
            moves = [minibatches([networks.augmentation.draw(used, self.moves[seed]) for seed in seeds])]
        counts = torch.tensor(self.stack.counts, device=device)
        order = torch.stack(orders).to(device).repeat_interleave(counts, 0)
        labels = networks.labels[networks.active].gather(1, order).view(len(order), self.batches, 1, self.size)
        return [minibatches(orders), labels.transpose(0, 1).contiguous(), *moves]

    def _retire(self) -> None:
        """Take the networks that diverged, or reached the accuracy asked for, out of the stack."""
        leaving = self.networks.reached(self.stack.weights)
        if leaving.any() and (staying := self._end(leaving.nonzero().flatten().tolist())):
            places = torch.tensor(staying, device=self.networks.x.device)
            self._take(self.stack.select(places, self.networks.active_configurations))

    def _end(self, places: Sequence[int]) -> list[int]:
        return self.networks.end(places, self.stack.weights, [self.done] * len(self.networks.active))

    def _state(self) -> State:
        tensors, numbers = self.networks.state()
        optimizer = self.stack.optimizer
        tensors |= {f"weights.{layer}": weight for layer, weight in enumerate(self.stack.weights)}
        tensors |= {f"optimizer.{place}": state for place, state in enumerate(optimizer.state())}
        tensors |= {"rates": optimizer.learning_rates, **self.at_epoch}
        return tensors, numbers | {name: getattr(self, name) for name in ("done", "epoch", "position")}

    def _load_state(self, tensors: dict[str, Tensor], numbers: dict[str, int]) -> None:
        networks = self.networks
        networks.load_state(tensors, numbers)
        self.done, self.epoch, self.position = (numbers[name] for name in ("done", "epoch", "position"))
        self.at_epoch = {name: state for name, state in tensors.items() if name.startswith(("orders.", "moves."))}
        weights, rates = networks.weights(tensors, "weights"), tensors["rates"].flatten().to(networks.x.device)
        self._take(TrainingStack(weights, rates, networks.active_configurations, networks.augmentation))
        buffers = len(self.stack.optimizer.state())
        self.stack.optimizer.load_state([tensors[f"optimizer.{place}"] for place in range(buffers)], self.done)
