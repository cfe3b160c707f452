"""
The step that the engine repeats: a stack of networks forward, backward and updated on one minibatch.

Inside, activations and error signals are `[S, W, B]`, units before points. The first layer of all networks that see the same
minibatch (those of one seed) is then a single product, `[g W, D] x [D, B]`, and every elementwise pass runs along the points.
All buffers are allocated once; products write into them.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .activations import activation
from .configuration import Configuration
from .optimizers import optimizer_class


@dataclass(frozen=True)
class _Block:
    """Consecutive seeds with `g` networks each: their first layers are one batched product."""

    weights: Tensor  # [U, g W, D], a view of the first layer
    inputs: Tensor  # [U, B, D], a view of the minibatches
    outputs: Tensor  # [U, g W, B], a view of the first activations
    delta: Tensor  # [U, g W, B], a view of the first error signals
    into: Tensor  # [U, g W, D], a view of the optimizer's buffer for the first layer


class TrainingStack:
    """The weights, optimizer and buffers of the networks still in training, and the step itself."""

    def __init__(self, weights: Sequence[Tensor], learning_rates: Tensor, configurations: Sequence[Configuration]) -> None:
        first = configurations[0]
        self.flat = torch.cat([weight.flatten() for weight in weights])
        parts = torch.split(self.flat, [weight.numel() for weight in weights])
        self.weights = [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]
        self.optimizer = optimizer_class(first.optimizer)(self.flat, self.weights, learning_rates)
        self.activation = activation(first.activation)
        self.batch_size = first.batch_size
        self.seeds = list(dict.fromkeys(c.seed for c in configurations))
        self.counts = [sum(c.seed == seed for c in configurations) for seed in self.seeds]
        self._allocate()

    def _allocate(self) -> None:
        B, S = self.batch_size, self.weights[0].shape[0]
        new = self.flat.new_empty
        self.inputs = new(len(self.seeds), B, self.weights[0].shape[2])
        self.gathered = self.inputs.flatten(0, 1)
        self.hidden = [new(S, weight.shape[1], B) for weight in self.weights]
        # Two error signals are alive at a time: the one of a layer and the one below it.
        widest = max(weight.shape[1] for weight in self.weights)
        pair = [new(S * widest * B) for _ in range(2)]
        self.deltas = [pair[i % 2][: h.numel()].view(h.shape) for i, h in enumerate(self.hidden)]
        self.minus_one = new(S, 1, B).fill_(-1.0)
        self.transposed = [weight.transpose(1, 2) for weight in self.weights]
        self.hidden_transposed = [h.transpose(1, 2) for h in self.hidden]
        self.scale = self.optimizer.delta_scale(B)
        self.blocks = list(self._blocks())

    def _blocks(self) -> Iterator[_Block]:
        seed = network = 0
        for g, equal in itertools.groupby(self.counts):
            U = len(list(equal))
            first = slice(network, network + U * g)
            layers = (self.weights[0], self.hidden[0], self.deltas[0], self.optimizer.into[0])
            weights, outputs, delta, into = (tensor[first].view(U, -1, tensor.shape[2]) for tensor in layers)
            yield _Block(weights, self.inputs[seed : seed + U], outputs, delta, into)
            seed, network = seed + U, network + U * g

    def select(self, staying: Tensor, configurations: Sequence[Configuration]) -> "TrainingStack":
        """Return the stack of the networks at `staying` `[S']`, whose configurations are given."""
        weights = [weight[staying] for weight in self.weights]
        rates = self.optimizer.learning_rates.flatten()[staying]
        new = TrainingStack(weights, rates, configurations)
        for old, state in zip(self.optimizer.state(), new.optimizer.state(), strict=True):
            state.copy_(old[staying])
        return new

    def decay(self, factor: float) -> None:
        """Multiply every learning rate by `factor`."""
        self.optimizer.decay(factor)
        self.scale = self.optimizer.delta_scale(self.batch_size)

    def step(self, x: Tensor, index: Tensor, labels: Tensor) -> None:
        r"""
        Train on one minibatch: `index` `[U B]` picks points of `x` `[N, D]`, `labels` is `[S, 1, B]`.

        $\delta_L = (\mathrm{softmax}(f) - \mathrm{onehot}(y)) \, \mathrm{scale}$,
        $\delta_{l-1} = W_l^T \delta_l \odot \phi'(z_{l-1})$, $\nabla W_l = \delta_l h_{l-1}^T$.
        """
        torch.index_select(x, 0, index, out=self.gathered)
        self._forward()
        delta = self.deltas[-1]
        torch._softmax(self.hidden[-1], 1, False, out=delta)
        delta.scatter_add_(1, labels, self.minus_one)
        delta.mul_(self.scale)
        self._backward()
        self.optimizer.step()

    def _forward(self) -> None:
        for block in self.blocks:
            torch.bmm(block.weights, block.inputs.transpose(1, 2), out=block.outputs)
        for weight, below, h in zip(self.weights[1:], self.hidden, self.hidden[1:], strict=False):
            self.activation.apply_(below)
            torch.bmm(weight, below, out=h)

    def _backward(self) -> None:
        optimizer = self.optimizer
        beta, alpha = optimizer.beta, optimizer.alpha
        for layer in range(len(self.weights) - 1, 0, -1):
            delta, below = self.deltas[layer], self.deltas[layer - 1]
            torch.bmm(self.transposed[layer], delta, out=below)
            self.activation.backward_(below, self.hidden[layer - 1])
            # After the product above, which needs the weights as they were: the optimizer may update them in place.
            optimizer.into[layer].baddbmm_(delta, self.hidden_transposed[layer - 1], beta=beta, alpha=alpha)
        for block in self.blocks:
            block.into.baddbmm_(block.delta, block.inputs, beta=beta, alpha=alpha)
