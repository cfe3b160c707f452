"""The operations of an exported program: which are affine in the points, and which are piecewise linear."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, fx, nn

from ....errors import InvalidInputError
from ..graph import Elementwise, Maximum, Pieces

# Affine in each argument that depends on the points, however many do.
LINEAR = {
    *("add", "sub", "rsub", "neg", "cat", "stack", "sum", "mean", "clone", "alias", "detach", "contiguous", "lift_fresh_copy"),
    *("view", "_unsafe_view", "reshape", "flatten", "unflatten", "permute", "transpose", "t", "numpy_T", "movedim", "squeeze"),
    *("unsqueeze", "expand", "expand_as", "repeat", "flip", "roll", "split", "split_with_sizes", "chunk", "unbind", "slice"),
    *("select", "narrow", "index_select", "index", "diagonal", "pad", "constant_pad_nd", "reflection_pad1d", "reflection_pad2d"),
    *("reflection_pad3d", "replication_pad1d", "replication_pad2d", "replication_pad3d", "avg_pool1d", "avg_pool2d"),
    *("avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_avg_pool3d"),
    *("_adaptive_avg_pool3d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "_upsample_nearest_exact1d"),
    *("_upsample_nearest_exact2d", "upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "im2col", "unfold", "col2im", "cumsum", "tril", "triu", "swapaxes"),
    *("to", "_to_copy", "type_as", "dropout", "feature_dropout", "view_as", "reshape_as", "identity", "ravel", "swapdims"),
}
# Affine as long as one argument alone depends on the points.
PRODUCTS = {
    *("mul", "div", "linear", "addmm", "mm", "bmm", "matmul", "baddbmm", "einsum", "conv1d", "conv2d", "conv3d", "convolution"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm", "_native_batch_norm_legit_no_training"),
    *("cudnn_batch_norm", "native_batch_norm", "dot", "mv", "outer", "addmv"),
}
RELU = Elementwise(np.array([0.0]))


def gives_tensors(node: fx.Node) -> bool:
    """Return whether a node returns a tensor, or several."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(isinstance(part, Tensor) for part in value))


def operation(node: fx.Node) -> str:
    """Return the name of a node's operator, without its namespace and overload."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.rpartition("::")[2] if schema else getattr(node.target, "__name__", str(node.target))


def overload(node: fx.Node) -> str:
    """Return the name of a node's overload."""
    return getattr(getattr(node.target, "_schema", None), "overload_name", "")


def arguments(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of a node by their names, defaults included."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    given = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    given.update(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    return {**given, **node.kwargs}


def _module(node: fx.Node) -> tuple[str, str]:
    """Return the path of the module that calls a node, and the name of its class."""
    stack = node.meta.get("nn_module_stack") or {}
    path, kind = list(stack.values())[-1] if stack else ("", "")
    kind = kind if isinstance(kind, str) else getattr(kind, "__name__", "")
    return str(path), kind.rpartition(".")[2]


def where(node: fx.Node) -> str:
    """Say where a node is called."""
    path, kind = _module(node)
    return f"module {path!r}" if path else kind or "the model"


def label(node: fx.Node) -> str:
    """Name an activation: the path of its own module, or that of the module whose code calls it, and the operation."""
    (path, kind), name = _module(node), operation(node).removesuffix("_with_indices")
    of_torch = kind in dir(nn) and kind not in ("Module", "Sequential", "ModuleList", "ModuleDict")
    return path if of_torch and path else f"{path}:{name}" if path else name


def sizes(value: Tensor) -> str:
    """Write the sizes of a tensor of n points."""
    return "[" + ", ".join("n" if not isinstance(size, int) else str(size) for size in value.shape) + "]"


def not_linear(node: fx.Node, name: str) -> InvalidInputError:
    """Return what to raise for an operation that is not piecewise linear."""
    return InvalidInputError(
        f"exact regions need a piecewise-linear model: {name} at {where(node)} is not; "
        "method='sampled', where there is one, compares activations at samples"
    )


class Call(NamedTuple):
    """A call of a piecewise-linear operation."""

    node: fx.Node
    given: dict[str, Any]  # the arguments by name, defaults included
    shape: tuple[int, ...]  # of the pre-activations at one point
    result_shape: tuple[int, ...]  # of the result at one point
    batch: int  # the dimension of the points in the pre-activations

    def check_points_first(self, name: str) -> None:
        """Refuse points that are not the first dimension."""
        if self.batch:
            raise not_linear(self.node, f"{name} of points that are not the first dimension")


# Returns the operation from a module's constants, by name.
PiecesOf = Callable[[Mapping[str, Any]], Pieces]
# Returns the operation of a call, or how to get it from the constants.
Maker = Callable[[Call], Pieces | PiecesOf]


def _elementwise(*boundaries: float, **parameters: float) -> Elementwise:
    return Elementwise(np.array(boundaries), **{name: float(value) for name, value in parameters.items()})


def _clamp(low: str, high: str) -> Maker:
    def make(call: Call) -> Pieces:
        limits = [call.given.get(name) for name in (low, high)]
        if not all(limit is None or isinstance(limit, int | float) for limit in limits):
            raise not_linear(call.node, f"{operation(call.node)} with tensors as limits")
        lowest, highest = (-math.inf if limits[0] is None else limits[0], math.inf if limits[1] is None else limits[1])
        if not lowest < highest:
            raise not_linear(call.node, f"{operation(call.node)} between {lowest} and {highest}, an empty range,")
        finite = [float(limit) for limit in (lowest, highest) if math.isfinite(limit)]
        if not finite:
            raise not_linear(call.node, f"{operation(call.node)} without limits")
        return _elementwise(*finite, low=lowest, high=highest)

    return make


def _leaky(slope: Callable[[dict[str, Any]], float]) -> Maker:
    return lambda call: Elementwise(np.array([0.0]), leak=np.array([slope(call.given)]))


def _prelu(call: Call) -> PiecesOf:
    call.check_points_first("prelu")
    weight, shape = call.given["weight"].name, call.shape

    def make(known: Mapping[str, Any]) -> Pieces:
        slopes = known[weight].numpy()
        if slopes.size > 1:
            # One per channel: the first dimension of a point.
            slopes = np.broadcast_to(slopes.reshape(-1, *[1] * (len(shape) - 1)), shape)
        return Elementwise(np.array([0.0]), leak=np.array(slopes).reshape(-1))

    return make


def _threshold(call: Call) -> Pieces:
    threshold, value = call.given["threshold"], call.given["value"]
    if threshold != value:
        raise not_linear(call.node, f"threshold, which jumps from {value} to {threshold},")
    return _elementwise(threshold, low=threshold)


def _pool(dimensions: int) -> Maker:
    def make(call: Call) -> Pieces:
        call.check_points_first("pooling")

        def each(name: str, default: Sequence[int]) -> list[int]:
            value = call.given.get(name)
            value = [value] if isinstance(value, int) else list(value or default)
            return value * dimensions if len(value) == 1 else value

        kernel = each("kernel_size", ())
        settings = kernel, each("stride", kernel), each("padding", (0,)), each("dilation", (1,))
        windows = []
        for size, count, *setting in zip(call.shape[-dimensions:], call.result_shape[-dimensions:], *settings, strict=True):
            width, stride, padding, dilation = setting
            places = np.arange(count)[:, None] * stride - padding + np.arange(width) * dilation
            windows.append(np.where((places >= 0) & (places < size), places, -1))
        return Maximum(_candidates(call.shape, windows))

    return make


def _adaptive_pool(call: Call) -> Pieces:
    output_size = call.given["output_size"]
    dimensions = len(output_size) if isinstance(output_size, list | tuple) else 1
    call.check_points_first("pooling")
    windows = []
    for size, count in zip(call.shape[-dimensions:], call.result_shape[-dimensions:], strict=True):
        first = np.arange(count) * size // count
        last = -(-(np.arange(count) + 1) * size // count)
        places = first[:, None] + np.arange(int((last - first).max()))
        windows.append(np.where(places < last[:, None], places, -1))
    return Maximum(_candidates(call.shape, windows))


def _candidates(shape: tuple[int, ...], windows: Sequence[Any]) -> Any:
    """Return the candidates `[units, K]` of windows `[out, kernel]` along each of the last dimensions of points of this shape."""
    candidates = np.arange(math.prod(shape[: len(shape) - len(windows)]))[:, None]
    for window, size in zip(windows, shape[len(shape) - len(windows) :], strict=True):
        outer, inner = candidates[:, None, :, None], window[None, :, None, :]
        places = np.where((outer >= 0) & (inner >= 0), outer * size + inner, -1)
        candidates = places.reshape(len(candidates) * len(window), -1)
    return candidates


def _over_dimensions(sign: float) -> Maker:
    def make(call: Call) -> Pieces:
        dims, rank = call.given.get("dim"), len(call.shape) + 1
        dims = [dims] if isinstance(dims, int) else list(dims or range(rank))
        dims = [dim % rank for dim in dims]
        if call.batch in dims:
            name = operation(call.node)
            raise InvalidInputError(f"model must treat each point alone: {name} at {where(call.node)} is over all points")
        of_point = [dim - (dim > call.batch) for dim in dims]
        numbers = np.arange(math.prod(call.shape)).reshape(call.shape)
        numbers = np.moveaxis(numbers, of_point, range(-len(of_point), 0))
        return Maximum(numbers.reshape(-1, math.prod(call.shape[dim] for dim in of_point)), sign)

    return make


PIECES: dict[str, Maker] = {
    "relu": lambda _: RELU,
    "relu6": lambda _: _elementwise(0.0, 6.0, high=6.0),
    "hardtanh": _clamp("min_val", "max_val"),
    "clamp": _clamp("min", "max"),
    "clamp_min": _clamp("min", ""),
    "clamp_max": _clamp("", "max"),
    "hardsigmoid": lambda _: _elementwise(-3.0, 3.0, scale=1 / 6, shift=0.5, high=1.0),
    "leaky_relu": _leaky(lambda given: float(given["negative_slope"])),
    "rrelu": _leaky(lambda given: (float(given["lower"]) + float(given["upper"])) / 2),
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "abs": _leaky(lambda _: -1.0),
    "threshold": _threshold,
    **{f"max_pool{n}d{ending}": _pool(n) for n in (1, 2, 3) for ending in ("", "_with_indices")},
    **{f"adaptive_max_pool{n}d": _adaptive_pool for n in (1, 2, 3)},
    "amax": _over_dimensions(1.0),
    "amin": _over_dimensions(-1.0),
    "max": _over_dimensions(1.0),
    "min": _over_dimensions(-1.0),
}
