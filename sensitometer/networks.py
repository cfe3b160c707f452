"""Fully connected networks without biases (paper, S3): one (`MLP`) or many of one shape (`MLPStack`)."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from . import array_files
from .activations import activation as find_activation
from .array_files import DamagedError
from .errors import InvalidInputError, StoreError, described
from .files import check_regular
from .randomness import generator

# Layer sizes that a `repr` gives one by one.
MOST_SIZES = 8


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
    gain = find_activation(name).initial_gain
    return [torch.randn(shape, generator=stream).mul_(scale * math.sqrt(gain / shape[1])) for shape in shapes]


class _FullyConnected(nn.Module):
    """The common part of a network and a stack: checked weights, an activation, a short `repr`."""

    weights: Sequence[Tensor]
    activation: str
    _shape: ClassVar[str]  # of each weight matrix

    def __init__(self, weights: Sequence[Tensor], activation: str) -> None:
        super().__init__()
        _check_weights(weights, self._shape)
        find_activation(activation)
        parameters = [
            weight if isinstance(weight, nn.Parameter) else nn.Parameter(weight, requires_grad=False) for weight in weights
        ]
        self.weights = nn.ParameterList(parameters)  # type: ignore[assignment]
        self.activation = activation

    def _summary(self) -> str:
        *_, inputs = self.weights[0].shape
        sizes = [str(size) for size in (inputs, *(weight.shape[-2] for weight in self.weights))]
        if len(sizes) > MOST_SIZES:
            sizes[3:-2] = ["..."]
        count = sum(weight.shape[-2] * weight.shape[-1] for weight in self.weights)
        return f"{'-'.join(sizes)}, {self.activation}, {count:,} weights"


class MLP(_FullyConnected):
    """
    A fully connected network: `L` weight matrices, an activation after each but the last, no biases.

    The weights are the module's parameters. They share memory with the tensors given, and record no gradients until
    `requires_grad_()` is called; an `nn.Parameter` stays as it is.

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

    Examples
    --------
    >>> import torch
    >>> MLP([torch.ones(64, 64), torch.ones(10, 64)], "relu")
    MLP(64-64-10, relu, 4,736 weights)
    """

    _shape = "[fan_out, fan_in]"

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `[N, C]` of the points `x` `[N, D]`."""
        _check_points(x, self.weights[0])
        apply_ = find_activation(self.activation).apply_
        *hidden, last = self.weights
        h = x
        for weight in hidden:
            h = apply_(h @ weight.T)
        return h @ last.T

    def __repr__(self) -> str:
        return f"MLP({self._summary()})"

    def save(self, path: str | Path) -> None:
        """
        Write the network to a safetensors file: its `state_dict`, and its activation in the metadata.

        The file appears under its name only when it is whole, and replaces an earlier one.

        Raises
        ------
        StoreError
            The file cannot be written.
        """
        arrays = {name: weight.cpu().contiguous().numpy() for name, weight in self.state_dict().items()}
        try:
            array_files.write(path, arrays, {"activation": self.activation})
        except OSError as error:
            raise StoreError(f"cannot write the network to {path}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> "MLP":
        """Read a network that `save` wrote; InvalidInputError if the file is none, or its weights have changed since."""
        try:
            check_regular(Path(path).resolve(), array_files.LARGEST)
            with safe_open(str(path), framework="pt") as file:
                metadata = file.metadata() or {}
                names = list(file.keys())
                digests = array_files.read_digests(names, metadata)
                weights = []
                for name in (f"weights.{layer}" for layer in range(len(names))):
                    weight, part = file.get_tensor(name), file.get_slice(name)
                    if digests is not None:
                        array_files.check_array(name, part.get_dtype(), part.get_shape(), weight.numpy().tobytes(), digests)
                    weights.append(weight)
            return cls(weights, metadata.get("activation", "none"))
        except (OSError, SafetensorError, InvalidInputError, DamagedError) as error:
            raise InvalidInputError(f"{path} is not a network that MLP.save wrote: {error}") from error


class MLPStack(_FullyConnected):
    """
    `S` networks of one shape and activation, a module as `MLP` is. `stack[i]` is one of them and shares its weights' memory.

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

    Examples
    --------
    >>> import torch
    >>> stack = MLPStack([torch.ones(8, 64, 64), torch.ones(8, 10, 64)], "relu")
    >>> stack
    MLPStack(8 x 64-64-10, relu, 4,736 weights each)
    >>> stack(torch.ones(5, 64)).shape
    torch.Size([8, 5, 10])
    """

    _shape = "[S, fan_out, fan_in]"

    def __len__(self) -> int:
        return len(self.weights[0])

    def __getitem__(self, index: int) -> MLP:
        return MLP([nn.Parameter(weight.detach()[index], weight.requires_grad) for weight in self.weights], self.activation)

    def forward(self, x: Tensor) -> Tensor:
        """
        Return the logits `[S, N, C]` of the points `x` `[N, D]`.

        Inside, activations are `[S, W, N]`: the first layer of all networks is then one product with the points that they
        share, and narrow networks run several times faster than with the points first.
        """
        first, *others = self.weights
        _check_points(x, first)
        apply_ = find_activation(self.activation).apply_
        h = (first.flatten(0, 1) @ x.T).view(*first.shape[:2], -1)
        for weight in others:
            h = torch.bmm(weight, apply_(h))
        return h.transpose(1, 2)

    def __repr__(self) -> str:
        return f"MLPStack({len(self)} x {self._summary()} each)"


def as_stack(model: MLP | MLPStack) -> MLPStack:
    """Return a network as a stack of one, and a stack as it is; the weights share memory and record no gradients."""
    weights = [weight.detach() for weight in model.weights]
    return MLPStack(weights if isinstance(model, MLPStack) else [weight.unsqueeze(0) for weight in weights], model.activation)


def _check_weights(weights: object, shape: str) -> None:
    if not isinstance(weights, list | tuple | nn.ParameterList) or not weights:
        raise InvalidInputError(f"weights must be a list of tensors {shape}, at least one; got {weights!r}")
    for layer, weight in enumerate(weights):
        if (
            not isinstance(weight, Tensor)
            or weight.ndim != len(shape.split(", "))
            or 0 in weight.shape
            or weight.dtype not in (torch.float32, torch.float64)
            or weight.dtype != weights[0].dtype
        ):
            raise InvalidInputError(
                f"weights[{layer}] must be a tensor {shape}, all float32 or all float64; got {described(weight)}"
            )
        if weight.requires_grad and not isinstance(weight, nn.Parameter):
            raise InvalidInputError(
                f"weights[{layer}] records gradients that would be lost: make it an nn.Parameter, or detach it"
            )
    for layer, (below, weight) in enumerate(itertools.pairwise(weights), start=1):
        expected = [*below.shape[:-2], weight.shape[-2], below.shape[-2]]
        if list(weight.shape) != expected:
            takes = f"to take what weights[{layer - 1}] {list(below.shape)} gives"
            raise InvalidInputError(f"weights[{layer}] must be {expected}, {takes}; got {list(weight.shape)}")


def _check_points(x: Tensor, first: Tensor) -> None:
    if not isinstance(x, Tensor) or x.ndim != 2 or x.shape[1] != first.shape[-1] or x.dtype != first.dtype:
        raise InvalidInputError(f"x must be a {first.dtype} tensor of points [N, {first.shape[-1]}]; got {described(x)}")
