r"""
A piecewise-linear model as a graph: affine operations, and between them operations that change their linear piece.

Every model here is a list of *stages*. A stage is an affine map from the values that are alive to the pre-activations of one
piecewise-linear operation, followed by that operation. A network of the package is one matrix product per stage;
`modules/` makes a graph of any module. Everything is float64, on the processor.

Two kinds of operations are enough:

- `Elementwise`: ReLU, ReLU6, LeakyReLU, PReLU, Hardtanh, clamps, Hardsigmoid and the absolute value. A unit changes its piece
  where its pre-activation crosses a boundary. The maximum and the minimum of two are `b + relu(a - b)` and `a - relu(a - b)`.
- `Maximum`: the largest of several pre-activations, as in max-pooling. A unit changes its piece where another candidate wins.
"""

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...activations import activation
from ...networks import MLPStack
from ..compiling import compiled

Array = Any


def flat(values: Tensor) -> Tensor:
    """Return values `[R, ...]` as `[R, W]`."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


# Numbers of the largest value in a block of rows that goes through an affine map together: they stay in the second cache.
BLOCK = 2**17
# Rows, and numbers in them, that go through a matrix product together: so few that they stay in the second cache, and that not
# many units change between them. Rows and units for which it is not worth while to look; and the share of changing units above
# which the product takes all of them.
ROWS, NUMBERS = 256, 2**15
FEW_ROWS, WIDE, MOST_CHANGING = 32, 64, 0.9


@dataclass(frozen=True, eq=False)
class Elementwise:
    r"""
    $f(z) = \min(\max(s z + c, l), h) + \lambda \min(z, 0)$ for each unit, with the pre-activations at which its slope jumps.

    The code of a unit is the number of its boundaries strictly below its pre-activation.

    Attributes
    ----------
    boundaries
        Ascending; one or two.
    scale, shift, low, high
        s, c, l and h.
    leak
        $\lambda$, float64 `[W]`, or `[1]` where all units have the same.
    """

    boundaries: tuple[float, ...]
    scale: float = 1.0
    shift: float = 0.0
    low: float = 0.0
    high: float = math.inf
    leak: Array = field(default_factory=lambda: np.zeros(1))

    def __call__(self, z: Tensor, *, overwrite: bool = False) -> Tensor:
        """Return the activations of the pre-activations `z` `[R, W]`; in their place with `overwrite`."""
        leaked = torch.from_numpy(self.leak) * z.clamp(max=0.0) if self.leak.any() else None
        h = z if self.scale == 1.0 else z * self.scale
        h = torch.clamp(h + self.shift if self.shift else h, self.low, self.high, out=z if overwrite else None)
        return h if leaked is None else h.add_(leaked)

    @property
    def jumps(self) -> Array:
        """By how much the slope rises at each boundary; float64 `[B, W]`, or `[B, 1]` where all units have the same."""
        rises = [self.scale - self.leak] if self.low > -math.inf else []
        falls = [np.full_like(self.leak, -self.scale)] if self.high < math.inf else []
        return np.stack(rises + falls)

    @property
    def apart(self) -> float:
        """How far the two boundaries are apart; infinite if there is one."""
        return self.boundaries[1] - self.boundaries[0] if len(self.boundaries) == 2 else math.inf


@dataclass(frozen=True, eq=False)
class Maximum:
    """
    The largest of some pre-activations, for each unit; or the smallest.

    The code of a unit is the number of its winner: of candidates that are equal, the first wins.

    Attributes
    ----------
    candidates
        int64 `[units, K]`: the places of each unit's candidates among the pre-activations; -1 where it has fewer than K.
    sign
        1 for the largest, -1 for the smallest.
    """

    candidates: Array
    sign: float = 1.0

    def __call__(self, z: Tensor) -> Tensor:
        """Return the winners `[R, units]` of the pre-activations `z` `[R, W]`."""
        best = torch.full((len(z), len(self.candidates)), -math.inf, dtype=z.dtype)
        for column in self.candidates.T:
            values = self.sign * z[:, torch.from_numpy(column)]
            best = torch.maximum(best, torch.where(torch.from_numpy(column) >= 0, values, -math.inf))
        return self.sign * best


Pieces = Elementwise | Maximum


@dataclass(frozen=True, eq=False)
class Linear:
    """
    One matrix product, of S networks.

    Attributes
    ----------
    weights
        `[S, fan_in, fan_out]`: what a unit adds to the units above it is a row.
    bias
        `[S, fan_out]`, or None.
    """

    weights: Tensor
    bias: Tensor | None = None

    def shared(self, points: Tensor, networks: slice) -> Tensor:
        """Return the values `[S, n, fan_out]` of some networks at the same points `[n, fan_in]`."""
        chosen = self.weights[networks]
        z = torch.mm(points, chosen.transpose(0, 1).reshape(len(points[0]), -1))
        z = z.view(len(points), len(chosen), -1).transpose(0, 1).contiguous()
        return z if self.bias is None else z.add_(self.bias[networks].unsqueeze(1))

    @property
    def block(self) -> int:
        """How many rows to give `times` at once."""
        return max(ROWS, NUMBERS // self.weights.shape[1])

    def rows(self, h: Tensor, networks: slice, edges: Sequence[int]) -> Tensor:
        """Return the values `[R, fan_out]` at rows `[R, fan_in]`: from each of the `edges` to the next those of one network."""
        z = h.new_empty(len(h), self.weights.shape[2])
        for network, (start, stop) in enumerate(itertools.pairwise(edges), networks.start):
            for begin in range(start, stop, self.block):
                here = slice(begin, min(begin + self.block, stop))
                self.times(h[here], network, z[here])
        return z

    def times(self, h: Tensor, network: int, out: Tensor) -> None:
        """
        Write the values of one network at rows `[n, fan_in]` that follow one another on a path to `out` `[n, fan_out]`.

        The rows are at most one more than `block`. Units that are off or saturated at all of them are left out of the product.
        """
        weight = self.weights[network]
        wide = len(weight) >= WIDE and len(h) >= FEW_ROWS
        changing = np.flatnonzero(_changing(h.numpy())) if wide else np.zeros(0, np.int64)
        if not wide or len(changing) > MOST_CHANGING * len(weight):
            torch.mm(h, weight, out=out)
        else:
            rest = h[0].clone()
            rest[torch.from_numpy(changing)] = 0.0
            some, rows = (
                space[: size * len(changing)] for space, size in zip(self._spaces, (len(h), weight.shape[1]), strict=True)
            )
            some, rows = some.view(len(h), -1), rows.view(-1, weight.shape[1])
            np.take(h.numpy(), changing, 1, some.numpy(), "clip")
            np.take(weight.numpy(), changing, 0, rows.numpy(), "clip")
            torch.mm(some, rows, out=out)
            if rest.any():
                out += rest @ weight
        if self.bias is not None:
            out += self.bias[network]

    @functools.cached_property
    def _spaces(self) -> tuple[Tensor, Tensor]:
        """Memory for the changing units and their weights, used again and again: fresh memory costs as much as the product."""
        _, fan_in, fan_out = self.weights.shape
        return torch.empty((self.block + 1) * fan_in, dtype=torch.float64), torch.empty(fan_in * fan_out, dtype=torch.float64)


@compiled
def _changing(h: Array) -> Array:
    """Return which columns are not the same in all rows."""
    changing = np.zeros(h.shape[1], np.bool_)
    for row in range(1, len(h)):
        for at in range(h.shape[1]):
            changing[at] |= h[row, at] != h[0, at]
    return changing


@dataclass(frozen=True, eq=False)
class Calls:
    """
    Affine operations of an exported program.

    Attributes
    ----------
    run
        Maps the values that go in, by name and with the points first, to those that come out.
    largest
        Numbers of the largest value at one point, on the way.
    """

    run: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
    largest: int

    def __call__(self, alive: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what comes out, `[R, ...]`; rows are independent, and go through in blocks."""
        rows = len(next(iter(alive.values())))
        size = max(1, BLOCK // self.largest)
        if rows <= size:
            return {name: value.contiguous() for name, value in self.run(alive).items()}
        found: dict[str, Tensor] = {}
        for start in range(0, rows, size):
            part = self.run({name: value[start : start + size] for name, value in alive.items()})
            for name, value in part.items():
                if start == 0:
                    found[name] = value.new_empty(rows, *value.shape[1:])
                found[name][start : start + size] = value
        return found


@dataclass(frozen=True, eq=False)
class Stage:
    """
    An affine map, then a piecewise-linear operation.

    Attributes
    ----------
    name
        The name of the module that calls the operation, or of the operation itself.
    affine
        Leads to the pre-activations, and to the other values that are alive. `Linear` takes and gives one value alone.
    pieces
        The operation.
    source, result
        The names of its pre-activations and of what it returns.
    shape
        The shape of the result at one point.
    alive
        The names of the values that are needed afterwards, beside the result.
    width
        Numbers at one point of the pre-activations and of what is alive beside them.
    """

    name: str
    affine: Linear | Calls
    pieces: Pieces
    source: str
    result: str
    shape: tuple[int, ...]
    alive: tuple[str, ...]
    width: int


@dataclass(frozen=True, eq=False)
class Graph:
    """
    A piecewise-linear model, or S networks of one shape.

    Attributes
    ----------
    stages
        In the order of the forward pass.
    tail
        The affine map from what is alive after the last stage to the outputs; None for networks of the package.
    input
        The name of the points.
    networks
        S; 1 for a model.
    """

    stages: tuple[Stage, ...]
    tail: Calls | None
    input: str
    networks: int

    @property
    def names(self) -> tuple[str, ...]:
        """The stages' names."""
        return tuple(stage.name for stage in self.stages)

    @property
    def width(self) -> int:
        """The most numbers at one point that are alive together."""
        return max((stage.width for stage in self.stages), default=1)

    def outputs(self, points: Tensor) -> Tensor:
        """Return the outputs `[n, ...]` of a model at `points` `[n, ...]`, operation by operation: the plain forward pass."""
        assert self.tail is not None
        alive = {self.input: points.double()}
        for stage in self.stages:
            values = self.through(stage, alive)
            alive = {name: values[name] for name in stage.alive}
            alive[stage.result] = stage.pieces(flat(values[stage.source])).view(len(points), *stage.shape)
        (value,) = self.tail(alive).values()
        return value

    @staticmethod
    def through(stage: Stage, alive: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what comes out of the affine map of a stage of one model, `[R, ...]`, from what is alive before it."""
        if isinstance(stage.affine, Calls):
            return stage.affine(alive)
        (value,) = alive.values()
        return {stage.source: stage.affine.shared(flat(value), slice(0, 1))[0]}


def layer_names(stack: MLPStack) -> tuple[str, ...]:
    """Return the names of the hidden layers of networks of the package: `layer 1`, `layer 2` and so on."""
    return tuple(f"layer {place}" for place in range(1, len(stack.weights)))


def stack_graph(stack: MLPStack) -> Graph:
    """Return the graph of S networks of the package, whose activation is piecewise linear."""
    chosen = activation(stack.activation)
    assert chosen.clamp is not None
    shift, low, high = chosen.clamp
    pieces = Elementwise(chosen.boundaries, 1.0, shift, low, high)
    stages = []
    for place, (name, weight) in enumerate(zip(layer_names(stack), stack.weights, strict=False), start=1):
        linear = Linear(weight.detach().cpu().double().transpose(1, 2).contiguous())
        width = weight.shape[1]
        stages.append(Stage(name, linear, pieces, f"z{place}", f"h{place}", (width,), (), width))
    return Graph(tuple(stages), None, "h0", len(stack))
