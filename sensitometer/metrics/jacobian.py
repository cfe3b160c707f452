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

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..activations import activation
from ..errors import InvalidInputError
from ..networks import MLP, MLPStack

KINDS = ("probabilities", "logits")
# Numbers in the block that is carried through the layers, 2 MiB: larger ones leave the cache.
STRUCTURED_CHUNK = 2**19
# Networks with more layers than this are rescaled at each, a tenth of the time.
DEEP = 4
# Numbers in a chunk of whole Jacobians of an arbitrary model, 64 MiB.
GENERIC_CHUNK = 2**24

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
    if chunk_size is not None and chunk_size < 1:
        raise InvalidInputError(f"chunk_size must be at least 1; got {chunk_size}")
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.ndim < 2 or not len(x):
        raise InvalidInputError("x must be a floating-point tensor of points [N, ...], at least one")
    if target is not None:
        target = _classes(target, len(x))
    if isinstance(model, MLPStack):
        return _of_stack(model, x, of, target, chunk_size).to(x.dtype)
    if isinstance(model, MLP):
        stack = MLPStack([weight.unsqueeze(0) for weight in model.weights], model.activation)
        return _of_stack(stack, x, of, target, chunk_size)[0].to(x.dtype)
    return _of_callable(model, x, of, target, chunk_size).to(x.dtype)


@torch.no_grad()
def jacobian_norms(stack: MLPStack, x: Tensor, *, chunk_size: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the norms of probabilities and of logits from one pass, each float64 `[S, N]`; see `jacobian_norm`."""
    chain = _Chain(stack)
    both = [
        (_softmax_norm(block, logits) * factor, _norm(block) * factor) for block, factor, logits in chain.blocks(x, chunk_size)
    ]
    probabilities, logits = (torch.cat(parts, 1) * chain.scale for parts in zip(*both, strict=True))
    return probabilities, logits


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
        norms = [_softmax_norm(block, logits) * factor for block, factor, logits in chain.blocks(x, chunk_size)]
    else:
        norms = [_norm(block) * factor for block, factor, _ in chain.blocks(x, chunk_size)]
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


class _Chain:
    """The product of weights and slopes, for all networks of a stack and a chunk of points at a time."""

    def __init__(self, stack: MLPStack) -> None:
        self.activation = activation(stack.activation)
        self.exact = [weight.double() for weight in stack.weights]
        # Each layer is divided by its root-mean-square row norm, and the product of these put back at the end: with 65 layers of
        # large weights the chain itself would overflow.
        gains = [weight.norm(dim=(1, 2), keepdim=True) / weight.shape[1] ** 0.5 for weight in self.exact]
        gains = [torch.where(gain == 0, 1.0, gain) for gain in gains]
        self.weights = [(weight / gain).float() for weight, gain in zip(self.exact, gains, strict=True)]
        self.scale = torch.stack(gains).prod(0).view(-1, 1)
        self.last = self.exact[-1] / gains[-1]
        first: Tensor = self.weights[0]
        if first.shape[1] < first.shape[2]:
            first = torch.linalg.qr(first.transpose(1, 2), mode="r").R.transpose(1, 2)
        self.first = first  # F, [S, W, R]

    def _points(self, x: Tensor, chunk_size: int | None, rows: int) -> Iterator[tuple[slice, Tensor, list[Tensor]]]:
        """Yield a chunk's place, its logits, float64 `[S, C, n]`, and its slopes, `L - 1` tensors float32 `[S, W, 1, n]`."""
        S, W, _ = self.weights[0].shape
        size = chunk_size or max(16, STRUCTURED_CHUNK // (S * W * rows))
        for start in range(0, x.shape[0], size):
            place = slice(start, start + size)
            h = (self.exact[0].flatten(0, 1) @ x[place].double().T).view(S, W, -1)
            slopes = []
            for weight in self.exact[1:]:
                slopes.append(self.activation.slope(self.activation.apply_(h)).float().unsqueeze(2))
                h = torch.bmm(weight, h)
            yield place, h, slopes

    def blocks(self, x: Tensor, chunk_size: int | None) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """
        Yield chunk by chunk what the norms are computed from.

        The Jacobian of the logits times F, over factor and `scale`, float32 `[S, R, C, n]`; factor, float64 `[S, n]` or
        `[S, 1]`; the logits, float64 `[S, C, n]`.
        """
        C, R = self.weights[-1].shape[1], self.first.shape[2]
        for _, logits, slopes in self._points(x, chunk_size, min(C, R)):
            if not slopes:
                block = self.first.transpose(1, 2).unsqueeze(3).expand(-1, -1, -1, logits.shape[2])
                factor = torch.ones_like(self.scale)
            elif C <= R:
                block, factor = self._from_outputs(self.weights[-1].transpose(1, 2).unsqueeze(3), slopes)
            else:
                block, factor = self._from_inputs(slopes)
            yield block, factor, logits

    def row_norms(self, x: Tensor, target: Tensor, of: str, chunk_size: int | None) -> Iterator[Tensor]:
        """Yield the norms of the rows that belong to `target` `[N]`, over scale, float64 `[S, n]`."""
        for place, logits, slopes in self._points(x, chunk_size, 1):
            own = target[place].expand(len(logits), 1, -1)
            row = torch.zeros_like(logits).scatter_(1, own, 1.0) if of == "logits" else _softmax_row(logits, own)
            largest = row.abs().amax(1)
            row = row / torch.where(largest == 0, 1.0, largest).unsqueeze(1)
            if slopes:
                start = torch.bmm(self.last.transpose(1, 2), row).float().unsqueeze(2)
                block, factor = self._from_outputs(start, slopes)
                largest = largest * factor
            else:  # a linear model has no layer below its last: its rows are mixed from F itself
                block = torch.bmm(self.first.transpose(1, 2), row.float()).unsqueeze(2)
            yield _norm(block) * largest

    def _from_outputs(self, rows: Tensor, slopes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Carry `rows` `[S, W, C, n or 1]`, the chain above the last slopes, back through all layers to F: block and factor."""
        block, factor = rows * slopes[-1], torch.ones_like(self.scale)
        below = [self.first, *self.weights[1:-1]]
        for layer in range(len(slopes) - 1, -1, -1):
            block, factor = self._rescaled(block, factor)
            block = torch.bmm(below[layer].transpose(1, 2), block.flatten(2)).view(len(block), -1, *block.shape[2:])
            if layer:
                block.mul_(slopes[layer - 1])
        return self._rescaled(block, factor)

    def _from_inputs(self, slopes: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Carry F forward through all layers: block and factor."""
        block, factor = self.first.unsqueeze(3), torch.ones_like(self.scale)
        for weight, slope in zip(self.weights[1:], slopes, strict=True):
            block, factor = self._rescaled(block * slope, factor)
            block = torch.bmm(weight, block.flatten(2)).view(*weight.shape[:2], *block.shape[2:])
        block, factor = self._rescaled(block, factor)
        return block.transpose(1, 2), factor

    def _rescaled(self, block: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
        """
        Move the size of each point's block into its factor, in networks so deep that float32 could not hold the product.

        Saturated units shrink the block by orders of magnitude a layer. In shallow networks what is lost so is below 1e-12.
        """
        if len(self.weights) <= DEEP:
            return block, factor
        largest = block.abs().amax((1, 2), keepdim=True)
        largest = torch.where(largest == 0, 1.0, largest)
        return block / largest, factor * largest.view(len(block), -1).double()


def _norm(block: Tensor) -> Tensor:
    """Return the Frobenius norms of `block` `[S, R, C, n]`, float64 `[S, n]`."""
    return block.square().sum((1, 2)).sqrt().double()


def _softmax_norm(block: Tensor, logits: Tensor) -> Tensor:
    r"""
    Return $\|(\mathrm{diag}(p) - p p^T) J\|_F$ for `block` J `[S, R, C, n]` and `logits` `[S, C, n]`; float64 `[S, n]`.

    Written with the differences $Y_j = J_j - J_m$ from the most probable class m, the rows are $p_i (Y_i - v)$ with
    $v = \sum_{j \ne m} p_j Y_j$, and $-p_m v$ for m itself. No $1 - p_m$ occurs, which float32 rounds to 0 for well-fitted
    points. The second-largest probability t is taken out as a factor, so that none underflows either.
    """
    p, top = _probabilities(logits)
    others = p.scatter(1, top, 0.0)
    t = others.amax(1, keepdim=True)
    q = (others / torch.where(t == 0, 1.0, t)).float().unsqueeze(1)
    Y = block - block.gather(2, top.unsqueeze(1).expand(-1, block.shape[1], -1, -1))
    v = (q * Y).sum(2)
    rest = (Y - (t.float() * v).unsqueeze(2)).mul_(q).square().sum((1, 2))
    return (rest + (p.gather(1, top).float() * v).square().sum(1)).double().sqrt() * t.squeeze(1)


def _softmax_row(logits: Tensor, own: Tensor) -> Tensor:
    r"""Return row y of $\mathrm{diag}(p) - p p^T$ for `logits` `[S, C, n]` and classes `own` `[S, 1, n]`; float64 `[S, C, n]`."""
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
    with torch.no_grad():
        shape = model(x[:1]).shape
    if len(shape) != 2 or shape[0] != 1:
        raise InvalidInputError(f"model must map points [n, ...] to logits [n, C]; it maps {list(x[:1].shape)} to {list(shape)}")
    if target is not None:
        _check_target(target, shape[1])

    def logits_twice(point: Tensor) -> tuple[Tensor, Tensor]:
        logits = model(point.unsqueeze(0)).squeeze(0)
        return logits, logits

    jacobian = torch.func.vmap(torch.func.jacrev(logits_twice, has_aux=True))
    size = chunk_size or max(1, GENERIC_CHUNK // (shape[1] * x[0].numel()))
    norms = []
    for start in range(0, len(x), size):
        J, logits = jacobian(x[start : start + size])
        block, logits = J.detach().flatten(2).permute(2, 1, 0).unsqueeze(0), logits.detach().double().T.unsqueeze(0)
        if target is not None:
            own = target[start : start + size].view(1, 1, -1)
            row = torch.zeros_like(logits).scatter_(1, own, 1.0) if of == "logits" else _softmax_row(logits, own)
            block = (block * row.to(block.dtype).unsqueeze(1)).sum(2, keepdim=True)
        norm = _softmax_norm(block, logits) if of == "probabilities" and target is None else _norm(block)
        norms.append(norm[0])
    return torch.cat(norms)


def _check_evaluation_mode(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if module.training and isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd):
            raise InvalidInputError(
                f"model must be in evaluation mode, but its layer {name or type(module).__name__!r} is in training mode: "
                "call model.eval() first"
            )
