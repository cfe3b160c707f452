"""Opens trained models of any origin: a network of this package, an exported program, a module built by code, a pickle."""

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ..errors import InvalidInputError, one_line
from ..importing import FACTORY, call_factory
from ..networks import MLP
from .checkpoints import NotPlainError, read_checkpoint, states, unpickled
from .exported import load_exported
from .recognising import CURES, Format, recognised
from .weights import load_weights

_IN_A_FILE = re.compile(r"(?:.*[/\\])?(\w+)\.py:(\w+)")
KINDS = (
    "a .pt2 file of torch.export, package.module:factory, a .safetensors file of MLP.save, or, with --trust-pickle, a pickled "
    "module or TorchScript (.pt, .pth)"
)
SAFER = "safer are a .pt2 file of torch.export, or package.module:factory with --weights"


def open_model(
    model: str | Path, *, weights: str | Path | None = None, trust_pickle: bool = False
) -> Callable[[Tensor], Tensor] | nn.Module:
    """
    Open a model, in evaluation mode.

    The content of a file says what it is, whatever its name. TorchScript needs trust as a pickle does: it is a program that runs
    when it is loaded and called, on an interpreter that PyTorch does not declare safe for programs of strangers.

    Parameters
    ----------
    model
        One of: a file that `torch.export.save` wrote; `package.module:factory`, a function without arguments that returns a
        module, looked for in the current folder, too; a file that `MLP.save` wrote; a file that `torch.save` wrote of a whole
        module, or `torch.jit.save`.
    weights
        A file of the state of the factory's module: safetensors, or `torch.save` of a `state_dict` or of a checkpoint that has
        one, as Lightning's have; see `load_weights`.
    trust_pickle
        Unpickle what the files hold, and open TorchScript, which may run any code. Without it no file is unpickled, and `.pt2`
        files are read as in `load_exported`.

    Raises
    ------
    InvalidInputError
        There is no such model, it is damaged or of a format that is not opened, or its weights do not fit; the message says what
        to do.
    """
    model = str(model)
    if in_a_file := _IN_A_FILE.fullmatch(model):
        module, factory = in_a_file.groups()
        raise InvalidInputError(
            f"model must be package.module:factory; got {model}: write {module}:{factory} in the folder of {module}.py"
        )
    if FACTORY.fullmatch(model):
        return _from_factory(model, weights, trust_pickle)
    if weights is not None:
        raise InvalidInputError(f"weights belong to package.module:factory alone; {model} brings its own")
    path = Path(model)
    if not path.exists():
        if path.suffix or path.name != model:
            raise InvalidInputError(f"no model {model}: there is no such file; model must be {KINDS}")
        raise InvalidInputError(f"model must be {KINDS}; got {model!r}")
    return _from_file(path, trust_pickle)


def _from_file(path: Path, trusted: bool) -> Callable[[Tensor], Tensor] | nn.Module:
    format_ = recognised(path)
    if format_ is Format.EXPORTED:
        return load_exported(path, trust_pickle=trusted)
    if format_ is Format.SAFETENSORS:
        return _from_safetensors(path)
    if format_ is Format.TORCHSCRIPT:
        return _from_torchscript(path, trusted)
    if format_ is Format.TORCH:
        return _from_torch(path, trusted)
    if format_ in CURES:
        raise InvalidInputError(f"{path} {CURES[format_].format(path=str(path), folder=str(path.parent), name=path.name)}")
    if path.suffix == ".ckpt":
        raise InvalidInputError(
            f"{path} is no checkpoint of PyTorch; put the weights of another framework's into a module of PyTorch, and give "
            "package.module:factory that returns it"
        )
    raise InvalidInputError(f"{path} is no model, or damaged: model must be {KINDS}")


def _from_factory(name: str, weights: str | Path | None, trusted: bool) -> nn.Module:
    if weights is not None and not Path(weights).exists():
        raise InvalidInputError(f"no weights {weights}: there is no such file")
    module = call_factory(name, "a module")
    if not isinstance(module, nn.Module):
        raise InvalidInputError(f"{name}() must return a torch.nn.Module; it returned {type(module).__name__}")
    if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
        raise InvalidInputError(f"{name}() must return a module with numbers in it; it returned one on the meta device")
    if weights is not None:
        load_weights(module, Path(weights), name, trust_pickle=trusted)
    return module.eval()


def _from_safetensors(path: Path) -> MLP:
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise InvalidInputError(f"{path} is damaged: {one_line(error)}") from error
    if "activation" not in metadata:
        raise InvalidInputError(f"{path} holds the weights of a model that MLP.save did not write; {_as_weights(path)}")
    return MLP.load(path)


def _from_torchscript(path: Path, trusted: bool) -> nn.Module:
    if not trusted:
        raise InvalidInputError(
            f"{path} is TorchScript (torch.jit.save), a program that runs code of its own when it is loaded: --trust-pickle "
            f"opens it all the same; {SAFER}"
        )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit", DeprecationWarning)
            module: nn.Module = torch.jit.load(str(path), map_location="cpu")  # type: ignore[no-untyped-call]
    except (Exception, SystemExit) as error:
        # torch does not say which errors it raises, and the program may raise its own
        raise InvalidInputError(f"{path} cannot be opened as TorchScript: {one_line(error)}") from error
    return module.eval()


def _from_torch(path: Path, trusted: bool) -> nn.Module:
    try:
        content = read_checkpoint(path)
    except NotPlainError as error:
        if not trusted:
            named = f" of {error}" if str(error) else ""
            raise InvalidInputError(
                f"{path} is a pickle{named}, which can run any code when it is loaded: --trust-pickle loads it all the same; "
                f"{SAFER}"
            ) from error
        content = unpickled(path)
    if not isinstance(content, nn.Module):
        raise InvalidInputError(_not_a_module(path, content))
    return content.eval()


def _not_a_module(path: Path, content: Any) -> str:
    if states(content):
        return f"{path} holds weights, a state_dict, and no model; {_as_weights(path)}"
    return f"{path} must hold a whole torch.nn.Module; it holds {type(content).__name__}"


def _as_weights(path: Path) -> str:
    return f"give the model's code, too: package.module:factory --weights {path}"
