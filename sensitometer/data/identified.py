"""Data of one's own under a survey: identified by content, and checked to be still the same. Looking at them needs no torch."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import DataError, InvalidInputError
from ..files import is_special
from .archives import read_archive
from .arrays import Arrays, Part
from .datasets import Dataset, make_dataset
from .folders import passed_over, read_folder
from .transforms import balanced_subset

# Bytes of a file that are read at once.
_BLOCK = 2**20


class Identity(NamedTuple):
    """A file of data as a survey must know it before it trains on it."""

    sha256: str  # 64 hexadecimal digits
    shape: tuple[int, ...]  # of a point
    classes: int
    points: tuple[int, int]  # of the training and of the test set


def identify(path: Path) -> Identity:
    """
    Return the identity of an `.npz` file or a folder of images.

    Raises
    ------
    DataError
        It cannot be read, or cannot be trained on.
    """
    arrays = _read(path, path.stem)
    for name, part in (("training", arrays.train), ("test", arrays.test)):
        if not len(part.y):
            raise DataError(f"{path} must hold {name} points to train on: x_train and y_train, or a folder train/")
        if part.y.dtype != np.int64 or (part.y < 0).any():
            raise DataError(f"{path} must hold the classes of its {name} points, whole numbers; it holds none")
    return Identity(content_sha256(path), arrays.shape, arrays.classes, (len(arrays.train.y), len(arrays.test.y)))


def load_identified(path: Path, *, name: str, sha256: str, train_points: int | None = None, normalise: str = "none") -> Dataset:
    """
    Load an `.npz` file or a folder of images that `identify` has seen, with up to `train_points` training points.

    These are chosen as in `load_dataset`. Raises DataError if the content is another one by now.
    """
    if path.exists() and (now := content_sha256(path)) != sha256:
        raise DataError(
            f"{path} was changed since the survey began: its SHA-256 is {now[:12]}..., that of the survey {sha256[:12]}...; "
            "put it back, or begin another survey in another folder"
        )
    arrays = _read(path, name)
    if train_points is not None:
        x, y = arrays.train
        chosen = balanced_subset(y.astype(np.int64), train_points, arrays.classes)
        train = Part(x[chosen], y[chosen])
        arrays = Arrays(name, train, arrays.test, arrays.classes, arrays.shape, arrays.class_names, arrays.notes)
    return make_dataset(arrays, normalise)


def content_sha256(path: Path) -> str:
    """Return the SHA-256 of a file; of a folder, that of the relative paths and contents of all that is in it."""
    digest = hashlib.sha256()
    try:
        if not path.is_dir():
            _update(digest, path)
            return digest.hexdigest()
        files = [file for file in path.rglob("*") if file.is_file()]
        names = {file.relative_to(path): file for file in files}
        for name in sorted(names):
            if not any(map(passed_over, name.parts)):
                digest.update(f"{name.as_posix()}\0{names[name].stat().st_size}\0".encode())
                _update(digest, names[name])
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _update(digest: "hashlib._Hash", file: Path) -> None:
    if is_special(file):
        raise DataError(f"{file} must be a file; it is a pipe or a device")
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)


def _read(path: Path, name: str) -> Arrays:
    if path.is_dir():
        return read_folder(path, name=name)
    if path.suffix != ".npz":
        raise InvalidInputError(f"{path} must be an .npz file or a folder of images by class")
    return read_archive(path, name=name)
