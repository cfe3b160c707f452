"""Reads `.npz` files of anybody's arrays, and unpickles nothing. Imports no torch."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError, InvalidInputError, SensitometerError, one_line
from ..files import is_special
from .arrays import ARGUMENTS, Arrays, Names, check_arrays, check_name

# An array of more bytes than these must not be packed to less than a hundredth.
MOST_BYTES, MOST_RATIO = 2**28, 100
EXPECTED = "x (and y), or x_test (and y_test, x_train, y_train)"


def read_archive(path: Path, *, name: str | None = None, classes: int | None = None) -> Arrays:
    """Return the data set that the file holds; see `Dataset.from_file`."""
    name = check_name(path.stem if name is None else name)
    if not path.exists():
        raise DataError(f"no data {path}: there is no such file")
    if is_special(path):
        raise DataError(f"{path} must be an .npz file, as numpy.savez writes it; it is a pipe or a device")
    try:
        with path.open("rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(
                    f"{path} must be an .npz file, as numpy.savez writes it; it holds a single array: numpy.savez(FILE, x=x, y=y)"
                )
            _check_sizes(archive)
            names = _names(f"{path}", archive.files, DataError)
            arrays = [_read(archive, key, path) if key in archive.files else None for key in names]
    except DataError:
        raise
    except Exception as error:
        # Neither numpy nor zipfile says what it raises for damaged files.
        raise DataError(f"{path} must be an .npz file, as numpy.savez writes it; it cannot be read: {_reason(error)}") from error
    try:
        return check_arrays(*arrays, name=name, classes=classes, names=names)
    except InvalidInputError as error:
        raise DataError(f"{path}: {error}") from error


def _check_sizes(archive: Any) -> None:
    """Raise ValueError if an array unpacks to far more than numbers that were measured do: its memory is wanted."""
    for member in archive.zip.infolist():
        if member.file_size > MOST_BYTES and member.file_size > MOST_RATIO * member.compress_size:
            packed = f"{member.compress_size:,} bytes, which unpack to {member.file_size:,}"
            raise ValueError(f"{member.filename} has {packed}; save it with numpy.savez, which does not pack")


def read_mapping(arrays: dict[Any, Any], *, name: str) -> Arrays:
    """Return the data set that a dictionary of arrays holds, under the names of an `.npz` file."""
    names = _names("the dictionary", arrays, InvalidInputError)
    return check_arrays(*map(arrays.get, names), name=name, names=names)


def _names(origin: str, keys: Iterable[Any], refusal: type[SensitometerError]) -> Names:
    """Return the names of the arrays, test set first, or raise if they are none that are known."""
    there = set(keys)
    names = Names("x", "y", "", "") if there & {"x", "y"} else ARGUMENTS
    if names.x_test not in there or there - set(names):
        shown = ", ".join(sorted(key if isinstance(key, str) and key.isprintable() else repr(key) for key in there))
        raise refusal(f"{origin} must hold {EXPECTED}; it holds {shown or 'nothing'}")
    return names


def _read(archive: Any, key: str, path: Path) -> Any:
    try:
        return archive[key]
    except Exception as error:
        reason = "it holds Python objects, which are not unpickled" if "allow_pickle" in str(error) else _reason(error)
        raise DataError(f"{path}: {key} cannot be read: {reason}") from error


def _reason(error: Exception) -> str:
    # numpy asks for the file to be trusted where it takes it for a pickle.
    if "pickle" in str(error):
        return "it is neither a zip file nor an array"
    return (error.strerror if isinstance(error, OSError) else None) or one_line(error)
