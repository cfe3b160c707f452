"""Reads `.npz` files of anybody's arrays, and unpickles nothing. Imports no torch."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, InvalidInputError, one_line
from .arrays import ARGUMENTS, Arrays, Names, check_arrays, check_name

EXPECTED = "x (and y), or x_test (and y_test, x_train, y_train)"


def read_archive(path: Path, *, name: str | None = None, classes: int | None = None) -> Arrays:
    """Return the data set that the file holds; see `Dataset.from_file`."""
    name = check_name(path.stem if name is None else name)
    if not path.exists():
        raise DataError(f"no data {path}: there is no such file")
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} must be an .npz file, as numpy.savez writes it; it cannot be read: {_reason(error)}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise DataError(
            f"{path} must be an .npz file, as numpy.savez writes it; it holds a single array: numpy.savez(FILE, x=x, y=y)"
        )
    with archive:
        there = set(archive.files)
        names = Names("x", "y", "", "") if "x" in there or "y" in there else ARGUMENTS
        wrong = there - set(names)
        if names.x_test not in there or wrong:
            holds = ", ".join(sorted(there)) or "nothing"
            raise DataError(f"{path} must hold {EXPECTED}; it holds {holds}")
        arrays = [_read(archive, key, path) if key in there else None for key in names]
    try:
        return check_arrays(*arrays, name=name, classes=classes, names=names)
    except InvalidInputError as error:
        raise DataError(f"{path}: {error}") from error


def read_mapping(origin: str, arrays: dict[Any, Any], *, name: str) -> Arrays:
    """Return the data set that a dictionary of arrays holds, under the names of an `.npz` file; `origin` is where it is from."""
    names = Names("x", "y", "", "") if "x" in arrays or "y" in arrays else ARGUMENTS
    if names.x_test not in arrays or set(arrays) - set(names):
        raise InvalidInputError(f"{origin} must hold {EXPECTED}; it holds {', '.join(map(str, arrays)) or 'nothing'}")
    return check_arrays(*map(arrays.get, names), name=name, names=names)


def _read(archive: Any, key: str, path: Path) -> Any:
    try:
        return archive[key]
    except (
        OSError,
        ValueError,
        EOFError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        SyntaxError,
    ) as error:
        reason = "it holds Python objects, which are not unpickled" if "allow_pickle" in str(error) else _reason(error)
        raise DataError(f"{path}: {key} cannot be read: {reason}") from error


def _reason(error: Exception) -> str:
    # numpy asks for the file to be trusted where it takes it for a pickle.
    if "pickle" in str(error):
        return "it is neither a zip file nor an array"
    return (error.strerror if isinstance(error, OSError) else None) or one_line(error)
