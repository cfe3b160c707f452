"""
Makes anybody's model a function from points to outputs, and checks that the output of a point depends on that point alone.

A model may be compiled, wrapped for several devices, or of half precision; it may take several inputs, and return a tensor, a
dictionary, a tuple or an object. Each public function that measures a model begins here.
"""

import contextlib
import copy
import inspect
import itertools
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InvalidInputError, UnseenError, counted, described
from ..networks import MLP, MLPStack

# A model may raise these when it is given points of a shape that it does not take.
REFUSALS = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, torch.jit.Error)
HALF = (torch.float16, torch.bfloat16)
# Points whose outputs are looked at twice, and numbers in them, if they are large.
PROBES = 8
PROBE_NUMBERS = 2**19
# Outputs of one point in two batches differ by rounding, as matrix products take other paths for other numbers of points: by this
# much of each output's spread over the points, and a tenth of it of its size, which may be that of an offset or a mask.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}
# On GPUs convolutions may round to 10 bits (TensorFloat-32).
GPU_ROUNDING = 5e-3

Inputs = Mapping[str, Any] | Sequence[Any]


def unwrapped(model: Any) -> Any:
    """
    Return a model without what surrounds it: `torch.compile`, `DataParallel`, an exported program.

    Raises
    ------
    InvalidInputError
        It is an `MLP` or `MLPStack` with hooks or a `forward` of its own: measures of these read the weights alone.
    """
    wrapped = model
    while True:
        if isinstance(wrapped, torch.export.ExportedProgram):
            wrapped = wrapped.module()
        elif isinstance(wrapped, nn.DataParallel | nn.parallel.DistributedDataParallel):
            wrapped = wrapped.module
        elif isinstance(wrapped, nn.Module) and isinstance(getattr(wrapped, "_orig_mod", None), nn.Module):
            wrapped = wrapped._orig_mod
        else:
            break
    if isinstance(wrapped, MLP | MLPStack):
        plain = MLP if isinstance(wrapped, MLP) else MLPStack
        hooked = wrapped._forward_hooks or wrapped._forward_pre_hooks
        if hooked or type(wrapped).forward is not plain.forward or "forward" in vars(wrapped):
            changed = "has hooks" if hooked else f"is a {type(wrapped).__name__} with a forward of its own"
            raise InvalidInputError(
                f"model {changed}, which the measures of an {plain.__name__}, made from its weights alone, would leave out; "
                "measure it as any other model: lambda x: model(x)"
            )
    return wrapped


def check_mode(model: object) -> None:
    """Raise InvalidInputError if a model cannot be called, lacks values, or mixes or drops points in training mode."""
    if not callable(model):
        raise InvalidInputError(f"model must be an MLP, an MLPStack, a module or another callable; got {type(model).__name__}")
    if not isinstance(model, nn.Module):
        return
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            raise InvalidInputError(f"the model's {name} is not initialised: call the model once on points first")
        if tensor.is_meta:
            raise InvalidInputError(f"the model's {name} has no values: it is on the device meta")
    for name, module in model.named_modules():
        mixing = isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd | nn.RReLU)
        # A frozen script has no mode.
        if mixing and getattr(module, "training", False):
            raise InvalidInputError(
                f"model must be in evaluation mode, but its layer {name or type(module).__name__!r} is in training mode: "
                "call model.eval() first"
            )


class AdaptedModel:
    """
    A model of one network as a function from points `[n, ...]` to outputs `[n, ...]`, tried on the first points.

    Parameters
    ----------
    model
        A module or another callable.
    x
        The points `[N, ...]` that will be measured.
    output
        The name or the place of the output, of a model that returns several. None for the only one, or for the one that is called
        `logits`.
    inputs
        Further inputs: a mapping of names, passed by keyword, or a sequence, passed by position after the points. A tensor
        `[N, ...]` belongs to the points, a row to each; anything else that is no tensor is passed as it is.

    Attributes
    ----------
    model
        The model that is measured: the one given, or its float32 copy.
    example
        The outputs of some of the first points, `[n, ...]`, at least two dimensions.
    note
        The change that was made to the model, in words; empty if none was.

    Raises
    ------
    InvalidInputError
        The model does not take the points, gives no tensor of one row per point, or makes one point's output depend on other
        points or on chance.
    """

    def __init__(
        self, model: Callable[..., Any], x: Tensor, *, output: str | int | None = None, inputs: Inputs | None = None
    ) -> None:
        check_mode(model)
        if isinstance(model, MLPStack):
            raise InvalidInputError("model must be one network; got an MLPStack: measure its networks one by one, stack[i]")
        self._output = output
        self.model, self.note = _of_full_precision(model)
        self._places, self._names = _checked_inputs(inputs, len(x))
        self._points_name = _points_name(model)
        if self._points_name and self._places:
            raise InvalidInputError("inputs of a model that takes inputs_embeds must be a mapping of names; got a list")
        self._shape = list(x.shape)
        self._row: torch.Size | None = None
        self.example = _check_alone(self, self.points(x))

    def points(self, x: Tensor) -> Tensor:
        """Return points of the type in which the model computes: those of a half-precision model in float32."""
        return x.float() if self.note and x.dtype in HALF else x

    def __call__(self, points: Tensor, rows: slice | Tensor = slice(None)) -> Tensor:
        """Return the outputs of some points `[n, ...]`; `rows` says which of all points they are, for the further inputs."""
        places = [_rows_of(value, rows) for value in self._places]
        names = {name: _rows_of(value, rows) for name, value in self._names.items()}
        # A copy: a model may begin by changing its input in place.
        given = points.clone()
        try:
            with _plainly(points.device):
                if self._points_name:
                    answer = self.model(*places, **{self._points_name: given}, **names)
                else:
                    answer = self.model(given, *places, **names)
        except torch.OutOfMemoryError as error:
            raise InvalidInputError(
                f"out of memory with {counted(len(points), 'point')} at once: pass a smaller chunk_size"
            ) from error
        except UnseenError:
            raise
        except REFUSALS as error:
            if "nference tensor" in str(error):
                raise InvalidInputError(
                    "model holds tensors that were made under torch.inference_mode, through which no gradient passes; "
                    "expected a differentiable model"
                ) from error
            raise not_taken(points, error, self._shape) from error
        outputs = _picked(answer, self._output)
        if len(points) == 1 and outputs.shape == self._row:
            outputs = outputs.unsqueeze(0)  # the model squeezes a single point's row
        outputs = _checked_output(outputs, points)
        self._row = outputs.shape[1:] if self._row is None else self._row
        return outputs.unsqueeze(1) if outputs.ndim == 1 else outputs

    def parameters(self) -> Iterator[Tensor]:
        """Return the parameters and buffers of a module, none of any other callable."""
        return itertools.chain(self.model.parameters(), self.model.buffers()) if isinstance(self.model, nn.Module) else iter(())


def as_model_takes(model: Callable[[Tensor], Tensor], points: Tensor, like: Tensor | None = None) -> Tensor:
    """Return points of the type and on the device of a module's parameters, or of `like` if it has none."""
    tensors = itertools.chain(model.parameters(), model.buffers()) if isinstance(model, nn.Module) else ()
    model_tensor = next((tensor for tensor in tensors if tensor.is_floating_point()), points if like is None else like)
    return points.to(model_tensor.device, model_tensor.dtype)


@torch.no_grad()
def shape_taken(model: Callable[..., Any], points: Tensor) -> tuple[int, ...]:
    """
    Return the shape of a point in which a model takes `points` `[n, ...]`, as `as_model_takes` returns them.

    It is their own if the model takes it; else flattened, with one channel, or, for flat points, as square images of one or three
    colours, if the model takes just one of these; else their own.
    """

    def taken(shape: tuple[int, ...], *counts: int) -> bool:
        try:
            with _plainly(points.device):
                for count in counts:
                    model(points[torch.arange(count) % len(points)].reshape(-1, *shape))
        except REFUSALS:
            return False
        return True

    shape, size = tuple(points.shape[1:]), points[0].numel()
    if taken(shape, 2):
        return shape
    images = [(channels, side, side) for channels in (1, 3) if channels * (side := math.isqrt(size // channels)) ** 2 == size]
    candidates = [*([(size,)] if len(shape) > 1 else images), (1, *shape)]
    # With one number of points alone they could pass for the channels of an image.
    others = [candidate for candidate in candidates if candidate != shape and taken(candidate, 2, 3)]
    return others[0] if len(others) == 1 else shape


def not_taken(x: Tensor, error: Exception, shape: Sequence[int] | None = None) -> InvalidInputError:
    """Return what to raise when a model raises one of `REFUSALS` at points `x`; `shape` is that of all points, if it is given."""
    return InvalidInputError(f"model does not take {x.dtype} points {list(shape or x.shape)}: {first_line(error)}")


def first_line(error: Exception) -> str:
    """Return the first line of an error, after the error's name where it says nothing, or only which key is missing."""
    lines = str(error).strip().splitlines() or [""]
    # The cause of an error in a script stands at its end.
    line = lines[-1] if "TorchScript interpreter" in lines[0] else lines[0]
    return line if line and not isinstance(error, KeyError) else f"{type(error).__name__} {line}".rstrip()


def _of_full_precision(model: Callable[..., Any]) -> tuple[Callable[..., Any], str]:
    """Return a model of half precision as a float32 copy, and a note that says so; any other model as it is."""
    tensors = itertools.chain(model.parameters(), model.buffers()) if isinstance(model, nn.Module) else ()
    halves = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors if tensor.dtype in HALF})
    if not halves:
        return model, ""
    try:
        with torch.no_grad():  # or copies of a script's parameters would be results of operations
            precise = copy.deepcopy(cast(nn.Module, model))
    except RuntimeError as error:
        raise InvalidInputError(
            f"the model of half precision cannot be copied: pass model.float(); {first_line(error)}"
        ) from error
    precise._apply(  # type: ignore[no-untyped-call]
        lambda tensor: tensor.float() if tensor.dtype in HALF else tensor
    )
    return precise, f"measured in a float32 copy of the {' and '.join(halves)} model"


def _points_name(model: Callable[..., Any]) -> str:
    """Return the name of the argument that takes the points, if it is not the first, as in language models."""
    if isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        names = list(inspect.signature(model.forward).parameters)
        if names[:1] == ["input_ids"] and "inputs_embeds" in names:
            return "inputs_embeds"
    return ""


def _checked_inputs(inputs: Inputs | None, count: int) -> tuple[list[Any], dict[str, Any]]:
    """Return the further inputs by place and by name; InvalidInputError unless each tensor has a row per point."""
    if inputs is None:
        return [], {}
    if not isinstance(inputs, Mapping | list | tuple):
        raise InvalidInputError(f"inputs must be a mapping of names or a list of further inputs; got {described(inputs)}")
    places = [] if isinstance(inputs, Mapping) else list(inputs)
    names = dict(inputs) if isinstance(inputs, Mapping) else {}
    for name, value in [*enumerate(places), *names.items()]:
        if isinstance(value, Tensor) and (not value.ndim or len(value) != count):
            raise InvalidInputError(
                f"inputs[{name!r}] must have one row per point, [{count}, ...]; got {described(value)}: expand what all share"
            )
    return places, names


def _rows_of(value: Any, rows: slice | Tensor) -> Any:
    return value[rows] if isinstance(value, Tensor) else value


@contextlib.contextmanager
def _plainly(device: torch.device) -> Iterator[None]:
    """Run compiled models as they were before, and without mixed precision: gradients pass once through what is compiled."""
    with contextlib.ExitStack() as stack:
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(without_autocast(device))
        yield


def without_autocast(device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Return a context without mixed precision, whose rounding would drown a model's sensitivity."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else contextlib.nullcontext()


def _picked(answer: Any, output: str | int | None) -> Any:
    """Return the output that is meant of a model's answer, or raise InvalidInputError."""
    if isinstance(answer, Tensor):
        if output is not None:
            raise InvalidInputError(f"output must be None: the model returns one tensor; got {output!r}")
        return answer
    if isinstance(answer, Mapping):
        outputs: dict[Any, Any] = dict(answer)
    elif isinstance(answer, tuple) and hasattr(answer, "_fields"):
        outputs = dict(zip(answer._fields, answer, strict=True))
    elif isinstance(answer, tuple | list):
        outputs = dict(enumerate(answer))
    else:
        outputs = dict(vars(answer)) if hasattr(answer, "__dict__") else {}
    tensors = {name: value for name, value in outputs.items() if isinstance(value, Tensor)}
    if not tensors:
        raise InvalidInputError(f"model must return a tensor, or several by name or place; it returns {described(answer)}")
    if output is None:
        output = "logits" if "logits" in tensors else next(iter(tensors)) if len(tensors) == 1 else None
    elif isinstance(output, int) and not isinstance(output, bool) and output not in tensors and 0 <= output < len(outputs):
        output = list(outputs)[output]
    if output not in tensors:
        shapes = ", ".join(f"{name!r} {list(tensor.shape)}" for name, tensor in tensors.items())
        raise InvalidInputError(f"output must name one of the model's outputs: {shapes}; got {output!r}")
    return tensors[output]


def _checked_output(outputs: Any, points: Tensor) -> Tensor:
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point() or not outputs.ndim or len(outputs) != len(points):
        raise InvalidInputError(
            f"model must map points [n, ...] to floating-point outputs, one row per point; "
            f"it maps {list(points.shape)} to {described(outputs)}"
        )
    if outputs.dtype in HALF:
        name = str(outputs.dtype).removeprefix("torch.")
        raise InvalidInputError(
            f"model gives {name} outputs, whose rounding would drown its sensitivity: pass the module itself, of which a float32 "
            "copy is measured, or model.float()"
        )
    return outputs


@torch.no_grad()
def _check_alone(model: AdaptedModel, x: Tensor) -> Tensor:
    """
    Return the outputs of the first points; InvalidInputError if one depends on other points, on their number, or on chance.

    Two forward passes: half of the points stand at other places among other points, without those of the largest numbers, of
    which a maximum over the batch would hardly change.
    """
    count = min(len(x), max(2, min(PROBES, PROBE_NUMBERS // x[0].numel())))
    first = torch.arange(count, device=x.device)
    rows = x[:count].flatten(1).abs().amax(1).argsort()
    k = max(1, count // 2)
    rest = rows[k:] if count > 1 else rows
    others = torch.cat([rest[-1:], rest])
    batches = (
        (x[first], first) if count > 1 else (x[rows[[0, 0]]], rows[[0, 0]]),
        # Inside of the range of the points, as a model may check it.
        (torch.cat([x[others] * 0.5 + 0.25, x[rows[:k].flip(0)]]), torch.cat([others, rows[:k].flip(0)])),
    )
    with _left_as_it_was(model.model, x.device) as changed:
        with _HalfPrecision() as half:  # type: ignore[no-untyped-call]
            outputs = model(*batches[0])
        again = model(*batches[1])
        chance, buffer = changed()
        if half.operation:
            raise InvalidInputError(
                f"model must compute in float32 or float64, but its {half.operation}: its rounding would drown its sensitivity; "
                "pass the module of half precision itself, of which a float32 copy is measured, and leave autocast out of forward"
            )
        before, after = outputs[rows[:k]], again[len(others) :].flip(0)
        if buffer:
            raise InvalidInputError(f"model must not change at a forward pass, but its {buffer} does: call model.eval() first")
        rounding = ROUNDING.get(outputs.dtype, 1e-4) if x.device.type == "cpu" else GPU_ROUNDING
        both = torch.cat([outputs, again]).nan_to_num(0.0, 0.0, 0.0).double()
        scale = both.amax(0) - both.amin(0) + both.abs().amax(0) / 10
        apart = (before.double() - after.double()).abs()
        same = bool(((apart <= rounding * scale) | (before == after) | (before.isnan() & after.isnan())).all())
        if chance or not (same or torch.equal(model(*batches[0]).nan_to_num(), outputs.nan_to_num())):
            raise InvalidInputError(
                "model must not depend on chance, but its forward pass does (dropout or noise): call model.eval(), and write "
                "F.dropout(x, training=self.training)"
            )
        if not same:
            raise InvalidInputError(
                "model must treat each point alone, but the output of one point changes with the others of its batch: call "
                "model.eval(), keep running statistics in BatchNorm, take no means over the batch, and make transformers "
                "batch_first=True"
            )
    return outputs[: len(x)]


class _HalfPrecision(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the first operation whose result is of half precision."""

    operation = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation."""
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.dtype in HALF and not self.operation:
            self.operation = f"{func.overloadpacket.__name__.strip('_')} gives {str(result.dtype).removeprefix('torch.')}"
        return result


@contextlib.contextmanager
def _left_as_it_was(model: Any, device: torch.device) -> Iterator[Callable[[], tuple[bool, str]]]:
    """Put random states and buffers back at the end; yield a test whether numbers were drawn, and which buffer changed."""
    cuda = [device] if device.type == "cuda" else []
    states = [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in cuda)]
    buffers = {name: (buffer, buffer.clone()) for name, buffer in model.named_buffers()} if isinstance(model, nn.Module) else {}

    def changed() -> tuple[bool, str]:
        now = [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in cuda)]
        drawn = not all(torch.equal(state, later) for state, later in zip(states, now, strict=True))
        return drawn, next((name for name, (buffer, kept) in buffers.items() if not _same(buffer, kept)), "")

    try:
        yield changed
    finally:
        torch.set_rng_state(states[0])
        for index, state in zip(cuda, states[1:], strict=True):
            torch.cuda.set_rng_state(state, index)
        for buffer, kept in buffers.values():
            if not _same(buffer, kept):
                buffer.copy_(kept)


def _same(tensor: Tensor, kept: Tensor) -> bool:
    return torch.equal(tensor.nan_to_num(), kept.nan_to_num()) if tensor.is_floating_point() else torch.equal(tensor, kept)
