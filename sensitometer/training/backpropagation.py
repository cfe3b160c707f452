"""
The pass that the engine repeats: a stack of networks forward and backward on one minibatch, and the step made of it.

Inside, activations and error signals are `[S, W, B]`, units before points. The first layer of all networks that see the same
minibatch is then a single product, `[g W, D] x [D, B]`, and every elementwise pass runs along the points. All buffers are
allocated once; products write into them.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..activations import activation
from ..configuration import Configuration
from ..losses import loss
from ..optimizers import MINIBATCH_OPTIMIZERS, views
from .augmentation import Augmentation


class _Block(NamedTuple):
    """Consecutive minibatches that `g` networks each share: the first layers of these networks are one batched product."""

    weights: Tensor  # [U, g W, D], a view of the first layer
    inputs: Tensor  # [U, B, D], a view of the minibatches
    outputs: Tensor  # [U, g W, B], a view of the first activations
    delta: Tensor  # [U, g W, B], a view of the first error signals
    into: Tensor  # [U, g W, D], a view of what the first layer's gradient is added to


class Backpropagation:
    r"""
    The buffers of a stack for minibatches of one size, and the passes through them.

    A pass reads the `weights`, `L` tensors `[S, fan_out, fan_in]`, and changes `into`, tensors of the same shapes, which may be
    the weights: `into[l] <- beta * into[l] + alpha * delta_l h_{l-1}^T`. The `shares` are the numbers of networks, side by side,
    that see each of the `U` minibatches; their sum is `S`. Fill `inputs` `[U, B, D]` before `forward`, which makes the `logits`
    `[S, C, B]`.
    """

    def __init__(
        self,
        weights: Sequence[Tensor],
        into: Sequence[Tensor],
        configuration: Configuration,
        shares: Sequence[int],
        batch_size: int,
        *,
        beta: float,
        alpha: float,
    ) -> None:
        self.weights, self.into, self.shares = weights, into, shares
        self.beta, self.alpha = beta, alpha
        self.activation = activation(configuration.activation)
        self.loss = loss(configuration.loss)
        B, S = batch_size, weights[0].shape[0]
        new = weights[0].new_empty
        self.inputs = new(len(shares), B, weights[0].shape[2])
        self.hidden = [new(S, weight.shape[1], B) for weight in weights]
        self.logits = self.hidden[-1]
        # Two error signals are alive at a time: the one of a layer and the one below it.
        pair = [new(max(h.numel() for h in self.hidden)) for _ in range(2)]
        self.deltas = [pair[i % 2][: h.numel()].view(h.shape) for i, h in enumerate(self.hidden)]
        self.minus_one = new(S, 1, B).fill_(-1.0)
        self.transposed = [weight.transpose(1, 2) for weight in weights]
        self.hidden_transposed = [h.transpose(1, 2) for h in self.hidden]
        self.blocks = list(self._blocks())

    def _blocks(self) -> Iterator[_Block]:
        minibatch = network = 0
        for g, equal in itertools.groupby(self.shares):
            U = len(list(equal))
            first = slice(network, network + U * g)
            layers = (self.weights[0], self.hidden[0], self.deltas[0], self.into[0])
            weights, outputs, delta, into = (tensor[first].view(U, -1, tensor.shape[2]) for tensor in layers)
            yield _Block(weights, self.inputs[minibatch : minibatch + U], outputs, delta, into)
            minibatch, network = minibatch + U, network + U * g

    def forward(self) -> None:
        """Compute the logits of the minibatches in `inputs`."""
        for block in self.blocks:
            torch.bmm(block.weights, block.inputs.transpose(1, 2), out=block.outputs)
        for weight, below, h in zip(self.weights[1:], self.hidden, self.hidden[1:], strict=False):
            self.activation.apply_(below)
            torch.bmm(weight, below, out=h)

    def backward(self, labels: Tensor, scale: Tensor) -> None:
        r"""
        Add the weights' gradients to `into`, the labels being `[S, 1, B]` and `scale` what the error signal is multiplied by.

        $\delta_L = \frac{\partial \ell}{\partial f} \, \mathrm{scale}$,
        $\delta_{l-1} = W_l^T \delta_l \odot \phi'(z_{l-1})$, $\nabla W_l = \delta_l h_{l-1}^T$.
        """
        top = self.deltas[-1]
        self.loss.outputs_(self.logits, top)
        top.scatter_add_(1, labels, self.minus_one)
        top.mul_(scale)
        for layer in range(len(self.weights) - 1, 0, -1):
            delta, below = self.deltas[layer], self.deltas[layer - 1]
            torch.bmm(self.transposed[layer], delta, out=below)
            self.activation.backward_(below, self.hidden[layer - 1])
            # After the product above, which needs the weights as they were: the optimizer may update them in place.
            self.into[layer].baddbmm_(delta, self.hidden_transposed[layer - 1], beta=self.beta, alpha=self.alpha)
        for block in self.blocks:
            block.into.baddbmm_(block.delta, block.inputs, beta=self.beta, alpha=self.alpha)


class TrainingStack:
    """The weights, optimizer and buffers of the networks still in training, and their step on a minibatch for each seed."""

    def __init__(
        self,
        weights: Sequence[Tensor],
        learning_rates: Tensor,
        configurations: Sequence[Configuration],
        augmentation: Augmentation | None = None,
    ) -> None:
        first = configurations[0]
        assert first.batch_size is not None
        flat = torch.cat([weight.flatten() for weight in weights])
        self.weights = views(flat, [weight.shape for weight in weights])
        self.optimizer = optimizer = MINIBATCH_OPTIMIZERS[first.optimizer](flat, self.weights, learning_rates)
        self.augmentation = augmentation
        self.batch_size = B = first.batch_size
        networks = Counter(c.seed for c in configurations)
        self.seeds, self.counts = list(networks), list(networks.values())
        self.scale = optimizer.delta_scale(B)
        self.pass_ = Backpropagation(
            self.weights, optimizer.into, first, self.counts, B, beta=optimizer.beta, alpha=optimizer.alpha
        )
        self.gathered = self.pass_.inputs.flatten(0, 1)
        self.unmoved = torch.empty_like(self.gathered) if augmentation else self.gathered

    def select(self, staying: Tensor, configurations: Sequence[Configuration]) -> "TrainingStack":
        """Return the stack of the networks at `staying` `[S']`, whose configurations are given."""
        weights = [weight[staying] for weight in self.weights]
        rates = self.optimizer.learning_rates.flatten()[staying]
        new = TrainingStack(weights, rates, configurations, self.augmentation)
        # One by one: a copy of the whole state would count among the memory of the widest networks.
        new.optimizer.load_state((state[staying] for state in self.optimizer.state()), self.optimizer.steps)
        return new

    def decay(self, factor: float) -> None:
        """Multiply every learning rate by `factor`."""
        self.optimizer.decay(factor)
        # In place: a CUDA graph reads the tensor that it was captured with.
        self.scale.copy_(self.optimizer.delta_scale(self.batch_size))

    def step(self, x: Tensor, index: Tensor, labels: Tensor, moves: Tensor | None = None) -> None:
        """
        Train on one minibatch for each of the `U` seeds, after `optimizer.prepare()`.

        The minibatches are the points `index` `[U B]` of `x` `[N, D]`, with `labels` `[S, 1, B]`, and, where there is
        augmentation, the `moves` `[U B]`.
        """
        torch.index_select(x, 0, index, out=self.unmoved)
        if self.augmentation is not None:
            assert moves is not None
            self.augmentation.apply(self.unmoved, moves, out=self.gathered)
        self.pass_.forward()
        self.pass_.backward(labels, self.scale)
        self.optimizer.step()
