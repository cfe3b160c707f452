"""Fully connected networks without biases (paper, S3): one (`MLP`) or many of one shape (`MLPStack`)."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .activations import activation
from .errors import InvalidInputError, StoreError
from .files import replacing
from .randomness import generator


def layer_shapes(inputs: int, width: int, depth: int, classes: int) -> list[tuple[int, int]]:
    """Return (fan_out, fan_in) of each of the `depth` weight matrices."""
    sizes = [inputs, *[width] * (depth - 1), classes]
    return [(fan_out, fan_in) for fan_in, fan_out in itertools.pairwise(sizes)]


def initial_weights(shapes: Sequence[tuple[int, int]], name: str, scale: float, seed: int) -> list[Tensor]:
    """
    Draw the weights of one network: N(0, gain / fan_in), the standard deviation multiplied by `scale` (paper, A.5, A.5.5).

    Returns one float32 tensor `[fan_out, fan_in]` a layer. Networks of one seed and one shape start from the same draw,
    whatever their activation and scale: pairs that differ in one setting start alike.
    """
    stream = generator(seed, "weights")
    gain = activation(name).initial_gain
    return [torch.randn(shape, generator=stream).mul_(scale * math.sqrt(gain / shape[1])) for shape in shapes]


@dataclass(frozen=True, eq=False)
class MLP:
    """
    A fully connected network: `L` weight matrices, an activation after each but the last, no biases.

    Parameters
    ----------
    weights
        `L` tensors `[fan_out, fan_in]`, float32 or float64, first layer first.
    activation
        One of `relu`, `relu6`, `tanh`, `hardtanh`, `hardsigmoid`.

    Raises
    ------
    InvalidInputError
        The shapes do not follow on one another, or the activation is unknown.
    """

    weights: Sequence[Tensor]
    activation: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _checked(self.weights, ndim=2))
        activation(self.activation)

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits `[N, C]` of the points `x` `[N, D]`."""
        _check_points(x, self.weights[0])
        apply_ = activation(self.activation).apply_
        h = x
        for weight in self.weights[:-1]:
            h = apply_(h @ weight.T)
        return h @ self.weights[-1].T

    def save(self, path: str | Path) -> None:
        """
        Write the network to a safetensors file, its activation in the file's metadata; StoreError if that fails.

        The file appears under its name only when it is whole, and replaces an earlier one.
        """
        tensors = {f"weights.{layer}": weight.clone().contiguous() for layer, weight in enumerate(self.weights)}
        try:
            with replacing(path) as unfinished:
                save_file(tensors, unfinished, metadata={"activation": self.activation})
        except (OSError, SafetensorError) as error:
            raise StoreError(f"cannot write the network to {path}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> "MLP":
        """Read a network that `save` wrote; InvalidInputError if the file is none."""
        try:
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                weights = [file.get_tensor(f"weights.{layer}") for layer in range(len(file.keys()))]
            return cls(weights, metadata.get("activation", "none"))
        except (OSError, SafetensorError, InvalidInputError) as error:
            raise InvalidInputError(f"{path} is not a network that MLP.save wrote: {error}") from error


@dataclass(frozen=True, eq=False)
class MLPStack:
    """
    `S` networks of one shape and activation.

    Parameters
    ----------
    weights
        `L` tensors `[S, fan_out, fan_in]`, first layer first.
    activation
        As in `MLP`.

    Raises
    ------
    InvalidInputError
        The shapes do not follow on one another, or the activation is unknown.
    """

    weights: Sequence[Tensor]
    activation: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", _checked(self.weights, ndim=3))
        activation(self.activation)

    def __len__(self) -> int:
        return len(self.weights[0])

    def __getitem__(self, index: int) -> MLP:
        return MLP([weight[index] for weight in self.weights], self.activation)

    def __call__(self, x: Tensor) -> Tensor:
        """
        Return the logits `[S, N, C]` of the points `x` `[N, D]`.

        Inside, activations are `[S, W, N]`: the first layer of all networks is then one product with the points that they
        share, and narrow networks run several times faster than with the points first.
        """
        _check_points(x, self.weights[0])
        apply_ = activation(self.activation).apply_
        first = self.weights[0]
        h = (first.flatten(0, 1) @ x.T).view(*first.shape[:2], -1)
        for weight in self.weights[1:]:
            h = torch.bmm(weight, apply_(h))
        return h.transpose(1, 2)


def as_stack(model: MLP | MLPStack) -> MLPStack:
    """Return a network as a stack of one, a stack as it is."""
    return model if isinstance(model, MLPStack) else MLPStack([weight.unsqueeze(0) for weight in model.weights], model.activation)


def _checked(weights: Sequence[Tensor], ndim: int) -> tuple[Tensor, ...]:
    shape = "[fan_out, fan_in]" if ndim == 2 else "[S, fan_out, fan_in]"
    if not isinstance(weights, list | tuple) or not weights:
        raise InvalidInputError(f"weights must be a list of tensors {shape}, at least one; got {weights!r}")
    for layer, weight in enumerate(weights):
        if (
            not isinstance(weight, Tensor)
            or weight.ndim != ndim
            or 0 in weight.shape
            or weight.dtype not in (torch.float32, torch.float64)
            or weight.dtype != weights[0].dtype
        ):
            got = f"{weight.dtype} {list(weight.shape)}" if isinstance(weight, Tensor) else type(weight).__name__
            raise InvalidInputError(f"weights[{layer}] must be a tensor {shape}, all float32 or all float64; got {got}")
    for layer, (below, weight) in enumerate(itertools.pairwise(weights), start=1):
        expected = [*below.shape[:-2], weight.shape[-2], below.shape[-2]]
        if list(weight.shape) != expected:
            takes = f"to take what weights[{layer - 1}] {list(below.shape)} gives"
            raise InvalidInputError(f"weights[{layer}] must be {expected}, {takes}; got {list(weight.shape)}")
    return tuple(weights)


def _check_points(x: Tensor, first: Tensor) -> None:
    if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != first.shape[-1] or x.dtype != first.dtype:
        got = f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise InvalidInputError(f"x must be a {first.dtype} tensor of points [N, {first.shape[-1]}]; got {got}")
