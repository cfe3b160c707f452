r"""
The codes of the activations of any module or callable, for transitions that are counted by sampling (paper, S3, A.5).

The model runs under a `TorchDispatchMode`, which is shown every operator that torch executes, whoever asked for it: a module
(`nn.ReLU`), a function (`F.relu`), a method (`x.clamp(min=0)`), or a node of a graph that `torch.export` wrote. Hooks on modules
would see the first kind alone, and would miscount a module that is called twice or bypassed. Kinks built by hand
(`torch.where(z > 0, z, 0)`, `z.abs()`) and those of pooling are not counted.

An activation has a boundary wherever its slope jumps; a smooth one has one where its argument changes sign, as Tanh has in the
paper (A.4). The code of a unit is the number of boundaries below its pre-activation.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InvalidInputError, UnseenError
from ..models.adapting import REFUSALS, check_mode, not_taken, unwrapped
from .sampled import codes_of

_SMOOTH = "gelu silu mish tanh sigmoid elu celu softplus log_sigmoid log_sigmoid_forward glu"
_KINKED = "relu leaky_relu prelu _prelu_kernel rrelu rrelu_with_noise selu"
# By the name of the aten operator, without the underscore of those that work in place: the boundaries, or the names of the
# arguments that hold them.
OPERATORS: dict[str, tuple[float | str, ...]] = {
    **dict.fromkeys([*_SMOOTH.split(), *_KINKED.split()], (0.0,)),
    "relu6": (0.0, 6.0),
    "hardtanh": ("min_val", "max_val"),
    "hardsigmoid": (-3.0, 3.0),
    "hardswish": (-3.0, 3.0),
    "threshold": ("threshold",),
    "clamp": ("min", "max"),
    "clamp_min": ("min",),
    "clamp_max": ("max",),
    "hardshrink": ("lambd",),
    "softshrink": ("lambd",),
}
# Operators with activations inside, where nobody can see them. Recurrent networks come whole only under torch.inference_mode.
FUSED = {
    *("lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
    *("_transformer_encoder_layer_fwd", "_native_multi_head_attention", "_addmm_activation"),
    *("mkldnn_rnn_layer", "_cudnn_rnn", "miopen_rnn", "_thnn_fused_lstm_cell", "_thnn_fused_gru_cell"),
}
NAMES = {"_prelu_kernel": "prelu", "rrelu_with_noise": "rrelu", "log_sigmoid_forward": "log_sigmoid"}
# The probes: two numbers of points that no other dimension follows.
FEWER, MORE = 5, 7
SAME = "model must call the same activations at all points"


class _Call(NamedTuple):
    """A call of an activation: its name, its pre-activations (any shape) and its boundaries."""

    name: str
    z: Tensor
    boundaries: Sequence[float]


class _FusedError(UnseenError):
    """The model has activations inside an operator."""


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Hands each call of an activation to `take`, before it is executed: one in place overwrites its pre-activations."""

    def __init__(self, take: Callable[[_Call], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.take = take

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.rpartition("::")[2]
        if name in FUSED:
            raise _FusedError(f"model has activations inside the fused operator {name}, where they cannot be seen")
        plain = name.removesuffix("_")
        if plain in OPERATORS:
            arguments = func._schema.arguments
            given = {argument.name: argument.default_value for argument in arguments if argument.has_default_value()}
            given |= dict(zip((argument.name for argument in arguments), args, strict=False)) | (kwargs or {})
            limits = [given.get(limit) if isinstance(limit, str) else limit for limit in OPERATORS[plain]]
            # A limit that is a tensor, or is not set, is no boundary.
            boundaries = [float(limit) for limit in limits if isinstance(limit, int | float)]
            if boundaries:
                if plain.endswith("shrink"):
                    boundaries = [-boundaries[0], boundaries[0]]
                # The second half of a gated linear unit is the gate.
                z = args[0].chunk(2, given["dim"])[1] if plain == "glu" else args[0]
                # nn.ReLU6 is a hardtanh to torch.
                relu6 = plain == "hardtanh" and boundaries == [0.0, 6.0]
                self.take(_Call("relu6" if relu6 else NAMES.get(plain, plain), z, boundaries))
        return func(*args, **(kwargs or {}))


class ModuleCodes:
    """
    The codes of all units of a model at given points.

    Parameters
    ----------
    model
        Any module or callable that takes points `[n, ...]`, each of which it treats alone.
    example
        A few points, of the shape, type and device of those to come. The model is tried on them to find the dimension of each
        pre-activation that belongs to the points, and whether any of them depends on another point.

    Attributes
    ----------
    names
        The activation of each call, in the order of the forward pass, such as `relu` or `gelu`. A module that is used twice has
        two. An activation of a tensor that does not depend on the points, such as a weight, has none.

    Raises
    ------
    InvalidInputError
        The model is in training mode, refuses the points, has no activation whose boundaries are known, or makes one point's
        activations depend on others or on chance.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], example: Tensor) -> None:
        model = unwrapped(model)
        check_mode(model)
        self._model = model
        # Convolutions are faster with the libraries, but recurrent layers are one operator there.
        self._libraries = True
        try:
            self._calls(example[:1])
        except _FusedError:
            self._libraries = False
        repeated = example[torch.arange(MORE, device=example.device) % len(example)]
        changed_first = repeated.clone()
        # Neither a multiple of the point nor its mirror image, which a normalisation might undo.
        ramp = torch.linspace(-1, 1, example[0].numel()).to(example).view(example[0].shape)
        changed_first[0] = ramp - repeated[0]
        fewer, more, changed = (self._calls(points) for points in (repeated[:FEWER], repeated, changed_first))
        if not more:
            known = "relu, hardtanh, leaky_relu, gelu, tanh and others"
            raise UnseenError(f"model has no activation whose boundaries are known ({known}): there are no codes to take")
        if not len(fewer) == len(more) == len(changed):
            raise InvalidInputError(f"{SAME}; it called {len(fewer)} and {len(more)}")
        # None for a tensor that has nothing to do with the points.
        self._layouts = [_layout(*calls) for calls in zip(fewer, more, changed, strict=True)]
        self.names = [call.name for call, layout in zip(more, self._layouts, strict=True) if layout]
        if not self.names:
            raise UnseenError("model has no activation that depends on the points: there are no codes to take")

    def __call__(self, points: Tensor) -> list[Tensor]:
        """Return the codes of each call of an activation at the points `[n, ...]`, int8 `[n, units]`, in the order of `names`."""
        codes: list[Tensor] = []
        layouts = iter(self._layouts)

        def take(call: _Call) -> None:
            layout = next(layouts, None)
            if layout:
                codes.append(codes_of(layout.by_point(call.z, len(points)), call.boundaries))

        self._run(points, take)
        if len(codes) != len(self.names):
            raise InvalidInputError(f"{SAME}; it called {len(self.names)} and {len(codes)}")
        return codes

    def _calls(self, points: Tensor) -> list[_Call]:
        calls: list[_Call] = []
        self._run(points, lambda call: calls.append(_Call(call.name, call.z.clone(), call.boundaries)))
        return calls

    @torch.no_grad()
    def _run(self, points: Tensor, take: Callable[[_Call], None]) -> None:
        try:
            with _unfused(self._libraries), _Watch(take):
                # Some models work in place on what they are given.
                self._model(points.clone())
        except InvalidInputError:
            raise
        except REFUSALS as error:
            raise not_taken(points, error) from error


class _Layout(NamedTuple):
    """
    The place of the points in a pre-activation.

    Dimension `dim` is as long as `n` points times a whole number; `outer` says whether the points are the outer index there, as
    in windows cut from each image, or the inner one, as in sequences that run through a whole minibatch before the next step.
    """

    dim: int
    outer: bool

    def by_point(self, z: Tensor, n: int) -> Tensor:
        """Return the pre-activations as `[n, units]`."""
        z = z.movedim(self.dim, 0)
        return z.reshape(n, -1) if self.outer else z.reshape(-1, n, *z.shape[1:]).transpose(0, 1).reshape(n, -1)


def _layout(fewer: _Call, more: _Call, changed: _Call) -> _Layout | None:
    """Return where the points are in a call, None if it has nothing to do with them; InvalidInputError if points are mixed."""
    shapes = list(fewer.z.shape), list(more.z.shape)
    apart = f"model must treat each point alone, but its activation {more.name}"
    if shapes[0] == shapes[1]:
        if _same(more.z, changed.z):
            return None
        raise InvalidInputError(f"{apart} depends on the points and is {shapes[0]} for any number of them")
    dims = [dim for dim, (few, many) in enumerate(zip(*shapes, strict=False)) if few != many]
    few, many = (shape[dims[0]] if len(shapes[0]) == len(shapes[1]) else 0 for shape in shapes)
    if len(dims) != 1 or few % FEWER or many % MORE or few // FEWER != many // MORE:
        raise InvalidInputError(f"{apart} is {shapes[0]} for {FEWER} points and {shapes[1]} for {MORE}")
    for layout in (_Layout(dims[0], outer) for outer in (True, False)):
        if _same(*(layout.by_point(call.z, MORE)[1:] for call in (more, changed))):
            return layout
    raise InvalidInputError(
        f"{apart}, {shapes[1]} for {MORE} points, changes at other points when one changes, or by chance: call model.eval(), "
        "write F.dropout(x, training=self.training), and keep running statistics in BatchNorm"
    )


def _same(before: Tensor, after: Tensor) -> bool:
    # The kernels may round otherwise where the neighbours are others.
    return torch.allclose(before, after, rtol=1e-3, atol=1e-5, equal_nan=True)


@contextlib.contextmanager
def _unfused(libraries: bool) -> Iterator[None]:
    """Keep torch from computing whole layers, activations included, in one operator; without `libraries` recurrent ones, too."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    # torch.backends.mkldnn.set_flags would reset the precision of products on the way.
    flags = torch._C._get_mkldnn_enabled(), torch.backends.cudnn.enabled
    try:
        torch._C._set_mkldnn_enabled(libraries and flags[0])
        torch.backends.cudnn.enabled = libraries and flags[1]
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        torch._C._set_mkldnn_enabled(flags[0])
        torch.backends.cudnn.enabled = flags[1]
