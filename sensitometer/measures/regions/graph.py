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
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...activations import activation
from ...networks import MLPStack
from ..compiling import compiled

Array = Any
# Networks, each with its part of the rows.
Networks = Sequence[tuple[int, slice]]


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
NO_LEAK = np.zeros(1)


class Elementwise(NamedTuple):
    r"""
    $f(z) = \min(\max(s z + c, l), h) + \lambda \min(z, 0)$ for each unit, with the pre-activations at which its slope jumps.

    The code of a unit is the number of its boundaries strictly below its pre-activation. Compiled loops take this as it is.
    """

    boundaries: Array  # float64, ascending; one or two
    scale: float = 1.0  # s
    shift: float = 0.0  # c
    low: float = 0.0  # l
    high: float = math.inf  # h
    leak: Array = NO_LEAK  # lambda, float64 [W], or [1] where all units have the same

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
        return float(self.boundaries[-1] - self.boundaries[0]) if len(self.boundaries) == 2 else math.inf


class Maximum(NamedTuple):
    """
    The largest of several pre-activations, for each unit; or the smallest. Compiled loops take this as it is.

    The code of a unit is the number of its winner: of candidates that are equal, the first wins.
    """

    candidates: Array  # int64 [units, K], the candidates' places among the pre-activations; -1 where a unit has fewer than K
    sign: float = 1.0  # -1 for the smallest

    def __call__(self, z: Tensor) -> Tensor:
        """Return the winners `[R, units]` of the pre-activations `z` `[R, W]`."""
        signed, columns = self.sign * z, torch.from_numpy(self.candidates).T
        values = (signed.index_select(1, column.clamp(min=0)).masked_fill_(column < 0, -math.inf) for column in columns)
        return self.sign * functools.reduce(torch.maximum, values)


Pieces = Elementwise | Maximum


@dataclass(frozen=True, eq=False)
class Linear:
    """One matrix product, of S networks."""

    weights: Tensor  # [S, fan_in, fan_out]: the contributions of a unit to the units above it are a row
    bias: Tensor | None = None  # [S, fan_out]

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

    def rows(self, h: Tensor, networks: Networks) -> Tensor:
        """Return the values `[R, fan_out]` at rows `[R, fan_in]`, of which each of the networks has a part."""
        z = h.new_empty(len(h), self.weights.shape[2])
        for network, part in networks:
            for begin in range(part.start, part.stop, self.block):
                here = slice(begin, min(begin + self.block, part.stop))
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
            constant = h[0].clone()
            constant[torch.from_numpy(changing)] = 0.0
            n, units = len(h), len(changing)
            columns = self._columns[: n * units].view(n, units)
            weights = self._weight_rows[:units]
            np.take(h.numpy(), changing, 1, columns.numpy(), "clip")
            np.take(weight.numpy(), changing, 0, weights.numpy(), "clip")
            torch.mm(columns, weights, out=out)
            if constant.any():
                out += constant @ weight
        if self.bias is not None:
            out += self.bias[network]

    @functools.cached_property
    def _columns(self) -> Tensor:
        """Memory for the changing units, used again and again: fresh memory costs as much as the product."""
        return torch.empty((self.block + 1) * self.weights.shape[1], dtype=torch.float64)

    @functools.cached_property
    def _weight_rows(self) -> Tensor:
        """Memory for their weights."""
        return torch.empty_like(self.weights[0])


@compiled
def _changing(h: Array) -> Array:
    """Return which columns are not the same in all rows."""
    changing = np.zeros(h.shape[1], np.bool_)
    for row in range(1, len(h)):
        for unit in range(h.shape[1]):
            changing[unit] |= h[row, unit] != h[0, unit]
    return changing


@dataclass(frozen=True, eq=False)
class Calls:
    """Affine operations of an exported program."""

    run: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]  # from the values that go in, by name, to those that come out
    largest: int  # numbers of the largest value at one point, on the way

    def __call__(self, alive: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what comes out, `[R, ...]`; rows are independent, and go through in blocks."""
        rows, size = len(next(iter(alive.values()))), max(1, BLOCK // self.largest)
        if rows <= size:
            return {name: value.contiguous() for name, value in self.run(alive).items()}
        starts = range(0, rows, size)
        blocks = [self.run({name: value[start : start + size] for name, value in alive.items()}) for start in starts]
        return {name: torch.cat([block[name] for block in blocks]) for name in blocks[0]}


@dataclass(frozen=True, eq=False)
class Stage:
    """An affine map, then a piecewise-linear operation."""

    name: str  # of the module that calls the operation, or of the operation itself
    affine: Linear | Calls  # leads to the pre-activations and the values that stay alive; `Linear` takes and gives one value
    pieces: Pieces
    source: str  # the name of the pre-activations
    result: str  # the name of the operation's result
    shape: tuple[int, ...]  # of the result at one point
    alive: tuple[str, ...]  # the names of the values that are needed afterwards, beside the result
    width: int  # numbers at one point of the pre-activations and of the values that are alive beside them


@dataclass(frozen=True, eq=False)
class Graph:
    """A piecewise-linear model, or S networks of one shape."""

    stages: tuple[Stage, ...]
    tail: Calls | None  # from the values alive after the last stage to the outputs; None for networks of the package
    input: str  # the name of the points
    networks: int  # S; 1 for a model

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
    return tuple(f"layer {layer}" for layer in range(1, len(stack.weights)))


def stack_graph(stack: MLPStack) -> Graph:
    """Return the graph of S networks of the package, whose activation is piecewise linear."""
    chosen = activation(stack.activation)
    assert chosen.clamp is not None
    shift, low, high = chosen.clamp
    pieces = Elementwise(np.array(chosen.boundaries), 1.0, shift, low, high)
    stages = []
    for layer, (name, weight) in enumerate(zip(layer_names(stack), stack.weights, strict=False), start=1):
        linear = Linear(weight.detach().cpu().double().transpose(1, 2).contiguous())
        width = weight.shape[1]
        stages.append(Stage(name, linear, pieces, f"z{layer}", f"h{layer}", (width,), (), width))
    return Graph(tuple(stages), None, "h0", len(stack))
