r"""
Reads any `nn.Module` as a graph of piecewise-linear operations, with `torch.export`.

The module is exported once, for any number of points, and the graph is remembered as long as the module lives. Its parameters are
read each time the graph is used, so that a module in training is measured as it is. The module itself is left as it was.

Each operation is affine in the points, or piecewise linear; otherwise the model is refused, in one line that names the operation,
where it is called, and what can be had instead.
"""

import itertools
import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind
from torch.fx.node import map_arg

from ...errors import InvalidInputError
from ..jacobian import REFUSALS, check_evaluation_mode, first_line, not_taken
from .convolution import convolve
from .graph import Calls, Elementwise, Graph, Linear, Maximum, Pieces, Stage

# Affine in each argument that depends on the points, however many do.
_LINEAR = {
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
_PRODUCTS = {
    *("mul", "div", "linear", "addmm", "mm", "bmm", "matmul", "baddbmm", "einsum", "conv1d", "conv2d", "conv3d", "convolution"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm", "_native_batch_norm_legit_no_training"),
    *("cudnn_batch_norm", "native_batch_norm", "dot", "mv", "outer", "addmv"),
}
_RELU = Elementwise((0.0,))
# The probe: so many points, none of which may change what comes of another.
PROBES = 3
# Outputs of the module and of its remembered graph that differ by more than this are those of two functions.
SAME = 1e-3


def module_graph(model: Callable[[Tensor], Tensor], points: Tensor) -> Graph:
    """
    Return the graph of a model, in float64, with its parameters as they are now.

    Parameters
    ----------
    model
        A module, or another callable, of points `[n, ...]`.
    points
        Some points `[n, ...]`, as they are to come.

    Raises
    ------
    InvalidInputError
        The model is in training mode, cannot be exported, does not take the points, mixes them, has other than floating-point
        parameters, or has an operation that is not piecewise linear.
    """
    if not callable(model):
        raise InvalidInputError(f"model must be an MLP, an MLPStack, a module or another callable; got {type(model).__name__}")
    module = model if isinstance(model, nn.Module) else _Wrapped(model)
    check_evaluation_mode(module)
    points = points[:PROBES].to(_device(module), _dtype(module))
    state = _state(module), tuple(points.shape[1:])
    program = _remembered(module, state)
    if program is not None:
        graph = program.bind(module)
        if _agrees(module, graph, points):
            return graph
    program = _read(module, points)
    graph = program.bind(module)
    _check_rows(graph, points)
    if module is model:
        _PROGRAMS.setdefault(module, {})[state] = program
    return graph


class _Wrapped(nn.Module):
    """A callable that is no module, as one."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Call it."""
        return self.function(x)


_PROGRAMS: "WeakKeyDictionary[nn.Module, dict[Any, _Program]]" = WeakKeyDictionary()


def _remembered(module: nn.Module, state: Any) -> "_Program | None":
    return _PROGRAMS.get(module, {}).get(state)


def _state(module: nn.Module) -> Any:
    """Return what a graph depends on, beside what the module's code reads elsewhere."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    shapes = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors)
    return shapes, tuple((id(part), part.training) for part in module.modules())


def _dtype(module: nn.Module) -> torch.dtype:
    return next((one.dtype for one in module.parameters() if one.is_floating_point()), torch.float32)


def _device(module: nn.Module) -> torch.device:
    return next((one.device for one in itertools.chain(module.parameters(), module.buffers())), torch.device("cpu"))


@torch.no_grad()
def _agrees(module: nn.Module, graph: Graph, points: Tensor) -> bool:
    """Return whether a module still computes what its remembered graph does: its code may read what is no parameter."""
    expected, found = module(points.clone()), graph.outputs(points.cpu())
    if not isinstance(expected, Tensor) or expected.shape != found.shape:
        return False
    expected = expected.detach().cpu().double()
    return bool((expected - found).abs().max() <= SAME * expected.abs().max().clamp(min=1e-300)) if expected.numel() else True


@torch.no_grad()
def _check_rows(graph: Graph, points: Tensor) -> None:
    """Refuse a model in which a point's output depends on other points."""
    points = points.cpu().double()
    probes = torch.cat([points, points.flip(0) * 0.5 + 0.1])[: max(2, PROBES)]
    together = graph.outputs(probes)
    for place in range(len(probes)):
        alone = graph.outputs(probes[place : place + 1])[0]
        if not torch.allclose(together[place], alone, rtol=1e-9, atol=1e-9 * float(together.abs().max().nan_to_num(1.0))):
            raise InvalidInputError("model must treat each point alone, but the output of one point changes with the others")


@dataclass(eq=False)
class _Op:
    """
    One operation of a program.

    Attributes
    ----------
    name, inputs
        Of what it returns, and of what it takes.
    run
        Evaluates it, from all values by name.
    kind
        `constant`: of parameters alone; `sized`: of parameters and the number of points; `affine` or `pieces`: of the points.
    shape, batch
        Of a value that is a tensor of points: the shape at one point, and which dimension the points are.
    source, pieces
        Of `pieces`: the pre-activations' name, and the operation, from the constants.
    place
        Where it is called, for people.
    """

    name: str
    inputs: tuple[str, ...]
    run: Callable[[Mapping[str, Any]], Any]
    kind: str
    shape: tuple[int, ...] = ()
    batch: int = 0
    source: str = ""
    pieces: Callable[[Mapping[str, Any]], Pieces] | None = None
    place: str = ""
    target: str = ""


@dataclass(frozen=True, eq=False)
class _Program:
    """An exported module: its operations in order, its input's and output's names, and where its parameters come from."""

    ops: list[_Op]
    input: str
    output: str
    parameters: dict[str, str]
    constants: dict[str, Any]

    @torch.no_grad()
    def bind(self, module: nn.Module) -> Graph:
        """Return the graph with the parameters of the module as they are now."""
        known: dict[str, Any] = {name: _double(value) for name, value in self.constants.items()}
        for name, target in self.parameters.items():
            known[name] = _double(operator.attrgetter(target)(module))
        for op in self.ops:
            if op.kind == "constant":
                known[op.name] = op.run(known)
        by_name = {op.name: op for op in self.ops}
        stages: list[Stage] = []
        alive, calls = [self.input], list[_Op]()
        for place, op in enumerate(self.ops):
            if op.kind == "affine":
                calls.append(op)
            if op.kind != "pieces":
                continue
            assert op.pieces is not None
            later = self._needed(place, by_name)
            outputs = tuple(dict.fromkeys([op.source, *later]))
            affine = self._affine(alive, calls, outputs, known, by_name)
            widths = {name: math.prod(by_name[name].shape) for name in outputs}
            width = max(sum(widths.values()), math.prod(op.shape) + sum(widths[name] for name in later))
            stages.append(Stage(op.place, affine, op.pieces(known), op.source, op.name, op.shape, later, width))
            alive, calls = [*later, op.name], []
        tail = self._calls(alive, calls, (self.output,), known, by_name)
        return Graph(tuple(stages), tail, self.input, by_name[self.input].shape, 1)

    def _needed(self, place: int, by_name: Mapping[str, _Op]) -> tuple[str, ...]:
        """Return the values of points that were there before an operation, and are needed after it."""
        used = {name for op in self.ops[place + 1 :] for name in op.inputs} | {self.output}
        before = self.ops[:place]
        return tuple(op.name for op in before if op.kind in ("affine", "pieces", "input") and op.name in used)

    def _calls(
        self,
        alive: Sequence[str],
        calls: Sequence[_Op],
        outputs: tuple[str, ...],
        known: Mapping[str, Any],
        by_name: Mapping[str, _Op],
    ) -> Calls:
        """Return the affine map from what is alive to the outputs."""
        sized = [op for op in self.ops if op.kind == "sized"]
        needed = {name for op in calls for name in op.inputs}
        used_sizes: list[_Op] = []
        for op in reversed(sized):
            if op.name in needed:
                used_sizes.insert(0, op)
                needed |= set(op.inputs)
        batch = {name: by_name[name].batch for name in (*alive, *outputs)}
        input_rank = by_name[self.input]

        def run(given: Mapping[str, Tensor]) -> dict[str, Tensor]:
            values = dict(known)
            rows = len(next(iter(given.values())))
            # Sizes are asked of the points, which may be gone: of points that take no memory.
            values[self.input] = torch.empty(rows, *input_rank.shape, device="meta")
            for op in used_sizes:
                values[op.name] = op.run(values)
            for name, value in given.items():
                values[name] = value.movedim(0, batch[name]) if batch[name] else value
            for op in calls:
                values[op.name] = op.run(values)
            return {name: values[name].movedim(batch[name], 0) if batch[name] else values[name] for name in outputs}

        sizes = [math.prod(by_name[name].shape) for name in (*alive, *(op.name for op in calls))]
        return Calls(run, outputs, max(sizes, default=1))

    def _affine(
        self,
        alive: Sequence[str],
        calls: Sequence[_Op],
        outputs: tuple[str, ...],
        known: Mapping[str, Any],
        by_name: Mapping[str, _Op],
    ) -> Linear | Calls:
        """Return the affine map from what is alive to the outputs; `Linear` if it is one matrix product and nothing else."""
        products = [op for op in calls if op.target not in _SAME_NUMBERS]
        if len(alive) == len(outputs) == len(products) == 1 and products[0].target == "linear" and not products[0].batch:
            (op,) = products
            weight, bias = (known.get(name) for name in (*op.inputs[1:], "", "")[:2])
            flat = len(by_name[op.inputs[0]].shape) == 1
            if flat and isinstance(weight, Tensor) and math.prod(by_name[outputs[0]].shape) == len(weight):
                return Linear(weight.T.contiguous().unsqueeze(0), None if bias is None else bias.unsqueeze(0))
        return self._calls(alive, calls, outputs, known, by_name)


# Operations after which the numbers of each point are the same, in the same order, if the points come first on both sides.
_SAME_NUMBERS = {
    "view",
    "_unsafe_view",
    "reshape",
    "flatten",
    "clone",
    "alias",
    "detach",
    "contiguous",
    "dropout",
    "to",
    "_to_copy",
}


def _double(value: Any) -> Any:
    return value.detach().cpu().double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _read(module: nn.Module, points: Tensor) -> _Program:
    """Export a module, and sort its operations; InvalidInputError if it cannot be read."""
    try:
        with torch.no_grad():
            answer = module(points.clone())
    except REFUSALS as error:
        raise not_taken(points, error) from error
    if not isinstance(answer, Tensor) or not answer.is_floating_point():
        raise InvalidInputError(f"model must return a floating-point tensor; it returns {type(answer).__name__}")
    example = points[:1].repeat(2, *[1] * (points.ndim - 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("points")},), strict=False)
            program = program.run_decompositions({})
    except InvalidInputError:
        raise
    except Exception as error:
        # torch.export does not say what it raises for what it cannot trace
        raise InvalidInputError(
            f"model cannot be read as a graph, which exact regions need: torch.export says: {first_line(error)}; "
            "transitions along paths are counted without a graph by method='sampled'"
        ) from error
    return _Reader(program).program()


class _Reader:
    """Sorts the nodes of an exported program."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.nodes = list(program.graph.nodes)
        self.parameters: dict[str, str] = {}
        self.constants: dict[str, Any] = {}
        self.input = ""
        self.ops: dict[str, _Op] = {}
        for spec in program.graph_signature.input_specs:
            if spec.kind == InputKind.USER_INPUT:
                self.input = spec.arg.name
            elif spec.kind == InputKind.CONSTANT_TENSOR or spec.persistent is False:
                self.constants[spec.arg.name] = program.constants[spec.target]
            else:
                self.parameters[spec.arg.name] = spec.target
        (placeholder,) = (node for node in self.nodes if node.op == "placeholder" and node.name == self.input)
        self.symbol = str(placeholder.meta["val"].shape[0])
        self.ops[self.input] = _Op(self.input, (), lambda _: None, "input", tuple(placeholder.meta["val"].shape[1:]))

    def program(self) -> _Program:
        """Return the program, or raise InvalidInputError with the operation that is not taken."""
        output = ""
        for node in self.nodes:
            if node.op == "output":
                (output,) = (one.name for one in node.args[0])
            elif node.op == "call_function" and node.name not in self.ops:
                self._add(node)
            elif node.op not in ("placeholder", "call_function"):
                raise InvalidInputError(f"model must be made of tensor operations alone; {_where(node)} is {node.op}")
        if output not in self.ops:
            raise InvalidInputError("model must depend on its points; its output is constant")
        return _Program(list(self.ops.values()), self.input, output, self.parameters, self.constants)

    def _add(self, node: fx.Node) -> None:
        inputs = tuple(one.name for one in node.all_input_nodes)
        kinds = {self.ops[name].kind for name in inputs if name in self.ops}
        if not kinds & {"affine", "pieces", "input"} or not _tensors(node):
            # Of a value that depends on the points, what is no tensor is a size.
            kind = "sized" if kinds & {"sized", "affine", "pieces", "input"} else "constant"
            self.ops[node.name] = _Op(node.name, inputs, _runner(node), kind)
            return
        name = _operation(node)
        varying = [one for one in node.all_input_nodes if self.ops.get(one.name) and self.ops[one.name].kind in _VARYING]
        if name in ("maximum", "minimum") or (name in ("max", "min") and len(varying) and _overload(node) == "other"):
            self._add_of_two(node, name[:3])
            return
        maker = _PIECES.get(name)
        if maker is not None:
            self._add_pieces(node, maker, varying)
            return
        self._check_affine(node, name, varying)
        shape, batch = self._layout(node)
        self.ops[node.name] = _Op(node.name, inputs, _runner(node), "affine", shape, batch, place=_where(node), target=name)
        if isinstance(node.meta.get("val"), tuple | list):
            # At once: no tuple lives on after a piecewise-linear operation.
            for user in node.users:
                if _operation(user) == "getitem":
                    self._add(user)

    def _layout(self, node: fx.Node) -> tuple[tuple[int, ...], int]:
        """Return the shape at one point, and the dimension of the points."""
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return (), 0
        places = [place for place, size in enumerate(value.shape) if not isinstance(size, int)]
        if len(places) != 1 or str(value.shape[places[0]]) != self.symbol:
            raise InvalidInputError(
                f"model must treat each point alone: {_operation(node)} at {_where(node)} returns {_sizes(value)}, "
                "in which the points have no dimension of their own"
            )
        shape = list(value.shape)
        del shape[places[0]]
        return tuple(shape), places[0]

    def _check_affine(self, node: fx.Node, name: str, varying: Sequence[fx.Node]) -> None:
        given = _arguments(node)
        if given.get("training") is True or given.get("train") is True:
            raise InvalidInputError(f"model must be in evaluation mode; {_where(node)} was exported in training mode")
        places = [place for place, one in enumerate(node.args) if isinstance(one, fx.Node) and one in varying]
        first = name != "div" or (places == [0] and given.get("rounding_mode") is None)
        if name in ("index", "index_select") and places != [0]:
            first = False
        if name == "getitem" or (name in _LINEAR and first) or (name in _PRODUCTS and len(varying) == 1 and first):
            if name in _PRODUCTS and len(places) != 1 and name != "einsum":
                raise _not_linear(node, f"{name} of two values that depend on the points")
            return
        if name == "where" and places and 0 not in places:
            return
        if name == "masked_fill" and places == [0]:
            return
        raise _not_linear(node, f"{name} of two values that depend on the points" if name in _PRODUCTS else name)

    def _add_pieces(self, node: fx.Node, maker: "_Maker", varying: Sequence[fx.Node]) -> None:
        source: Any = node.args[0]
        if [source] != list(varying):
            raise _not_linear(node, f"{_operation(node)} with limits that depend on the points")
        name, value = node, node.meta["val"]
        if isinstance(value, tuple | list):
            used: dict[Any, fx.Node] = {user.args[1]: user for user in node.users}
            if any(user.users for place, user in used.items() if place != 0):
                raise _not_linear(node, f"the place of the winner of {_operation(node)}")
            name = used[0]
            for place, user in used.items():
                if place != 0:
                    self.ops[user.name] = _Op(user.name, (), lambda _: None, "unused")
        shape, batch = self._layout(name)
        of_source = self.ops[source.name]
        pieces = maker(node, _arguments(node), of_source.shape, of_source.batch, shape)
        self.ops[node.name] = _Op(
            name.name, (source.name,), lambda _: None, "pieces", shape, batch, source.name, pieces, _label(node)
        )
        if name is not node:
            self.ops[name.name] = self.ops.pop(node.name)

    def _add_of_two(self, node: fx.Node, kind: str) -> None:
        """Add `b + relu(a - b)` for the maximum of a and b, or `a - relu(a - b)` for the minimum."""
        one, other = (argument.name if isinstance(argument, fx.Node) else argument for argument in node.args[:2])
        shape, batch = self._layout(node)
        full = list(shape)
        full.insert(batch, -1)
        apart, above = f"{node.name}.difference", f"{node.name}.above"

        def value(values: Mapping[str, Any], name: Any) -> Any:
            return values[name] if isinstance(name, str) else name

        def difference(values: Mapping[str, Any]) -> Any:
            return torch.sub(value(values, one), value(values, other))

        def together(values: Mapping[str, Any]) -> Any:
            if kind == "max":
                return value(values, other) + values[above]
            return value(values, one) - values[above]

        named = tuple(name for name in (one, other) if isinstance(name, str))
        place = _where(node)
        self.ops[apart] = _Op(apart, named, difference, "affine", shape, batch, place=place)
        pieces = _Op(above, (apart,), lambda _: None, "pieces", shape, batch, apart, lambda _: _RELU, _label(node))
        self.ops[above] = pieces
        self.ops[node.name] = _Op(node.name, (*named, above), together, "affine", shape, batch, place=place)


_VARYING = ("affine", "pieces", "input")


def _runner(node: fx.Node) -> Callable[[Mapping[str, Any]], Any]:
    """Return what evaluates a node, in float64 on the processor, from all values by name."""
    target: Any = node.target
    args, kwargs = _plain(node.args), _plain(node.kwargs)

    def run(values: Mapping[str, Any]) -> Any:
        def get(one: fx.Node) -> Any:
            return values[one.name]

        return target(*map_arg(args, get), **map_arg(kwargs, get))

    return _convolution(node, run) if _operation(node) in ("conv2d", "convolution") else run


def _convolution(node: fx.Node, plain: Callable[[Mapping[str, Any]], Any]) -> Callable[[Mapping[str, Any]], Any]:
    """Return what evaluates a convolution: a faster loop for that of 3 x 3 pixels, unless gradients go through it."""
    given = _arguments(node)
    x, weight, bias = given["input"], given["weight"], given["bias"]
    settings = {"stride": [1, 1], "padding": [1, 1], "dilation": [1, 1], "groups": 1, "transposed": False}
    common = all(given.get(name, value) == value for name, value in settings.items())
    if not common or list(weight.meta["val"].shape[2:]) != [3, 3]:
        return plain

    def run(values: Mapping[str, Any]) -> Any:
        if values[x.name].requires_grad:
            return plain(values)
        return convolve(values[x.name], values[weight.name], None if bias is None else values[bias.name])

    return run


def _plain(argument: Any) -> Any:
    """Replace floating-point types by float64, and devices by the processor."""
    if isinstance(argument, torch.dtype):
        return torch.float64 if argument.is_floating_point else argument
    if isinstance(argument, torch.device):
        return torch.device("cpu")
    if isinstance(argument, list | tuple):
        return type(argument)(_plain(one) for one in argument) if type(argument) in (list, tuple) else argument
    if isinstance(argument, dict):
        return {name: _plain(one) for name, one in argument.items()}
    return argument


def _tensors(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) or (isinstance(value, tuple | list) and any(isinstance(one, Tensor) for one in value))


def _operation(node: fx.Node) -> str:
    """Return the name of a node's operator, without its namespace and overload."""
    schema = getattr(node.target, "_schema", None)
    return schema.name.rpartition("::")[2] if schema else getattr(node.target, "__name__", str(node.target))


def _overload(node: fx.Node) -> str:
    return getattr(getattr(node.target, "_schema", None), "overload_name", "")


def _arguments(node: fx.Node) -> dict[str, Any]:
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


def _where(node: fx.Node) -> str:
    """Say where a node is called."""
    path, kind = _module(node)
    return f"module {path!r}" if path else kind or "the model"


def _label(node: fx.Node) -> str:
    """Name an activation: the path of its own module, or that of the module whose code calls it, and the operation."""
    path, kind = _module(node)
    operation = _operation(node).removesuffix("_with_indices")
    own = kind in dir(nn) and kind not in ("Module", "Sequential", "ModuleList", "ModuleDict")
    return path if own and path else f"{path}:{operation}" if path else operation


def _sizes(value: Tensor) -> str:
    return "[" + ", ".join("n" if not isinstance(size, int) else str(size) for size in value.shape) + "]"


def _not_linear(node: fx.Node, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"exact regions need a piecewise-linear model: {what} at {_where(node)} is not; "
        "transitions along paths are counted at samples by method='sampled'"
    )


# Takes the node, its arguments, the shape of the pre-activations at one point, the dimension of the points in them, and the shape of
# the result at one point. Returns a function from the constants to the operation.
_Maker = Callable[[fx.Node, dict[str, Any], tuple[int, ...], int, tuple[int, ...]], Callable[[Mapping[str, Any]], Pieces]]


def _fixed(pieces: Pieces) -> Callable[[Mapping[str, Any]], Pieces]:
    return lambda _: pieces


def _clamp(low: str, high: str) -> _Maker:
    def make(node: fx.Node, given: dict[str, Any], *_: Any) -> Callable[[Mapping[str, Any]], Pieces]:
        limits = [given.get(name) for name in (low, high)]
        if not all(limit is None or isinstance(limit, int | float) for limit in limits):
            raise _not_linear(node, f"{_operation(node)} with tensors as limits")
        lowest, highest = (-math.inf if limits[0] is None else limits[0], math.inf if limits[1] is None else limits[1])
        if not lowest < highest:
            raise _not_linear(node, f"{_operation(node)} between {lowest} and {highest}, an empty range,")
        finite = tuple(float(limit) for limit in (lowest, highest) if math.isfinite(limit))
        if not finite:
            raise _not_linear(node, f"{_operation(node)} without limits")
        return _fixed(Elementwise(finite, low=lowest, high=highest))

    return make


def _leaky(slope: Callable[[dict[str, Any]], float]) -> _Maker:
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
        return Elementwise((0.0,), leak=np.ascontiguousarray(slopes).reshape(-1))

    if batch:
        raise _not_linear(node, "prelu of points that are not the first dimension")
    return make


def _threshold(node: fx.Node, given: dict[str, Any], *_: Any) -> Callable[[Mapping[str, Any]], Pieces]:
    if given["threshold"] != given["value"]:
        raise _not_linear(node, f"threshold, which jumps from {given['value']} to {given['threshold']},")
    return _fixed(Elementwise((float(given["threshold"]),), low=float(given["threshold"])))


def _pool(dimensions: int) -> _Maker:
    def make(
        node: fx.Node, given: dict[str, Any], shape: tuple[int, ...], batch: int, out: tuple[int, ...]
    ) -> Callable[[Mapping[str, Any]], Pieces]:
        if batch:
            raise _not_linear(node, "pooling of points that are not the first dimension")

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
        raise _not_linear(node, "pooling of points that are not the first dimension")
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


def _over_dimensions(sign: float) -> _Maker:
    def make(
        node: fx.Node, given: dict[str, Any], shape: tuple[int, ...], batch: int, _: tuple[int, ...]
    ) -> Callable[[Mapping[str, Any]], Pieces]:
        dims = given.get("dim")
        rank = len(shape) + 1
        dims = [dims] if isinstance(dims, int) else list(dims or range(rank))
        dims = [dim % rank for dim in dims]
        if batch in dims:
            raise InvalidInputError(f"model must treat each point alone: {_operation(node)} at {_where(node)} is over all points")
        own = [dim - (dim > batch) for dim in dims]
        numbers = np.moveaxis(np.arange(math.prod(shape)).reshape(shape), own, range(-len(own), 0))
        return _fixed(Maximum(numbers.reshape(-1, math.prod(shape[dim] for dim in own)), sign))

    return make


_PIECES: dict[str, _Maker] = {
    "relu": lambda *_: _fixed(_RELU),
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
