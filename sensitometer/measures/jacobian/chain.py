r"""
The norms of the Jacobian of a network of this package, whose first layer is replaced by a square root of its Gram matrix.

With $s_l = \phi'(z_l)$ the slopes at a point, $J_f = W_L \,\mathrm{diag}(s_{L-1})\, W_{L-1} \cdots \mathrm{diag}(s_1)\, W_1$.
Three observations make its norms cheap:

- $\|A W_1\|_F = \|A F\|_F$ for any $F F^T = W_1 W_1^T$. The transposed triangular factor of $W_1^T = Q R$ is such an $F$, of
  size $W \times W$ instead of $W \times D$. (So is the Cholesky factor of the Gram matrix, if $W_1$ has full rank.)
- The product is carried from the outputs (`C` rows per point) or from the inputs (`min(W, D)` columns), whichever are fewer.
- The Jacobian of the probabilities is $(\mathrm{diag}(p) - p p^T) J_f$: one chain gives the norms of both.

The points' forward pass is done in float64. In float32, a unit that rounding puts on the wrong side of a boundary changes a
point's norm by percents, and the probabilities inherit the absolute error of large logits.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ...activations import activation
from ...networks import MLPStack
from ..workspace import Workspace
from . import compiled_kernels, kernels
from .softmax import mixing_of, through_softmax

# Numbers in the block that is carried through the layers: on a processor 1 MiB, and as much for the one that it is computed from.
CPU_BLOCK = 2**18
OTHER_BLOCK = 2**19
# Columns of a block, rows times points, below which its products are slow.
MIN_COLUMNS = 640
# Points of the forward pass, and numbers in one of its layers, if several blocks share it: its many operations are small ones.
FORWARD_POINTS = 512
FORWARD_NUMBERS = 2**18
# Numbers of the inputs that are made float64 and multiplied together, and points of a piece if they are more.
INPUTS = 2**17
PIECE = 128
# Layers, or the product of their gains, above which the chain is kept in float32's range point by point.
DEEP = 8
LARGE = 1e3


class Chain:
    """The product of weights and slopes, for all networks of a stack and a chunk of points at a time."""

    def __init__(self, stack: MLPStack) -> None:
        self.activation = activation(stack.activation)
        exact = [weight.double() for weight in stack.weights]
        self.exact_first = exact[0].flatten(0, 1).T.contiguous()  # of all networks, [D, S W]
        self.exact_above = exact[1:]
        # Each layer is divided by its root-mean-square row norm, and the product of these put back at the end: with 65 layers of
        # large weights the chain itself would overflow.
        gains = [weight.norm(dim=(1, 2), keepdim=True) / weight.shape[1] ** 0.5 for weight in exact]
        gains = [torch.where(gain == 0, 1.0, gain) for gain in gains]
        self.dtype = stack.weights[0].dtype
        self.weights = [(weight / gain).to(self.dtype) for weight, gain in zip(exact, gains, strict=True)]
        self.scale = torch.stack(gains).prod(0).view(-1, 1)
        self.careful = len(gains) > DEEP or float(self.scale.max()) > LARGE
        self.last = exact[-1] / gains[-1]
        first: Tensor = self.weights[0]
        if first.shape[1] < first.shape[2]:
            first = torch.linalg.qr(first.transpose(1, 2), mode="r").R.transpose(1, 2)
        self.first = first  # F, [S, W, R]
        self.space = Workspace()
        self.kernels = compiled_kernels if first.device.type == "cpu" else kernels

    def _points(self, x: Tensor, chunk_size: int | None, rows: int | None = None) -> Iterator["_Points"]:
        """Yield the forward pass of chunks of points: in one part if `rows` are carried per point, in several if all rows are."""
        S, W, _ = self.weights[0].shape
        carried = rows or min(self.weights[-1].shape[1], self.first.shape[2])
        numbers = CPU_BLOCK if x.device.type == "cpu" else OTHER_BLOCK
        size = chunk_size or max(16, MIN_COLUMNS // carried, numbers // (S * W * carried) // 16 * 16)
        one_part = chunk_size or rows or len(self.weights) == 1
        together = 1 if one_part else max(1, min(FORWARD_POINTS, FORWARD_NUMBERS // (S * W)) // size)
        for start in range(0, x.shape[0], size * together):
            place = slice(start, start + size * together)
            h, slopes = self._forward(x[place])
            factor = self._take_out_gains(slopes) if slopes and self.careful else torch.ones_like(self.scale)
            parts = list(zip(*(torch.split(slope.unsqueeze(2), size, 3) for slope in slopes), strict=True))
            yield _Points(place, h, parts or [()], factor, size)

    def _forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits of `x` `[n, D]`, float64 `[S, C, n]`, and the L - 1 slopes `[S, W, n]`, all in the workspace."""
        first, take = self.exact_first, self.space.take
        S, W, _ = self.weights[0].shape
        h = take("layer 0", (S, W, len(x)), first)
        many = x.numel() > INPUTS
        size = PIECE if many else len(x)
        for start in range(0, len(x), size):
            here = slice(start, start + size)
            points = take("points", x[here].shape, first).copy_(x[here])
            columns = h.flatten(0, 1)[:, here]
            if many:  # this way round takes a fifth less time for 3072 inputs, more for few
                columns.copy_(torch.mm(points, first, out=take("rows", (len(points), S * W), first)).T)
            else:
                torch.mm(first.T, points.T, out=columns)
        slopes = []
        for layer, weight in enumerate(self.exact_above):
            slopes.append(take(f"slope {layer}", h.shape, self.weights[0]))
            self.kernels.activate(self.activation, h, slopes[-1], self.space)
            h = torch.bmm(weight, h, out=take(f"layer {(layer + 1) % 2}", (*weight.shape[:2], len(x)), h))
        return h, slopes

    def _take_out_gains(self, slopes: Sequence[Tensor]) -> Tensor:
        """
        Divide the slopes `[S, W, n]` by about the gain of the chain in each layer and point; return the product, `[S, n]`.

        The gain is that of one vector, carried back from the outputs: a tenth of the work for ten classes. Without it a chain of
        many saturated layers would underflow float32; in other networks, the loss is below 1e-12.
        """
        factor = torch.ones_like(slopes[0][:, 0], dtype=torch.float64)
        vector = self.last.sum(1).unsqueeze(2).to(self.dtype)
        for slope, weight in zip(reversed(slopes), reversed(self.weights[:-1]), strict=True):
            vector = vector * slope
            gain = vector.abs().amax(1, keepdim=True)
            gain = torch.where(gain == 0, 1.0, gain)
            slope /= gain
            factor *= gain.squeeze(1)
            vector = torch.bmm(weight.transpose(1, 2), vector.div_(gain))
        return factor

    def norms(self, x: Tensor, kinds: Sequence[str], chunk_size: int | None) -> dict[str, Tensor]:
        """Return the norms of the `probabilities`, of the `logits`, or both, at points `x` `[N, D]`; each float64 `[S, N]`."""
        chunks = [self._chunk_norms(points, kinds) for points in self._points(x, chunk_size)]
        return {kind: torch.cat([norms[kind] for norms in chunks], 1) * self.scale for kind in kinds}

    def _chunk_norms(self, points: "_Points", kinds: Sequence[str]) -> dict[str, Tensor]:
        mixing = mixing_of(points.logits, self.dtype) if "probabilities" in kinds else None
        squares: dict[str, list[Tensor]] = {"probabilities": [], "logits": []}
        for part, slopes in enumerate(points.slopes):
            block = self._block(slopes, points.logits.shape[2])
            if mixing is None:
                squares["logits"].append(self.kernels.squared_norms(block, self.space))
            else:
                mixed, plain = self.kernels.both_squared_norms(block, mixing, part * points.size, self.space)
                squares["probabilities"].append(mixed)
                squares["logits"].append(plain)
        norms = {kind: torch.cat(squares[kind], 1).double().sqrt() * points.factor for kind in kinds}
        if mixing is not None:
            norms["probabilities"] *= mixing.factor
        return norms

    def row_norms(self, x: Tensor, target: Tensor, kind: str, chunk_size: int | None) -> Tensor:
        """Return the norms of the rows of the Jacobian that belong to the classes `target` `[N]`; float64 `[S, N]`."""
        norms = []
        for points in self._points(x, chunk_size, 1):
            row = torch.zeros_like(points.logits).scatter_(1, target[points.place].expand(len(points.logits), 1, -1), 1.0)
            factor = points.factor
            if kind == "probabilities":
                row, second = through_softmax(points.logits, row)
                factor = factor * second
            largest = row.abs().amax(1)
            row = row / torch.where(largest == 0, 1.0, largest).unsqueeze(1)
            (slopes,) = points.slopes  # with one row per point, all points are one part
            if slopes:
                start = torch.bmm(self.last.transpose(1, 2), row).to(self.dtype).unsqueeze(2)
                block = self._from_outputs(start, slopes)
            else:  # a linear model has no layer below its last: its rows are mixed from F itself
                block = torch.bmm(self.first.transpose(1, 2), row.to(self.dtype)).unsqueeze(2)
            norms.append(self.kernels.squared_norms(block, self.space).double().sqrt() * largest * factor)
        return torch.cat(norms, 1) * self.scale

    def _block(self, slopes: Sequence[Tensor], points: int) -> Tensor:
        """Return the Jacobian of the logits times F, over `scale` and the factor; `[S, R, C, n]`, in the workspace."""
        if not slopes:
            return self.first.transpose(1, 2).unsqueeze(3).repeat(1, 1, 1, points)
        if self.weights[-1].shape[1] <= self.first.shape[2]:
            return self._from_outputs(self.weights[-1].transpose(1, 2).unsqueeze(3), slopes)
        block = self.first.unsqueeze(3)
        for weight, slope in zip(self.weights[1:], slopes, strict=True):
            block = self.space.product(weight, self.space.times(block, slope))
        return block.transpose(1, 2)

    def _from_outputs(self, rows: Tensor, slopes: Sequence[Tensor]) -> Tensor:
        """Carry `rows` `[S, W, C, n or 1]`, the chain above the last slopes, back through all layers to F: `[S, R, C, n]`."""
        block = self.space.times(rows, slopes[-1])
        below = [self.first, *self.weights[1:-1]]
        for layer in range(len(slopes) - 1, -1, -1):
            block = self.space.product(below[layer].transpose(1, 2), block)
            if layer:
                block.mul_(slopes[layer - 1])
        return block


class _Points(NamedTuple):
    """The forward pass of a chunk of points."""

    place: slice  # among all points
    logits: Tensor  # float64 [S, C, n]
    # For each part of the points that a block is carried for: L - 1 tensors [S, W, 1, n] of the weights' type, divided by numbers
    # whose product is the factor.
    slopes: Sequence[Sequence[Tensor]]
    factor: Tensor  # float64 [S, n] or [S, 1]
    size: int  # points of a part
