"""Reads files of `torch.save`: a `state_dict`, a checkpoint that has one, or, if the file is trusted, any object."""

import re
import warnings
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidInputError, one_line
from ..importing import current_folder
from .archives import BombError, check_plain, open_archive

State = dict[str, Tensor]

_GLOBAL = re.compile(r"(?i:global|class) ([A-Za-z_][\w.]*\.\w+)")


class NotPlainError(Exception):
    """A pickle holds other objects than tensors and plain Python values; the message names the first, if it is known."""


def read_checkpoint(path: str | Path) -> Any:
    """
    Return the content of a file that `torch.save` wrote of tensors and plain Python values, running no code of the file.

    Raises
    ------
    NotPlainError
        It holds other objects, which would have to be unpickled.
    InvalidInputError
        The file is damaged.
    """
    check_checkpoint(path)
    try:
        with warnings.catch_warnings():
            # A pickle of Python's own is refused anyway; torch warns first that it might not read it.
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except UnpicklingError as error:
        named = _GLOBAL.search(str(error))
        raise NotPlainError(named[1] if named else "") from error
    except Exception as error:
        # torch does not say which errors it raises for a damaged file
        raise InvalidInputError(f"{path} is damaged: {one_line(error)}") from error


def check_checkpoint(path: str | Path) -> None:
    """Raise InvalidInputError if a file is a zip archive that `torch.save` cannot have written, and that may be a bomb."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with open_archive(Path(path)) as archive:
            check_plain(archive, Path(path).stat().st_size)
    except BombError as error:
        raise InvalidInputError(f"{path} is not unpacked: {error}; save it again with torch.save") from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise InvalidInputError(f"{path} is damaged: {one_line(error)}") from error


def unpickled(path: str | Path) -> Any:
    """Return the content of a pickle, which may run any code; InvalidInputError if it cannot be had."""
    try:
        with current_folder():
            return torch.load(path, map_location="cpu", weights_only=False)
    except (Exception, SystemExit) as error:
        # a pickle may raise anything
        raise InvalidInputError(f"{path} cannot be unpickled: {type(error).__name__}: {one_line(error)}") from error


def states(checkpoint: Any) -> dict[str, State]:
    """
    Return every `state_dict` of a checkpoint by its key.

    A checkpoint that is itself one has it under the key "", and no other. Whole modules give theirs.
    """
    if isinstance(checkpoint, nn.Module):
        return {"": checkpoint.state_dict()}
    if _is_state(checkpoint):
        return {"": checkpoint}
    if not isinstance(checkpoint, dict):
        return {}
    parts = {key: part.state_dict() if isinstance(part, nn.Module) else part for key, part in checkpoint.items()}
    return {str(key): part for key, part in parts.items() if _is_state(part)}


def _is_state(part: Any) -> bool:
    """Whether it is a dictionary of names and tensors; `_extra_state` may be anything, as for torch."""
    return (
        isinstance(part, dict)
        and any(isinstance(value, Tensor) for value in part.values())
        and all(
            isinstance(name, str) and (isinstance(value, Tensor) or name.endswith("_extra_state")) for name, value in part.items()
        )
    )
