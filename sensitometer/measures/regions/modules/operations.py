"""The operations of an exported program: which are affine in the points, and which are piecewise linear."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

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
RELU = Elementwise((0.0,))


def gives_tensors(node: fx.Node) -> bool:
    """Return whether a node returns a tensor, or several."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(isinstance(one, Tensor) for one in value))


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
    path, kind = _module(node)
    own_name = operation(node).removesuffix("_with_indices")
    own = kind in dir(nn) and kind not in ("Module", "Sequential", "ModuleList", "ModuleDict")
    return path if own and path else f"{path}:{own_name}" if path else own_name


def sizes(value: Tensor) -> str:
    """Write the sizes of a tensor of n points."""
    return "[" + ", ".join("n" if not isinstance(size, int) else str(size) for size in value.shape) + "]"


def not_linear(node: fx.Node, what: str) -> InvalidInputError:
    """Return what to raise for an operation that is not piecewise linear."""
    return InvalidInputError(
        f"exact regions need a piecewise-linear model: {what} at {where(node)} is not; "
        "method='sampled', where there is one, compares activations at samples"
    )


# Takes the node, its arguments, the shape of the pre-activations at one point, the dimension of the points in them, and the shape
# of the result at one point. Returns a function from the constants to the operation.
Maker = Callable[[fx.Node, dict[str, Any], tuple[int, ...], int, tuple[int, ...]], Callable[[Mapping[str, Any]], Pieces]]


def _fixed(pieces: Pieces) -> Callable[[Mapping[str, Any]], Pieces]:
    return lambda _: pieces


def _clamp(low: str, high: str) -> Maker:
    def make(node: fx.Node, given: dict[str, Any], *_: Any) -> Callable[[Mapping[str, Any]], Pieces]:
        limits = [given.get(name) for name in (low, high)]
        if not all(limit is None or isinstance(limit, int | float) for limit in limits):
            raise not_linear(node, f"{operation(node)} with tensors as limits")
        lowest, highest = (-math.inf if limits[0] is None else limits[0], math.inf if limits[1] is None else limits[1])
        if not lowest < highest:
            raise not_linear(node, f"{operation(node)} between {lowest} and {highest}, an empty range,")
        finite = tuple(float(limit) for limit in (lowest, highest) if math.isfinite(limit))
        if not finite:
            raise not_linear(node, f"{operation(node)} without limits")
        return _fixed(Elementwise(finite, low=lowest, high=highest))

    return make


def _leaky(slope: Callable[[dict[str, Any]], float]) -> Maker:
    return lambda node, given, *_: _fixed(Elementwise((0.0,), leak=np.array([slope(given)])))


def _prelu(
    node: fx.Node, given: dict[str, Any], shape: tuple[int, ...], batch: int, _: tuple[int, ...]
) -> Callable[[Mapping[str, Any]], Pieces]:
    weight = given["weight"].name

    def make(known: Mapping[str, Any]) -> Pieces:
        slopes = known[weight].numpy()
        if len(slopes.reshape(-1)) > 1:
            # One per channel: the first dimension of a point.
            slopes = np.broadcast_to(slopes.reshape(-1, *[1] * (len(shape) - 1)), shape)
        return Elementwise((0.0,), leak=np.array(slopes).reshape(-1))

    if batch:
        raise not_linear(node, "prelu of points that are not the first dimension")
    return make


def _threshold(node: fx.Node, given: dict[str, Any], *_: Any) -> Callable[[Mapping[str, Any]], Pieces]:
    if given["threshold"] != given["value"]:
        raise not_linear(node, f"threshold, which jumps from {given['value']} to {given['threshold']},")
    return _fixed(Elementwise((float(given["threshold"]),), low=float(given["threshold"])))


def _pool(dimensions: int) -> Maker:
    def make(
        node: fx.Node, given: dict[str, Any], shape: tuple[int, ...], batch: int, out: tuple[int, ...]
    ) -> Callable[[Mapping[str, Any]], Pieces]:
        if batch:
            raise not_linear(node, "pooling of points that are not the first dimension")

        def each(name: str, default: Sequence[int]) -> list[int]:
            value = given.get(name)
            value = [value] if isinstance(value, int) else list(value or default)
            return value * dimensions if len(value) == 1 else value

        kernel = each("kernel_size", ())
        stride, padding, dilation = each("stride", kernel), each("padding", (0,)), each("dilation", (1,))
        windows = []
        for place, size in enumerate(shape[-dimensions:]):
            count = out[len(out) - dimensions + place]
            at = np.arange(count)[:, None] * stride[place] - padding[place] + np.arange(kernel[place]) * dilation[place]
            windows.append(np.where((at >= 0) & (at < size), at, -1))
        return _fixed(Maximum(_candidates(shape, windows)))

    return make


def _adaptive_pool(
    node: fx.Node, given: dict[str, Any], shape: tuple[int, ...], batch: int, out: tuple[int, ...]
) -> Callable[[Mapping[str, Any]], Pieces]:
    dimensions = len(given["output_size"]) if isinstance(given["output_size"], list | tuple) else 1
    if batch:
        raise not_linear(node, "pooling of points that are not the first dimension")
    windows = []
    for size, count in zip(shape[-dimensions:], out[-dimensions:], strict=True):
        first = np.arange(count) * size // count
        last = -(-(np.arange(count) + 1) * size // count)
        at = first[:, None] + np.arange(int((last - first).max()))
        windows.append(np.where(at < last[:, None], at, -1))
    return _fixed(Maximum(_candidates(shape, windows)))


def _candidates(shape: tuple[int, ...], windows: Sequence[Any]) -> Any:
    """Return the candidates `[units, K]` of windows `[out, kernel]` along each of the last dimensions of points of this shape."""
    lead = math.prod(shape[: len(shape) - len(windows)])
    place, there = np.arange(lead).reshape(lead, *[1] * (2 * len(windows))), np.ones((), bool)
    for number, (window, size) in enumerate(zip(windows, shape[len(shape) - len(windows) :], strict=True)):
        layout = [1] * (1 + 2 * len(windows))
        layout[1 + number], layout[1 + len(windows) + number] = window.shape
        at = window.reshape(layout)
        place, there = place * size + at, there & (at >= 0)
    outs, kernels = (math.prod(window.shape[side] for window in windows) for side in (0, 1))
    whole = (lead, *(window.shape[0] for window in windows), *(window.shape[1] for window in windows))
    return np.where(np.broadcast_to(there, whole), np.broadcast_to(place, whole), -1).reshape(lead * outs, kernels)


def _over_dimensions(sign: float) -> Maker:
    def make(
        node: fx.Node, given: dict[str, Any], shape: tuple[int, ...], batch: int, _: tuple[int, ...]
    ) -> Callable[[Mapping[str, Any]], Pieces]:
        dims = given.get("dim")
        rank = len(shape) + 1
        dims = [dims] if isinstance(dims, int) else list(dims or range(rank))
        dims = [dim % rank for dim in dims]
        if batch in dims:
            raise InvalidInputError(f"model must treat each point alone: {operation(node)} at {where(node)} is over all points")
        own = [dim - (dim > batch) for dim in dims]
        numbers = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), own, range(-len(own), 0))
        return _fixed(Maximum(numbers.reshape(-1, math.prod(shape[dim] for dim in own)), sign))

    return make


PIECES: dict[str, Maker] = {
    "relu": lambda *_: _fixed(RELU),
    "relu6": lambda *_: _fixed(Elementwise((0.0, 6.0), high=6.0)),
    "hardtanh": _clamp("min_val", "max_val"),
    "clamp": _clamp("min", "max"),
    "clamp_min": _clamp("min", ""),
    "clamp_max": _clamp("", "max"),
    "hardsigmoid": lambda *_: _fixed(Elementwise((-3.0, 3.0), 1 / 6, 0.5, 0.0, 1.0)),
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
