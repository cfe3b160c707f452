r"""
The Frobenius norm of the input-output Jacobian (paper, S3): exact, at each point.

The structured pass, for networks of this package. With $s_l = \phi'(z_l)$ the slopes at a point,
$J_f = W_L \,\mathrm{diag}(s_{L-1})\, W_{L-1} \cdots \mathrm{diag}(s_1)\, W_1$. Three observations make it cheap:

- $\|A W_1\|_F = \|A F\|_F$ for any $F F^T = W_1 W_1^T$. The transposed triangular factor of $W_1^T = Q R$ is such an $F$, of
  size $W \times W$ instead of $W \times D$. (So is the Cholesky factor of the Gram matrix, if $W_1$ has full rank.)
- The product is carried from the outputs (`C` rows a point) or from the inputs (`min(W, D)` columns), whichever are fewer.
- The Jacobian of the probabilities is $(\mathrm{diag}(p) - p p^T) J_f$: one chain gives the norms of both.

The points' forward pass, a small part of the work, is done in float64. In float32, a unit that rounding puts on the wrong side
of a boundary changes a point's norm by percents, and the probabilities inherit the absolute error of large logits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..activations import activation
from ..errors import InvalidInputError
from ..networks import MLP, MLPStack

KINDS = ("probabilities", "logits")
# Numbers in the block that is carried through the layers, 2 MiB: larger ones leave the cache.
STRUCTURED_CHUNK = 2**19
# Layers, or the product of their gains, above which the chain is kept in float32's range point by point.
DEEP = 8
LARGE = 1e3
# Numbers in a chunk of whole Jacobians of an arbitrary model, 4 MiB: its activations, which nobody counts, take far more.
GENERIC_CHUNK = 2**20

Model = MLP | MLPStack | Callable[[Tensor], Tensor]


def jacobian_norm(
    model: Model, x: Tensor, *, of: str = "probabilities", target: Tensor | None = None, chunk_size: int | None = None
) -> Tensor:
    r"""
    Return $\|\partial g(x) / \partial x^T\|_F$ at each point (paper, S3), where $g$ is the softmax of the logits, or the logits.

    Parameters
    ----------
    model
        An `MLP`, an `MLPStack`, or any module or callable that maps points `[n, ...]` to logits `[n, C]`, each row of which
        depends on its own point alone (normalisation and dropout layers must be in evaluation mode).
    x
        The points: `[N, D]` for an `MLP` or `MLPStack`, `[N, ...]` for any other model.
    of
        `probabilities` (the paper's Jacobian norm) or `logits`.
    target
        Classes `[N]`: take only the row of the Jacobian that belongs to each point's class, $\|J_y\|_2$.
    chunk_size
        Points at once; chosen to fit the cache, or memory, when None.

    Returns
    -------
    Tensor
        `[N]`, or `[S, N]` for a stack; of the type and on the device of `x`.

    Raises
    ------
    InvalidInputError
        An argument is not as above.
    """
    if of not in KINDS:
        raise InvalidInputError(f"of must be one of {', '.join(KINDS)}; got {of!r}")
    if chunk_size is not None and (not isinstance(chunk_size, int) or chunk_size < 1):
        raise InvalidInputError(f"chunk_size must be a whole number of at least 1; got {chunk_size!r}")
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or not len(x):
        raise InvalidInputError("x must be a floating-point tensor of points [N, ...], at least one")
    if target is not None:
        target = _classes(target, len(x))
    if isinstance(model, MLPStack):
        return _of_stack(model, x, of, target, chunk_size).to(x.dtype)
    if isinstance(model, MLP):
        stack = MLPStack([weight.unsqueeze(0) for weight in model.weights], model.activation)
        return _of_stack(stack, x, of, target, chunk_size)[0].to(x.dtype)
    if not callable(model):
        raise InvalidInputError(f"model must be an MLP, an MLPStack, a module or another callable; got {type(model).__name__}")
    return _of_callable(model, x, of, target, chunk_size).to(x.dtype)


@torch.no_grad()
def jacobian_norms(stack: MLPStack, x: Tensor, *, chunk_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the norms of probabilities and of logits from one pass, each float64 `[S, N]`; see `jacobian_norm`."""
    chain = _Chain(stack)
    probabilities, logits = [], []
    for block, points in chain.blocks(x, chunk_size):
        logits.append(_norm(block, chain.space) * points.factor)
        probabilities.append(_softmax_norm(block, points.logits, chain.space) * points.factor)
    return torch.cat(probabilities, 1) * chain.scale, torch.cat(logits, 1) * chain.scale


@torch.no_grad()
def _of_stack(stack: MLPStack, x: Tensor, of: str, target: Tensor | None, chunk_size: int | None) -> Tensor:
    """Return the norms, float64 `[S, N]`."""
    if x.ndim != 2 or x.shape[1] != stack.weights[0].shape[2]:
        raise InvalidInputError(f"x must be points [N, {stack.weights[0].shape[2]}]; got {list(x.shape)}")
    chain = _Chain(stack)
    if target is not None:
        _check_target(target, stack.weights[-1].shape[1])
        norms = list(chain.row_norms(x, target, of, chunk_size))
    elif of == "probabilities":
        norms = [
            _softmax_norm(block, points.logits, chain.space) * points.factor for block, points in chain.blocks(x, chunk_size)
        ]
    else:
        norms = [_norm(block, chain.space) * points.factor for block, points in chain.blocks(x, chunk_size)]
    return torch.cat(norms, 1) * chain.scale


def _classes(target: object, points: int) -> Tensor:
    """Return `target` as int64 `[N]`, or raise InvalidInputError."""
    integers = (torch.int64, torch.int32, torch.int16, torch.uint8)
    if not isinstance(target, Tensor) or target.dtype not in integers or target.shape != (points,):
        got = f"{target.dtype} {list(target.shape)}" if isinstance(target, Tensor) else type(target).__name__
        raise InvalidInputError(f"target must be a tensor of classes [{points}], one a point; got {got}")
    return target.long()


def _check_target(target: Tensor, classes: int) -> None:
    if int(target.min()) < 0 or int(target.max()) >= classes:
        raise InvalidInputError(f"target must hold classes 0 to {classes - 1}; got {int(target.min())} to {int(target.max())}")


class _Workspace:
    """
    Two buffers: what is computed from the one is written to the other.

    A fresh tensor of some megabytes costs as much in page faults as the product that fills it.
    """

    def __init__(self) -> None:
        self._buffers = [torch.empty(0), torch.empty(0)]

    def _beside(self, tensor: Tensor, shape: Sequence[int]) -> Tensor:
        """Return the buffer that does not hold `tensor`, in this shape; what was in it is lost."""
        place = int(self._buffers[0].data_ptr() == tensor.data_ptr())
        numbers, buffer = math.prod(shape), self._buffers[place]
        if buffer.numel() < numbers or buffer.dtype != tensor.dtype or buffer.device != tensor.device:
            buffer = self._buffers[place] = tensor.new_empty(numbers)
        return buffer[:numbers].view(shape)

    def product(self, matrix: Tensor, block: Tensor) -> Tensor:
        """Return `matrix` `[S, A, B]` times `block` `[S, B, ...]`: `[S, A, ...]`."""
        out = self._beside(block, (*matrix.shape[:2], *block.shape[2:]))
        torch.bmm(matrix, block.flatten(2), out=out.flatten(2))
        return out

    def times(self, a: Tensor, b: Tensor) -> Tensor:
        """Return the elementwise product; `b`, if it is not `a`, is not in the workspace."""
        shape = [max(sizes) for sizes in zip(a.shape, b.shape, strict=True)]
        return torch.mul(a, b, out=self._beside(a, shape))


class _Chain:
    """The product of weights and slopes, for all networks of a stack and a chunk of points at a time."""

    def __init__(self, stack: MLPStack) -> None:
        self.activation = activation(stack.activation)
        self.exact = [weight.double() for weight in stack.weights]
        # Each layer is divided by its root-mean-square row norm, and the product of these put back at the end: with 65 layers of
        # large weights the chain itself would overflow.
        gains = [weight.norm(dim=(1, 2), keepdim=True) / weight.shape[1] ** 0.5 for weight in self.exact]
        gains = [torch.where(gain == 0, 1.0, gain) for gain in gains]
        self.dtype = stack.weights[0].dtype
        self.weights = [(weight / gain).to(self.dtype) for weight, gain in zip(self.exact, gains, strict=True)]
        self.scale = torch.stack(gains).prod(0).view(-1, 1)
        self.careful = len(gains) > DEEP or float(self.scale.max()) > LARGE
        self.last = self.exact[-1] / gains[-1]
        first: Tensor = self.weights[0]
        if first.shape[1] < first.shape[2]:
            first = torch.linalg.qr(first.transpose(1, 2), mode="r").R.transpose(1, 2)
        self.first = first  # F, [S, W, R]
        self.space = _Workspace()

    def _points(self, x: Tensor, chunk_size: int | None, rows: int) -> Iterator["_Points"]:
        """Yield the forward pass of a chunk of points after the other; `rows` are how many will be carried for each point."""
        S, W, _ = self.weights[0].shape
        size = chunk_size or max(16, STRUCTURED_CHUNK // (S * W * rows))
        for start in range(0, x.shape[0], size):
            place = slice(start, start + size)
            h = (self.exact[0].flatten(0, 1) @ x[place].double().T).view(S, W, -1)
            slopes = []
            for weight in self.exact[1:]:
                slopes.append(self.activation.slope(self.activation.apply_(h)))
                h = torch.bmm(weight, h)
            factor = self._take_out_gains(slopes) if slopes and self.careful else torch.ones_like(self.scale)
            yield _Points(place, h, [slope.to(self.dtype).unsqueeze(2) for slope in slopes], factor)

    def _take_out_gains(self, slopes: Sequence[Tensor]) -> Tensor:
        """
        Divide the slopes `[S, W, n]` of each layer and point by about what the chain gains there; return the product, `[S, n]`.

        The gain is that of one vector, carried back from the outputs: a tenth of the work for ten classes. Without it a chain of
        many saturated layers would underflow float32; in other networks, what is lost so is below 1e-12.
        """
        factor = torch.ones_like(slopes[0][:, 0])
        vector = self.last.sum(1).unsqueeze(2)
        for slope, weight in zip(reversed(slopes), reversed(self.weights[:-1]), strict=True):
            vector = vector * slope
            gain = vector.abs().amax(1, keepdim=True)
            gain = torch.where(gain == 0, 1.0, gain)
            slope /= gain
            factor *= gain.squeeze(1)
            vector = torch.bmm(weight.transpose(1, 2), (vector / gain).to(self.dtype)).double()
        return factor

    def blocks(self, x: Tensor, chunk_size: int | None) -> Iterator[tuple[Tensor, "_Points"]]:
        """
        Yield the Jacobian of the logits times F, over `scale` and the factor, `[S, R, C, n]`, and the points.

        The block stands in the workspace, and may be overwritten.
        """
        C, R = self.weights[-1].shape[1], self.first.shape[2]
        for points in self._points(x, chunk_size, min(C, R)):
            if not points.slopes:
                yield self.first.transpose(1, 2).unsqueeze(3).repeat(1, 1, 1, points.logits.shape[2]), points
            elif C <= R:
                yield self._from_outputs(self.weights[-1].transpose(1, 2).unsqueeze(3), points.slopes), points
            else:
                yield self._from_inputs(points.slopes), points

    def row_norms(self, x: Tensor, target: Tensor, of: str, chunk_size: int | None) -> Iterator[Tensor]:
        """Yield the norms of the rows that belong to `target` `[N]`, over scale, float64 `[S, n]`."""
        for points in self._points(x, chunk_size, 1):
            own = target[points.place].expand(len(points.logits), 1, -1)
            row = _row(points.logits, own, of)
            largest = row.abs().amax(1)
            row = row / torch.where(largest == 0, 1.0, largest).unsqueeze(1)
            if points.slopes:
                start = torch.bmm(self.last.transpose(1, 2), row).to(self.dtype).unsqueeze(2)
                block = self._from_outputs(start, points.slopes)
            else:  # a linear model has no layer below its last: its rows are mixed from F itself
                block = torch.bmm(self.first.transpose(1, 2), row.to(self.dtype)).unsqueeze(2)
            yield _norm(block, self.space) * largest * points.factor

    def _from_outputs(self, rows: Tensor, slopes: Sequence[Tensor]) -> Tensor:
        """Carry `rows` `[S, W, C, n or 1]`, the chain above the last slopes, back through all layers to F: `[S, R, C, n]`."""
        block = self.space.times(rows, slopes[-1])
        below = [self.first, *self.weights[1:-1]]
        for layer in range(len(slopes) - 1, -1, -1):
            block = self.space.product(below[layer].transpose(1, 2), block)
            if layer:
                block.mul_(slopes[layer - 1])
        return block

    def _from_inputs(self, slopes: Sequence[Tensor]) -> Tensor:
        """Carry F forward through all layers: `[S, R, C, n]`."""
        block = self.first.unsqueeze(3)
        for weight, slope in zip(self.weights[1:], slopes, strict=True):
            block = self.space.product(weight, self.space.times(block, slope))
        return block.transpose(1, 2)


@dataclass(frozen=True)
class _Points:
    """The forward pass of a chunk of points."""

    place: slice  # of all points
    logits: Tensor  # float64 [S, C, n]
    slopes: Sequence[Tensor]  # L - 1 tensors [S, W, 1, n] of the weights' type, divided by what multiplies up to factor
    factor: Tensor  # float64 [S, n] or [S, 1]


def _norm(block: Tensor, space: _Workspace) -> Tensor:
    """Return the Frobenius norms of `block` `[S, R, C, n]`, float64 `[S, n]`."""
    return space.times(block, block).sum((1, 2)).sqrt().double()


def _softmax_norm(block: Tensor, logits: Tensor, space: _Workspace) -> Tensor:
    r"""
    Return $\|(\mathrm{diag}(p) - p p^T) J\|_F$ for `block` J `[S, R, C, n]` and `logits` `[S, C, n]`; float64 `[S, n]`.

    `block` is overwritten.

    Written with the differences $Y_j = J_j - J_m$ from the most probable class m, the rows are $p_i (Y_i - v)$ with
    $v = \sum_{j \ne m} p_j Y_j$, and $-p_m v$ for m itself. No $1 - p_m$ occurs, which float32 rounds to 0 for well-fitted
    points. The second-largest probability t is taken out as a factor, so that none underflows either.
    """
    p, top = _probabilities(logits)
    others = p.scatter(1, top, 0.0)
    t = others.amax(1, keepdim=True)
    q = (others / torch.where(t == 0, 1.0, t)).to(block.dtype).unsqueeze(1)
    Y = block.sub_(block.gather(2, top.unsqueeze(1).expand(-1, block.shape[1], -1, -1)))
    v = space.times(Y, q).sum(2)
    rest = Y.sub_((t.to(v.dtype) * v).unsqueeze(2)).mul_(q)
    squares = space.times(rest, rest).sum((1, 2)) + (p.gather(1, top).to(v.dtype) * v).square().sum(1)
    return squares.double().sqrt() * t.squeeze(1)


def _row(logits: Tensor, own: Tensor, of: str) -> Tensor:
    r"""
    Return what row y of the Jacobian mixes from those of the logits, float64 `[S, C, n]`.

    That is row y of $\mathrm{diag}(p) - p p^T$ for probabilities, of the identity for logits; `own` y is `[S, 1, n]`.
    """
    if of == "logits":
        return torch.zeros_like(logits).scatter_(1, own, 1.0)
    p, _ = _probabilities(logits)
    p_own = p.gather(1, own)
    rest = p.scatter(1, own, 0.0).sum(1, keepdim=True)  # 1 - p_y, without cancellation
    return (-p_own * p).scatter(1, own, p_own * rest)


def _probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the softmax over dimension 1 and the index of its largest value, `[S, 1, n]`."""
    return logits.softmax(1), logits.max(1, keepdim=True).indices


def _of_callable(model: Callable[[Tensor], Tensor], x: Tensor, of: str, target: Tensor | None, chunk_size: int | None) -> Tensor:
    """Return the norms by torch.func, float64 `[N]`: whole Jacobians of the logits, a chunk of points at a time."""
    if isinstance(model, nn.Module):
        _check_evaluation_mode(model)
    shape = _logits_shape(model, x[:1])
    if target is not None:
        _check_target(target, shape[1])

    def logits_twice(point: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(point.unsqueeze(0)).squeeze(0)
        return logits, logits

    jacobian = torch.func.vmap(torch.func.jacrev(logits_twice, has_aux=True))
    size = chunk_size or max(1, GENERIC_CHUNK // (shape[1] * x[0].numel()))
    norms, space = [], _Workspace()
    for start in range(0, len(x), size):
        J, logits = jacobian(x[start : start + size])
        block = J.detach().flatten(2).permute(2, 1, 0).unsqueeze(0).contiguous()
        logits = logits.detach().double().T.unsqueeze(0)
        if target is not None:
            own = target[start : start + size].view(1, 1, -1)
            row = _row(logits, own, of)
            block = (block * row.to(block.dtype).unsqueeze(1)).sum(2, keepdim=True)
        whole = of == "probabilities" and target is None
        norms.append((_softmax_norm(block, logits, space) if whole else _norm(block, space))[0])
    return torch.cat(norms)


def _logits_shape(model: Callable[[Tensor], Tensor], x: Tensor) -> torch.Size:
    """Return the shape of the model's logits for one point `[1, ...]`, or raise InvalidInputError."""
    try:
        with torch.no_grad():
            logits = model(x)
    except (RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InvalidInputError(f"model does not take {x.dtype} points {list(x.shape)}: {reason}") from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1 or not logits.is_floating_point():
        got = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InvalidInputError(f"model must map points [n, ...] to logits [n, C]; it maps {list(x.shape)} to {got}")
    return logits.shape


def _check_evaluation_mode(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module.training and isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd):
            raise InvalidInputError(
                f"model must be in evaluation mode, but its layer {name or type(module).__name__!r} is in training mode: "
                "call model.eval() first"
            )
