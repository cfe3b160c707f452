"""The devices that networks are trained on, and their checks. Imports torch only to look for a GPU."""

from .errors import InvalidInputError


def check_device_name(device: str) -> None:
    """Raise InvalidInputError unless `device` is `cpu`, `cuda` or `cuda:INDEX`."""
    if not isinstance(device, str):
        raise InvalidInputError(f"device must be 'cpu' or 'cuda'; got {device!r}")
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (device != kind and not (kind == "cuda" and index.isdecimal())):
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
