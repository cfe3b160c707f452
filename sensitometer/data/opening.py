"""Opens data of any origin by one word: a known name, a file, a folder of images, or a function that makes them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInputError, SensitometerError, described
from ..importing import FACTORY, call_factory, guarded
from .archives import read_mapping
from .arrays import check_arrays, read_loader
from .datasets import NORMALISE, Dataset, make_dataset
from .named import load_dataset
from .sources import SOURCES, dataset_names

KINDS = f"a name ({', '.join(dataset_names())}), FILE.npz, a folder of images by class, or package.module:factory"
RETURNS = "a Dataset, a tensor, a pair (x, y), a dictionary of arrays or a DataLoader"


def open_data(
    text: str | os.PathLike[str], *, normalise: str | None = None, crop: int | None = None, size: int | None = None
) -> Dataset:
    """
    Open data for which a command line has one word.

    Parameters
    ----------
    text
        A name that `load_dataset` takes; an `.npz` file (`Dataset.from_file`); a folder of images (`Dataset.from_folder`); or
        `package.module:factory`, a function without arguments, looked for in the current folder, too, which returns a `Dataset`,
        a tensor or an array of points, a pair (points, labels), a dictionary of the arrays of an `.npz` file, or a `DataLoader`.
    normalise
        See `Dataset.renormalised`. None: `sphere` for a known name, `none` for data of one's own; a `Dataset` of a factory stays
        as it is.
    crop
        For a known name alone, as in `load_dataset`.
    size
        For a folder alone, as in `Dataset.from_folder`.

    Raises
    ------
    InvalidInputError
        There is no such data, an option does not go with it, or the factory raises anything or returns something else.
    DataError
        A file is missing, damaged, or not what its name says.
    """
    text = os.fspath(text)
    path = Path(text)
    known = text in SOURCES
    folder = not known and path.is_dir()
    if crop is not None and not known:
        raise InvalidInputError(f"crop goes with a known data set ({', '.join(SOURCES)}) alone; {text} is none{_instead(folder)}")
    if size is not None and not folder and path.suffix != ".npz" and not known and not FACTORY.fullmatch(text):
        raise InvalidInputError(f"no folder of images {text}: there is no such folder")
    if size is not None and not folder:
        raise InvalidInputError(f"size goes with a folder of images alone; {text} is none{'; use crop' if known else ''}")
    chosen = normalise if normalise is not None else "sphere" if known else NORMALISE
    if known:
        return load_dataset(text, crop=crop, normalise=chosen)
    if folder:
        return Dataset.from_folder(path, size=size, normalise=chosen)
    if path.suffix == ".npz":
        return Dataset.from_file(path, normalise=chosen)
    if FACTORY.fullmatch(text) and not path.exists():
        return _from_factory(text, normalise)
    there = "which is another kind of file" if path.exists() else "and there is no such file or folder"
    raise InvalidInputError(f"data must be {KINDS}; got {text!r}, {there}")


def _instead(folder: bool) -> str:
    return "; use size" if folder else ""


def _from_factory(name: str, normalise: str | None) -> Dataset:
    import torch

    made: Any = call_factory(name, RETURNS)
    if isinstance(made, Dataset):
        return made if normalise is None else made.renormalised(normalise)
    called = name.partition(":")[2]
    chosen = NORMALISE if normalise is None else normalise
    if isinstance(made, torch.utils.data.DataLoader):
        # It runs the user's code, too.
        made = guarded(lambda: read_loader("the loader", made), f"{name}()")
    try:
        if isinstance(made, Mapping):
            return make_dataset(read_mapping(dict(made), name=called), chosen)
        if isinstance(made, torch.Tensor | np.ndarray):
            return make_dataset(check_arrays(made, name=called), chosen)
        if isinstance(made, tuple) and len(made) == 2:
            return make_dataset(check_arrays(*made, name=called), chosen)
    except SensitometerError as error:
        raise type(error)(f"{name}(): {error}") from error
    raise InvalidInputError(f"{name}() must return {RETURNS}; it returned {described(made)}")
