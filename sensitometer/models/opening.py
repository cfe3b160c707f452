"""Opens trained models of any origin: a network of this package, an exported program, a module built by code, a pickle."""

import importlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn

from ..errors import InvalidInputError
from ..networks import MLP
from .exported import load_exported, one_line

FACTORY = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")
KINDS = "a .pt2 file of torch.export, package.module:factory, a .safetensors file of MLP.save, or a pickle (.pt, .pth)"


def open_model(model: str, *, weights: str | Path | None = None, trust_pickle: bool = False) -> Callable[[Tensor], Tensor]:
    """
    Open a model, in evaluation mode.

    Parameters
    ----------
    model
        One of: a `.pt2` file that `torch.export.save` wrote; `package.module:factory`, a function without arguments that
        returns a module, looked for in the current folder, too; a `.safetensors` file that `MLP.save` wrote; a `.pt` or `.pth`
        file that `torch.save` wrote of a whole module.
    weights
        A safetensors file of the state of the factory's module.
    trust_pickle
        Unpickle what the file holds, which may run any code. Without it no file is unpickled: pickles are refused, and `.pt2`
        files are read as in `load_exported`.

    Raises
    ------
    InvalidInputError
        There is no such model, it is damaged, or its weights do not fit.
    """
    if weights is not None and not FACTORY.fullmatch(model):
        raise InvalidInputError(f"weights belong to package.module:factory alone; {model} brings its own")
    kind = Path(model).suffix
    if FACTORY.fullmatch(model):
        return _from_factory(model, weights)
    if kind not in (".pt2", ".safetensors", ".pt", ".pth"):
        raise InvalidInputError(f"model must be {KINDS}; got {model!r}")
    if not Path(model).is_file():
        raise InvalidInputError(f"no model {model}: there is no such file")
    if kind == ".pt2":
        return load_exported(model, trust_pickle=trust_pickle)
    return MLP.load(model) if kind == ".safetensors" else _from_pickle(model, trust_pickle)


def _from_factory(name: str, weights: str | Path | None) -> nn.Module:
    home, _, attribute = name.partition(":")
    # The user's code may raise anything.
    with _current_folder():
        try:
            factory = getattr(importlib.import_module(home), attribute)
        except (ImportError, AttributeError) as error:
            raise InvalidInputError(f"no factory {name}: {one_line(error)}") from error
        except Exception as error:
            raise InvalidInputError(f"{home} cannot be imported: {type(error).__name__}: {one_line(error)}") from error
        if not callable(factory):
            raise InvalidInputError(f"{name} must be a function that returns a module; it is {type(factory).__name__}")
        try:
            module = factory()
        except Exception as error:
            raise InvalidInputError(f"{name}() failed: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise InvalidInputError(f"{name}() must return a torch.nn.Module; it returned {type(module).__name__}")
    if weights is not None:
        if not Path(weights).is_file():
            raise InvalidInputError(f"no weights {weights}: there is no such file")
        try:
            load_model(module, weights)
        except (RuntimeError, SafetensorError, OSError) as error:
            raise InvalidInputError(f"{weights} does not hold the weights of {name}: {one_line(error)}") from error
    return module.eval()


def _from_pickle(path: str, trusted: bool) -> nn.Module:
    if not trusted:
        raise InvalidInputError(
            f"{path} is a pickle, which can run any code when it is loaded: --trust-pickle loads it all the same; "
            "safer are a .pt2 file of torch.export, or package.module:factory with --weights"
        )
    try:
        with _current_folder(), warnings.catch_warnings():
            # torch.load handles TorchScript by itself, and warns of it.
            warnings.filterwarnings("ignore", "'torch.load' received a zip file that looks like a TorchScript", UserWarning)
            module = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:
        # a pickle may raise anything
        raise InvalidInputError(f"{path} cannot be unpickled: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise InvalidInputError(f"{path} must hold a whole torch.nn.Module; it holds {type(module).__name__}")
    return module.eval()


@contextmanager
def _current_folder() -> Iterator[None]:
    """Let modules be imported from the current folder, as `python -m` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
