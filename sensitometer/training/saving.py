"""The state of a long training on disk, so that a killed process goes on from there."""

import json
import os
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..files import check_regular, replacing

# The version of the runs' states; count it up where they change.
FORMAT = 1
# Bytes of the largest state.
LARGEST = 10**12
# Tensors by name, and what JSON can hold.
State = tuple[dict[str, Tensor], dict[str, Any]]


class Saver:
    """Where the state of one training is saved, a file in a folder that is there, and after how many seconds again."""

    def __init__(self, path: str | Path, every: float) -> None:
        self.path = Path(path)
        self.every = every
        self._last = time.monotonic()

    def due(self) -> bool:
        """Return whether it is time to save."""
        return time.monotonic() - self._last >= self.every

    def save(self, tensors: dict[str, Tensor], numbers: dict[str, Any]) -> None:
        """Replace the file by this state, whole. A full disk ends no training: the old state stays, and there is a warning."""
        self._last = time.monotonic()
        try:
            with replacing(self.path) as unfinished:
                content = {"numbers": json.dumps({**numbers, "format": FORMAT})}
                save_file({name: _alone(tensor) for name, tensor in tensors.items()}, unfinished, content)
        except (OSError, SafetensorError) as error:
            warnings.warn(f"cannot save the state of a training to {self.path} ({error}): it goes on", stacklevel=2)

    def load(self) -> State | None:
        """Return the state saved last. None if there is none, or with a warning if it cannot be read or has another format."""
        if not os.path.lexists(self.path):
            return None
        try:
            check_regular(self.path, LARGEST)
            with safe_open(self.path, framework="pt") as file:
                numbers = json.loads(file.metadata()["numbers"])
                if numbers["format"] != FORMAT:
                    raise ValueError(f"its format is {numbers['format']}, not {FORMAT}")
                # Copied: a tensor would be a view of the file, read only when it is used, and begin at any byte.
                return {name: file.get_tensor(name).clone() for name in file.keys()}, numbers  # noqa: SIM118  it is no mapping
        except (OSError, SafetensorError, TypeError, KeyError, ValueError) as error:
            warnings.warn(f"cannot go on from {self.path} ({error}): the training begins again", stacklevel=2)
            return None


def _alone(tensor: Tensor) -> Tensor:
    """Return the tensor in the CPU's memory and alone there; it is copied only if it must be: it may fill half of a machine."""
    tensor = tensor.cpu()
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
