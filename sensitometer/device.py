"""The devices that networks are trained on: their checks, and how they compute. Imports torch only where it is needed."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from . import matmul
from .children import pipes, send
from .errors import InvalidInputError

# The precision of a GPU's products, in the rows of results. `SENSITOMETER_MATMUL=tf32` asks for the second: faster, with 10 bits
# instead of 23.
FULL, TF32 = "cublas", "cublas-tf32"


def check_device_name(device: str) -> None:
    """Raise InvalidInputError unless `device` is `cpu`, `cuda` or `cuda:INDEX`."""
    if not isinstance(device, str) or not re.fullmatch(r"cpu|cuda(:\d+)?", device, re.ASCII):
        raise InvalidInputError(f"device must be cpu or cuda; got {device!r}")


def check_device(device: str) -> None:
    """Raise InvalidInputError unless this machine has `device`."""
    check_device_name(device)
    if device == "cpu":
        return
    import torch

    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise InvalidInputError(f"device {device} was asked for, but torch finds {torch.cuda.device_count()} CUDA devices here")


def matmul_path(device: str) -> str:
    """Return the name of the matrix products of this process on a device."""
    if not device.startswith("cuda"):
        return matmul.active()
    return TF32 if os.environ.get(matmul.VARIABLE) == "tf32" else FULL


@contextmanager
def arithmetic(device: str) -> Iterator[None]:
    """
    Compute on one thread, on which small products are fastest, and on a GPU in full float32 unless TF32 was asked for by name.

    At the end the process has its own settings back.
    """
    import torch

    threads = torch.get_num_threads()
    tf32 = torch.backends.cuda.matmul.allow_tf32
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = matmul_path(device) == TF32
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cuda.matmul.allow_tf32 = tf32


def main() -> None:
    """Answer with the number of GPUs, in a child process."""
    import torch

    _, answers = pipes()
    send(answers, torch.cuda.device_count())
