r"""
Reads any `nn.Module` as a graph of piecewise-linear operations, with `torch.export`.

The module is exported once, for any number of points, and the graph is remembered as long as the module lives. Its parameters are
read each time the graph is used, so that a module in training is measured as it is. The module itself is left as it was.

Each operation is affine in the points, or piecewise linear; otherwise the model is refused, in one line that names the operation,
where it is called, and what can be had instead.
"""

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx.node import map_arg

from ....errors import InvalidInputError, described
from ....models.adapting import REFUSALS, as_model_takes, check_mode, first_line, not_taken
from ..graph import Graph
from .operations import (
    LINEAR,
    PIECES,
    PRODUCTS,
    RELU,
    Call,
    arguments,
    gives_tensors,
    label,
    not_linear,
    operation,
    overload,
    sizes,
    where,
)
from .program import Op, Program
from .running import Run, convolution, runner

_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}
_NORMALISATIONS = {"batch_norm", "_native_batch_norm_legit_no_training"}
# The probe: so many points, none of which may change what comes of another.
PROBES = 3
# Outputs of the module and of its remembered graph that differ by more than this are those of two functions.
SAME = 1e-3


def module_graph(model: Callable[[Tensor], Tensor], points: Tensor) -> Graph:
    """
    Return the graph of a model of points such as `points` `[n, ...]`, in float64, with its parameters as they are now.

    Raises
    ------
    InvalidInputError
        The model is in training mode, cannot be exported, does not take the points, mixes them, has other than floating-point
        parameters, or has an operation that is not piecewise linear.
    """
    check_mode(model)
    module = model if isinstance(model, nn.Module) else _Wrapped(model)
    points = as_model_takes(module, points[:PROBES])
    state, shape = _state(module), tuple(points.shape[1:])
    before, program = _PROGRAMS.get(module, {}).get(shape, (None, None))
    if program is not None and before == state:
        graph = program.bind(module)
        if _agrees(module, graph, points):
            return graph
    program = _read(module, points)
    graph = program.bind(module)
    _check_rows(graph, points)
    if module is model:
        _PROGRAMS.setdefault(module, {})[shape] = state, program
    return graph


# The newest program of each module for points of each shape, and the module's state when it was read.
_PROGRAMS: "WeakKeyDictionary[nn.Module, dict[tuple[int, ...], tuple[Any, Program]]]" = WeakKeyDictionary()


class _Wrapped(nn.Module):
    """A callable that is no module, as one."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Call the function."""
        return self.function(x)


def _state(module: nn.Module) -> Any:
    """Return what a graph depends on, beside what the module's code reads elsewhere."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    shapes = tuple((name, tuple(tensor.shape), tensor.dtype) for name, tensor in tensors)
    return shapes, tuple((id(part), _attributes(part)) for part in module.modules())


def _attributes(part: nn.Module) -> Any:
    """Return what a module's code may read of it, beside parameters and buffers: plain values, and which objects others are."""
    values = ((name, value) for name, value in vars(part).items() if not name.startswith("_"))
    return tuple((name, value if _is_plain(value) else id(value)) for name, value in values)


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | str | None) or (isinstance(value, tuple) and all(map(_is_plain, value)))


@torch.no_grad()
def _agrees(module: nn.Module, graph: Graph, points: Tensor) -> bool:
    """Return whether a module still computes what its remembered graph does: its code may read what is no parameter."""
    expected, outputs = module(points.clone()), graph.outputs(points.cpu())
    if not isinstance(expected, Tensor) or expected.shape != outputs.shape:
        return False
    same = max(SAME, 32 * torch.finfo(expected.dtype).eps)
    expected = expected.detach().cpu().double()
    return bool(((expected - outputs).abs() <= same * expected.abs().max()).all())


@torch.no_grad()
def _check_rows(graph: Graph, points: Tensor) -> None:
    """Refuse a model in which a point's output depends on other points."""
    points = points.cpu().double()
    probes = torch.cat([points, points.flip(0) * 0.5 + 0.1])[: max(2, PROBES)]
    together = graph.outputs(probes)
    if not together.isfinite().all():
        raise InvalidInputError("the model's numbers must be finite; they overflow float64 at points of the path")
    alone = torch.cat([graph.outputs(probe[None]) for probe in probes])
    if not torch.allclose(together, alone, rtol=1e-9, atol=1e-9 * float(together.abs().max())):
        raise InvalidInputError("model must treat each point alone, but the output of one point changes with the others")


def _read(module: nn.Module, points: Tensor) -> Program:
    """Export a module, and sort its operations; InvalidInputError if it cannot be read."""
    try:
        with torch.no_grad():
            answer = module(points.clone())
    except REFUSALS as error:
        raise not_taken(points, error) from error
    if not isinstance(answer, Tensor) or not answer.is_floating_point():
        raise InvalidInputError(f"model must return a floating-point tensor; it returns {described(answer)}")
    example = points[:1].repeat(2, *[1] * (points.ndim - 1))
    sizes = {0: torch.export.Dim("points")}
    first = next(iter(inspect.signature(module.forward).parameters.values()))
    shapes = ((sizes,),) if first.kind is first.VAR_POSITIONAL else (sizes,)
    try:
        program = _exported(module, example, shapes)
        plain = _read_as_it_is(program)
        if plain is not None:
            return plain
        program = _decomposed(program)
    except InvalidInputError:
        raise
    except Exception as error:
        # torch.export does not say what it raises for what it cannot trace
        raise InvalidInputError(
            f"model cannot be read as a graph, which exact regions need: torch.export says: {first_line(error)}; "
            "method='sampled' needs no graph"
        ) from error
    return _Reader(program).program()


def _exported(module: nn.Module, example: Tensor, shapes: Any) -> torch.export.ExportedProgram:
    """Export a module for any number of points; by its byte code where its code asks for that number."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(module, (example,), dynamic_shapes=shapes, strict=False)
        except torch._dynamo.exc.UserError:
            program = torch.export.export(module, (example,), dynamic_shapes=shapes, strict=True)
        return program


def _read_as_it_is(program: torch.export.ExportedProgram) -> Program | None:
    """Sort the operations of a program; None if it must be decomposed first, which takes six times as long as exporting it."""
    calls = [node.target for node in program.graph.nodes if node.op == "call_function"]
    if any(getattr(getattr(call, "_schema", None), "is_mutable", False) for call in calls):
        return None
    program.graph.eliminate_dead_code()
    try:
        return _Reader(program).program()
    except InvalidInputError:
        # An operation that is not known may be made of some that are.
        return None


def _decomposed(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """Return a program without operations in place, and without those that are made of others."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        decomposed: torch.export.ExportedProgram = program.run_decompositions({})
    return decomposed


class _Reader:
    """Sorts the nodes of an exported program."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        self.nodes = list(program.graph.nodes)
        self.parameters: dict[str, str] = {}
        self.constants: dict[str, Any] = {}
        self.input = ""
        for spec in program.graph_signature.input_specs:
            if spec.kind == InputKind.USER_INPUT:
                self.input = spec.arg.name
            elif spec.kind == InputKind.CONSTANT_TENSOR:
                self.constants[spec.arg.name] = program.constants[spec.target]
            else:
                self.parameters[spec.arg.name] = spec.target
        # Beside the output there may be the points as operations in place have changed them.
        (self.output,) = (spec.arg.name for spec in program.graph_signature.output_specs if spec.kind == OutputKind.USER_OUTPUT)
        points = next(node for node in self.nodes if node.op == "placeholder" and node.name == self.input).meta["val"]
        self.symbol = str(points.shape[0])
        self.ops = {self.input: Op(self.input, (), _nothing, "input", tuple(points.shape[1:]))}

    def program(self) -> Program:
        """Return the program, or raise InvalidInputError with the operation that is not taken."""
        for node in self.nodes:
            if node.op == "call_function" and node.name not in self.ops:
                self._add(node)
            elif node.op not in ("placeholder", "call_function", "output"):
                raise InvalidInputError(f"model must be made of tensor operations alone; {where(node)} is {node.op}")
        if self.output not in self.ops or self.ops[self.output].kind not in _VARYING:
            raise InvalidInputError("model must depend on its points; its output is constant")
        return Program(list(self.ops.values()), self.input, self.output, self.parameters, self.constants)

    def _varying(self, nodes: Iterable[fx.Node]) -> list[fx.Node]:
        """Return the nodes that depend on the points."""
        return [node for node in nodes if node.name in self.ops and self.ops[node.name].kind in _VARYING]

    def _add(self, node: fx.Node) -> None:
        name, inputs = operation(node), tuple(argument.name for argument in node.all_input_nodes)
        varying = self._varying(node.all_input_nodes)
        if not varying or not gives_tensors(node):
            if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
                raise InvalidInputError(f"model must not depend on chance, as {name} at {where(node)} does")
            # A value that depends on the points and is no tensor is a size.
            sized = varying or any(self.ops[argument].kind == "sized" for argument in inputs if argument in self.ops)
            self.ops[node.name] = Op(node.name, inputs, runner(node), "sized" if sized else "constant")
        elif name in ("maximum", "minimum") or (name in ("max", "min") and overload(node) == "other"):
            self._add_of_two(node, name[:3])
        elif name in PIECES:
            self._add_pieces(node, varying)
        else:
            self._add_affine(node, name, inputs, varying)

    def _add_affine(self, node: fx.Node, name: str, inputs: tuple[str, ...], varying: Sequence[fx.Node]) -> None:
        self._check_affine(node, name, varying)
        shape, batch = self._layout(node)
        run = runner(node)
        if name in _CONVOLUTIONS and varying == [node.args[0]]:
            run = self._convolved(node)
        elif name in _NORMALISATIONS and self._follows_convolution(node):
            inputs, run = self._folded(node)
        self.ops[node.name] = Op(node.name, inputs, run, "affine", shape, batch, target=name)
        if isinstance(node.meta.get("val"), tuple | list):
            # At once: no tuple lives on after a piecewise-linear operation.
            for user in node.users:
                if operation(user) == "getitem":
                    self._add(user)

    def _convolved(self, node: fx.Node) -> Run:
        given, convolve = arguments(node), convolution(node)
        x, weight, bias = given["input"].name, given["weight"].name, given["bias"]
        return lambda values: convolve(values[x], values[weight], None if bias is None else values[bias.name])

    def _follows_convolution(self, node: fx.Node) -> bool:
        """Return whether the only use of a convolution is this batch normalisation."""
        before = node.args[0]
        return isinstance(before, fx.Node) and self.ops[before.name].target in _CONVOLUTIONS and len(before.users) == 1

    def _folded(self, node: fx.Node) -> tuple[tuple[str, ...], Run]:
        """Return the inputs and the evaluation of a batch normalisation and the convolution before it, as one convolution."""
        before: Any = node.args[0]
        given, below = arguments(node), arguments(before)
        del self.ops[before.name]
        constants = [given[name] for name in ("weight", "bias", "running_mean", "running_var")] + [below["weight"], below["bias"]]
        inputs = tuple(constant.name for constant in constants if constant is not None)
        weight, bias = f"{node.name}.weight", f"{node.name}.bias"

        def value(values: Mapping[str, Any], argument: fx.Node | None, default: float) -> Any:
            return default if argument is None else values[argument.name]

        def factor(values: Mapping[str, Any]) -> Any:
            return value(values, given["weight"], 1.0) / (values[given["running_var"].name] + given["eps"]).sqrt()

        def folded_weight(values: Mapping[str, Any]) -> Any:
            kernel = values[below["weight"].name]
            return kernel * factor(values).view(-1, *[1] * (kernel.ndim - 1))

        def folded_bias(values: Mapping[str, Any]) -> Any:
            mean = values[given["running_mean"].name]
            return (value(values, below["bias"], 0.0) - mean) * factor(values) + value(values, given["bias"], 0.0)

        self.ops[weight] = Op(weight, inputs, folded_weight, "constant")
        self.ops[bias] = Op(bias, inputs, folded_bias, "constant")
        x, convolve = below["input"].name, convolution(before)
        several = isinstance(node.meta.get("val"), tuple | list)

        def run(values: Mapping[str, Any]) -> Any:
            result = convolve(values[x], values[weight], values[bias])
            return (result,) if several else result

        return (x, weight, bias), run

    def _layout(self, node: fx.Node) -> tuple[tuple[int, ...], int]:
        """Return the shape at one point, and the dimension of the points."""
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            return (), 0
        if not value.is_floating_point():
            raise not_linear(node, f"{operation(node)} to {value.dtype}")
        batches = [dim for dim, size in enumerate(value.shape) if not isinstance(size, int)]
        if len(batches) != 1 or str(value.shape[batches[0]]) != self.symbol:
            raise InvalidInputError(
                f"model must treat each point alone: {operation(node)} at {where(node)} returns {sizes(value)}, "
                "in which the points have no dimension of their own"
            )
        return tuple(size for dim, size in enumerate(value.shape) if dim != batches[0]), batches[0]

    def _check_affine(self, node: fx.Node, name: str, varying: Sequence[fx.Node]) -> None:
        """Refuse an operation that is not affine in the points."""
        given = arguments(node)
        if given.get("training") is True or given.get("train") is True:
            raise InvalidInputError(
                f"model must be in evaluation mode, but {where(node)} calls {name} with training=True: call model.eval(), write "
                "F.dropout(x, training=self.training), and keep running statistics in BatchNorm"
            )
        places = [place for place, argument in enumerate(node.args) if isinstance(argument, fx.Node) and argument in varying]
        if name in PRODUCTS:
            occurrences: list[fx.Node] = []
            map_arg(node.args, lambda argument: occurrences.append(argument) if argument in varying else None)
            divisor = name == "div" and (places != [0] or given.get("rounding_mode") is not None)
            if len(varying) != 1 or len(occurrences) != 1 or divisor:
                raise not_linear(node, f"{name} of two values that depend on the points")
            return
        if name in ("index", "index_select", "masked_fill"):
            affine = places == [0]
        elif name == "where":
            affine = bool(places) and 0 not in places
        else:
            affine = name in LINEAR or name == "getitem"
        if not affine:
            raise not_linear(node, name)

    def _add_pieces(self, node: fx.Node, varying: Sequence[fx.Node]) -> None:
        given = arguments(node)
        if given.get("training") is True:
            raise InvalidInputError(f"model must not depend on chance: {where(node)} calls {operation(node)} with training=True")
        source: Any = node.args[0]
        if [source] != list(varying):
            raise not_linear(node, f"{operation(node)} with limits that depend on the points")
        result = node
        if isinstance(node.meta["val"], tuple | list):
            # The winners' values, and their places.
            for user in node.users:
                if user.args[1] == 0:
                    result = user
                elif user.users:
                    raise not_linear(node, f"the place of the winner of {operation(node)}")
                else:
                    self.ops[user.name] = Op(user.name, (), _nothing, "unused")
        shape, batch = self._layout(result)
        below = self.ops[source.name]
        pieces = PIECES[operation(node)](Call(node, given, below.shape, shape, below.batch))
        self.ops[result.name] = Op(
            result.name, (source.name,), _nothing, "pieces", shape, batch, source.name, pieces, label(node)
        )

    def _add_of_two(self, node: fx.Node, kind: str) -> None:
        """Add `b + relu(a - b)` for the maximum of a and b, or `a - relu(a - b)` for the minimum."""
        a, b = (argument.name if isinstance(argument, fx.Node) else argument for argument in node.args[:2])
        shape, batch = self._layout(node)
        difference, above = f"{node.name}.difference", f"{node.name}.above"

        def value(values: Mapping[str, Any], name: Any) -> Any:
            return values[name] if isinstance(name, str) else name

        def subtract(values: Mapping[str, Any]) -> Any:
            return torch.sub(value(values, a), value(values, b))

        def combine(values: Mapping[str, Any]) -> Any:
            return value(values, b) + values[above] if kind == "max" else value(values, a) - values[above]

        names = tuple(name for name in (a, b) if isinstance(name, str))
        self.ops[difference] = Op(difference, names, subtract, "affine", shape, batch)
        self.ops[above] = Op(above, (difference,), _nothing, "pieces", shape, batch, difference, RELU, label(node))
        self.ops[node.name] = Op(node.name, (*names, above), combine, "affine", shape, batch)


def _nothing(values: Mapping[str, Any]) -> None:
    """Evaluate what the engine evaluates itself."""


# The kinds of values that depend on the points.
_VARYING = {"affine", "pieces", "input"}
