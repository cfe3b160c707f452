"""Loads a file of weights into a module, whichever of the usual formats and wrappings it has, if all of it fits."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..errors import InvalidInputError, counted, one_line
from .checkpoints import NotPlainError, State, read_checkpoint, states, unpickled
from .recognising import CURES, Format, recognised

# torch.compile and DataParallel put these before the names of the module that they wrap.
_WRAPPERS = ("module", "_orig_mod")
# Names that a message lists of each kind.
_MOST_NAMED = 3


class _Misfit(NamedTuple):
    """The names by which a state does not fit a module."""

    missing: list[str]
    unexpected: list[str]
    different: list[str]

    def size(self) -> int:
        return sum(map(len, self))

    def __str__(self) -> str:
        return ", ".join(
            f"{counted(len(names), 'key')} {kind} ({_few(names)})" for kind, names in self._asdict().items() if names
        )


def load_weights(module: nn.Module, path: Path, name: str, *, trust_pickle: bool = False) -> None:
    """
    Load the weights of a module.

    Parameters
    ----------
    module
        Its weights are replaced.
    path
        A safetensors file, or a file of `torch.save` of a `state_dict` or of a checkpoint that has one that fits (under
        `state_dict`, `model`, `model_state_dict`, `ema` or any other key), recognised by content. Prefixes that all names of a
        state share, such as `module.` of DataParallel, `_orig_mod.` of `torch.compile` or `model.` of Lightning, are left out if
        all of it fits then.
    name
        Name of the module in errors.
    trust_pickle
        Unpickle a checkpoint that holds other objects than tensors and plain values, which may run any code.

    Raises
    ------
    InvalidInputError
        The file is no file of weights, is damaged, or holds none or several that fit; the module's weights may have changed.
    """
    candidates = _states_in(path, trust_pickle)
    fitting, misfits = {}, []
    for key, state in candidates.items():
        for renamed in _renamings(state, list(module.state_dict())):
            misfit = _misfit(module, renamed)
            if not misfit.size() or (not misfit.different and _taken(module, renamed)):
                fitting[key] = renamed
                break
            misfits.append((misfit, key))
    if not fitting:
        nearest, key = min(misfits, key=lambda pair: pair[0].size())
        part = f" in its part {key!r}" if key else ""
        raise InvalidInputError(f"{path} does not hold the weights of {name}{part}: {nearest}")
    if len(fitting) > 1:
        keys = list(fitting)
        raise InvalidInputError(
            f"{path} holds several weights that fit {name}, {', '.join(map(repr, keys))}: save the ones to measure, with "
            f"torch.save(torch.load({str(path)!r})[{keys[0]!r}], FILE)"
        )
    (state,) = fitting.values()
    try:
        # The names that may be missing were looked at above.
        module.load_state_dict(state, strict=False)
    except (Exception, SystemExit) as error:
        # modules may load in ways of their own, and raise anything
        raise InvalidInputError(f"{path} does not hold the weights of {name}: {one_line(error)}") from error


def _states_in(path: Path, trusted: bool) -> dict[str, State]:
    """Return every state of a file by its key, at least one."""
    if not path.exists():
        raise InvalidInputError(f"no weights {path}: there is no such file")
    format_ = recognised(path)
    if format_ is Format.SAFETENSORS:
        try:
            return {"": load_file(path)}
        except (SafetensorError, OSError) as error:
            raise InvalidInputError(f"{path} is damaged: {one_line(error)}") from error
    if format_ in (Format.EXPORTED, Format.TORCHSCRIPT):
        raise InvalidInputError(f"weights {path} are a whole program; give it as the model, without weights")
    if format_ in CURES:
        cure = CURES[format_].format(path=str(path), folder=str(path.parent), name=path.name)
        raise InvalidInputError(f"weights {path}: it {cure}")
    if format_ is not Format.TORCH:
        raise InvalidInputError(
            f"weights must be a safetensors file, or a file of torch.save(model.state_dict(), FILE); {path} is neither"
        )
    try:
        checkpoint = read_checkpoint(path)
    except NotPlainError as error:
        if not trusted:
            raise InvalidInputError(
                f"{path} holds {error if str(error) else 'other objects'} beside tensors, a pickle that can run any code when it "
                "is loaded: --trust-pickle loads it all the same; safer is a file of torch.save(model.state_dict(), FILE)"
            ) from error
        checkpoint = unpickled(path)
    candidates = states(checkpoint)
    if not candidates:
        keys = f" with the keys {_few(list(map(str, checkpoint)))}" if isinstance(checkpoint, dict) else ""
        raise InvalidInputError(
            f"weights must be a state_dict, or a checkpoint that has one; {path} holds {type(checkpoint).__name__}{keys}"
        )
    return candidates


def _renamings(state: State, names: Sequence[str]) -> Iterator[State]:
    """Yield the state, and the state without prefixes that all its names share, each also with the wrappers of the module."""
    wrappers, rest = "", list(names)
    while (prefix := _shared_prefix(rest)).removesuffix(".") in _WRAPPERS:
        wrappers, rest = wrappers + prefix, [name.removeprefix(prefix) for name in rest]
    while True:
        yield state
        if wrappers:
            yield {wrappers + name: tensor for name, tensor in state.items()}
        prefix = _shared_prefix(list(state))
        if not prefix:
            return
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _shared_prefix(names: Sequence[str]) -> str:
    """Return what stands before the first dot in all names, with the dot; empty if they differ or one has none."""
    firsts = {name.partition(".")[0] + "." if "." in name else "" for name in names}
    return firsts.pop() if len(firsts) == 1 else ""


def _misfit(module: nn.Module, state: State) -> _Misfit:
    """Return how a state differs from that of a module in names, shapes and kinds of numbers."""
    expected = module.state_dict(keep_vars=True)
    # One of the tensors that share memory, as tied weights do, is enough: safetensors keeps one.
    held = {_memory(tensor) for name, tensor in expected.items() if name in state and isinstance(tensor, Tensor)}
    missing = [
        name
        for name, tensor in expected.items()
        if name not in state
        # Files of torch before 0.4.1 have no such counts, and evaluation needs none.
        and not (name.endswith("num_batches_tracked") or (isinstance(tensor, Tensor) and _memory(tensor) in held))
    ]
    different = [
        f"{name} is {_short(state[name])}, not {_short(tensor)}"
        for name, tensor in expected.items()
        if name in state and isinstance(tensor, Tensor) and not _alike(tensor, state[name])
    ]
    return _Misfit(missing, [name for name in state if name not in expected], different)


def _taken(module: nn.Module, state: State) -> bool:
    """Whether a module takes a state of other names, as one with hooks does that rename them; its weights may change."""
    try:
        module.load_state_dict(state)
    except RuntimeError:
        return False
    return True


def _memory(tensor: Tensor) -> object:
    if is_lazy(tensor) or tensor.is_meta or not tensor.numel():
        return id(tensor)
    return tensor.data_ptr(), tensor.shape, tensor.stride()


def _alike(tensor: Tensor, given: Tensor) -> bool:
    """Whether a tensor of a module can take the numbers of another: a lazy one has no shape yet."""
    kinds = (tensor.is_floating_point(), tensor.is_complex()), (given.is_floating_point(), given.is_complex())
    return kinds[0] == kinds[1] and (is_lazy(tensor) or tensor.shape == given.shape)


def _short(tensor: Tensor) -> str:
    shape = "of any shape" if is_lazy(tensor) else list(tensor.shape)
    return f"{str(tensor.dtype).removeprefix('torch.')} {shape}"


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
