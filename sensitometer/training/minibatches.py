"""The training of one stack on minibatches."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..randomness import generator
from .backpropagation import TrainingStack
from .cuda_graph import GraphedStep
from .roster import EPOCHS_BETWEEN_CHECKS, Roster
from .saving import State

Step = Callable[[Tensor, Tensor, Tensor, Tensor | None], None]


class MinibatchRun:
    """
    Epochs of minibatches, drawn for each seed from its own streams; networks that stop or diverge leave on the way.

    Its state can be saved between any two steps: where it is in the epoch, and the streams as they were when the epoch began.
    """

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        chosen = [roster.configurations[i] for i in roster.active]
        assert chosen[0].batch_size is not None
        self.size = chosen[0].batch_size
        self.batches = roster.x.shape[0] // self.size
        self.done = self.epoch = self.position = 0
        seeds = {c.seed for c in chosen}
        self.orders = {seed: generator(seed, "order") for seed in seeds}
        self.moves = {seed: generator(seed, "augmentation") for seed in seeds}
        self.at_epoch: dict[str, Tensor] = {}
        rates = torch.tensor([c.learning_rate for c in chosen], device=roster.x.device)
        self._take(TrainingStack(roster.initial_weights(), rates, chosen, roster.augmentation))
        if roster.saver is not None and (saved := roster.saver.load()) is not None:
            self._load_state(*saved)

    def _take(self, stack: TrainingStack) -> None:
        self.stack = stack
        self.step: Step = GraphedStep(stack) if self.roster.x.is_cuda else stack.step

    def train(self) -> None:
        """Train all networks to their end."""
        roster, steps = self.roster, self.roster.configurations[0].steps
        while self.done < steps and roster.active:
            self._epoch(min(self.batches, steps - self.done + self.position))
            self.position, self.epoch = 0, self.epoch + 1
            if self.epoch % EPOCHS_BETWEEN_CHECKS == 0 and self.done < steps:
                self._retire()
        self._end(list(range(len(roster.active))))

    def _epoch(self, steps: int) -> None:
        """Take the steps of this epoch that are not yet done."""
        roster, stack, x = self.roster, self.stack, self.roster.x
        self._begin_epoch()
        index, labels, moves = self._minibatches()
        for place in range(self.position, steps):
            stack.prepare()
            self.step(x, index[place], labels[place], None if moves is None else moves[place])
            self.done, self.position = self.done + 1, place + 1
            if self.done == roster.schedule.checkpoint_steps:
                roster.keep(stack.weights)
            if roster.saver is not None and roster.saver.due():
                roster.saver.save(*self._state())

    def _begin_epoch(self) -> None:
        """Decay the learning rates where it is time, and remember the streams; or put these back, in the midst of an epoch."""
        streams = {f"{kind}.{seed}": getattr(self, kind)[seed] for seed in self.stack.seeds for kind in ("orders", "moves")}
        if self.position:
            for name, stream in streams.items():
                stream.set_state(self.at_epoch[name])
            return
        self.at_epoch = {name: stream.get_state() for name, stream in streams.items()}
        decay = self.roster.schedule.decay_every_epochs
        if decay and self.epoch and self.epoch % decay == 0:
            self.stack.decay(0.1)

    def _minibatches(self) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the epoch's points `[batches, U B]`, labels `[batches, S, 1, B]` and moves `[batches, U B]`."""
        roster, seeds, device = self.roster, self.stack.seeds, self.roster.x.device
        used = self.batches * self.size

        def minibatches(drawn: list[Tensor]) -> Tensor:
            rows = torch.stack(drawn).to(device).view(len(seeds), self.batches, self.size)
            return rows.transpose(0, 1).reshape(self.batches, -1)

        orders = [torch.randperm(roster.x.shape[0], generator=self.orders[seed])[:used] for seed in seeds]
        moves = None
        if roster.augmentation is not None:
            moves = minibatches([roster.augmentation.draw(used, self.moves[seed]) for seed in seeds])
        counts = torch.tensor(self.stack.counts, device=device)
        order = torch.stack(orders).to(device).repeat_interleave(counts, 0)
        labels = roster.labels[roster.active].gather(1, order).view(len(order), self.batches, 1, self.size)
        return minibatches(orders), labels.transpose(0, 1).contiguous(), moves

    def _retire(self) -> None:
        """Take the networks that diverged, or reached the accuracy asked for, out of the stack."""
        roster = self.roster
        leaving = roster.reached(self.stack.weights)
        if not leaving.any():
            return
        staying = self._end(leaving.nonzero().flatten().tolist())
        if staying:
            chosen = [roster.configurations[i] for i in roster.active]
            self._take(self.stack.select(torch.tensor(staying, device=roster.x.device), chosen))

    def _end(self, places: list[int]) -> list[int]:
        weights = self.stack.weights
        return self.roster.end(places, lambda place: [layer[place] for layer in weights], lambda _: self.done)

    def _state(self) -> State:
        tensors, numbers = self.roster.state()
        optimizer = self.stack.optimizer
        tensors |= {f"weights.{layer}": weight for layer, weight in enumerate(self.stack.weights)}
        tensors |= {f"optimizer.{place}": state for place, state in enumerate(optimizer.state())}
        tensors |= {"rates": optimizer.learning_rates, **self.at_epoch}
        return tensors, numbers | {name: getattr(self, name) for name in ("done", "epoch", "position")}

    def _load_state(self, tensors: dict[str, Tensor], numbers: dict[str, int]) -> None:
        roster = self.roster
        roster.load_state(tensors, numbers)
        self.done, self.epoch, self.position = (numbers[name] for name in ("done", "epoch", "position"))
        self.at_epoch = {name: state for name, state in tensors.items() if name.startswith(("orders.", "moves."))}
        chosen = [roster.configurations[i] for i in roster.active]
        weights = [tensors[f"weights.{layer}"].to(roster.x.device) for layer in range(len(roster.shapes))]
        rates = tensors["rates"].flatten().to(roster.x.device)
        stack = TrainingStack(weights, rates, chosen, roster.augmentation)
        stack.optimizer.steps = self.done
        for place, state in enumerate(stack.optimizer.state()):
            state.copy_(tensors[f"optimizer.{place}"])
        self._take(stack)
