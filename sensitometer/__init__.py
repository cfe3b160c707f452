"""Sensitometer measures how sensitive trained networks are to their inputs, and what that says about generalisation."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import paths, plot
    from .configuration import Configuration
    from .data import Dataset, load_dataset
    from .errors import SensitometerError
    from .measures import boundaries, jacobian_norm, jacobian_norm_estimate, transitions
    from .measuring import Monitor, compare, measure
    from .networks import MLP, MLPStack
    from .store import open_survey
    from .survey import run_survey
    from .train_networks import train
    from .training import Schedule

__version__ = version("sensitometer")

__all__ = [
    "MLP",
    "Configuration",
    "Dataset",
    "MLPStack",
    "Monitor",
    "Schedule",
    "SensitometerError",
    "boundaries",
    "compare",
    "jacobian_norm",
    "jacobian_norm_estimate",
    "load_dataset",
    "measure",
    "open_survey",
    "paths",
    "plot",
    "run_survey",
    "train",
    "transitions",
]

# Imported when first used: reading a survey needs no torch, whose import takes seconds.
_HOMES = {
    "Configuration": ".configuration",
    "Dataset": ".data",
    "MLP": ".networks",
    "MLPStack": ".networks",
    "Monitor": ".measuring",
    "Schedule": ".training",
    "SensitometerError": ".errors",
    "boundaries": ".measures",
    "compare": ".measuring",
    "jacobian_norm": ".measures",
    "jacobian_norm_estimate": ".measures",
    "load_dataset": ".data",
    "measure": ".measuring",
    "open_survey": ".store",
    "run_survey": ".survey",
    "train": ".train_networks",
    "transitions": ".measures",
}


def __getattr__(name: str) -> Any:
    if name in ("paths", "plot"):
        return import_module(f".{name}", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
