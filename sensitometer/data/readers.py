"""Reads the formats that the data sets come in, IDX, CIFAR and a table, into numpy arrays, and trusts no byte of them."""

import gzip
import importlib.util
import io
import math
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from ..errors import DataError, dimensions, one_line
from .locations import fetch_command, find_file, require_files
from .sources import DataFile, Source, Split

UInt8Array = npt.NDArray[np.uint8]


def read_idx(path: Path, shape: tuple[int, ...]) -> UInt8Array:
    """
    Read an IDX file of unsigned bytes of this `shape`, gzipped when its name ends in `.gz`; DataError if it is anything else.

    The format was published with MNIST: a magic number and the length of each axis as big-endian 32-bit integers, then the
    elements, the last axis fastest. Labels are (N,), images (N, height, width).
    """
    # The magic number: two zero bytes, the type of the elements (8 is the unsigned byte), the number of axes.
    expected_header = np.array([0x800 + len(shape), *shape], dtype=">u4")
    content = _read_bytes(path, expected_header.nbytes + math.prod(shape))
    if len(content) < expected_header.nbytes:
        raise DataError(f"{path} ends after {len(content)} bytes, inside its header")
    header = np.frombuffer(content, dtype=">u4", count=len(expected_header))
    if header[0] != expected_header[0]:
        raise DataError(f"{path} begins with {_magic(header[0])}; expected {_magic(expected_header[0])}")
    if (header != expected_header).any():
        raise DataError(f"{path} says that it holds {dimensions(header[1:])} bytes; expected {dimensions(shape)}")
    _check_size(path, content, expected_header.nbytes + math.prod(shape))
    return np.frombuffer(content, dtype=np.uint8, offset=expected_header.nbytes).reshape(shape)


def read_cifar(path: Path, points: int, image_shape: tuple[int, int, int], label_bytes: int) -> tuple[UInt8Array, UInt8Array]:
    """
    Read a CIFAR binary file of N = `points` records; DataError if it cannot be read or has another size.

    A record is `label_bytes` bytes, 1 for CIFAR10, and 2 for CIFAR100, whose superclass comes before the class; then the bytes of
    an image, by channel, row and column.

    Returns
    -------
    uint8 images `[N, channels, height, width]` and uint8 labels `[N]`.
    """
    record = label_bytes + math.prod(image_shape)
    content = _read_bytes(path, points * record)
    _check_size(path, content, points * record)
    records = np.frombuffer(content, dtype=np.uint8).reshape(points, record)
    return records[:, label_bytes:].reshape(points, *image_shape), records[:, label_bytes - 1]


def read_pickled_cifar(
    path: Path, points: int, image_shape: tuple[int, int, int], label_key: str
) -> tuple[UInt8Array, UInt8Array]:
    """
    Read a CIFAR file for Python, a pickle of N = `points` images and labels; DataError if it is anything else.

    Nothing in the file is run: where the pickle asks for the classes and functions of numpy, it is given stand-ins that keep what
    they are told, and any other name is refused. The labels are under `label_key`.

    Returns
    -------
    uint8 images `[N, channels, height, width]` and uint8 labels `[N]`, as `read_cifar` does.
    """
    pixels = math.prod(image_shape)
    # Each image comes with the name of its file. Python 3 writes for Python 2 up to two bytes per pixel.
    most = points * (2 * pixels + 200) + 10_000
    content = _read_bytes(path, most)
    if len(content) > most:
        raise DataError(f"{path} holds more than {most} bytes; expected a CIFAR file for Python of {points} images")
    try:
        batch = {_text(key): value for key, value in _CifarUnpickler(io.BytesIO(content), encoding="bytes").load().items()}
        images, numbers = _bytes_of(batch["data"], (points, pixels)), np.array(batch[label_key], dtype=np.int64)
        if numbers.shape != (points,):
            raise ValueError(f"{label_key} holds {dimensions(numbers.shape)} labels; expected {points}")
        # NumPy 1 would take 256 for 0.
        if numbers.min(initial=0) < 0 or numbers.max(initial=0) > 255:
            raise OverflowError(f"{label_key} holds other numbers than 0 to 255")
        labels = numbers.astype(np.uint8)
    except Exception as error:
        # A pickle may raise anything.
        raise DataError(f"{path} is no CIFAR file for Python: {type(error).__name__}: {one_line(error)}") from error
    return images.reshape(points, *image_shape), labels


class _Told:
    """Stands for an array or its type in a pickle, and keeps what it is told."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _CifarUnpickler(pickle.Unpickler):
    """Unpickles dictionaries of numbers, bytes and numpy arrays of bytes; see `read_pickled_cifar`."""

    _stand_ins: ClassVar[dict[tuple[str, str], Callable[..., Any]]] = {
        **{(module, "_reconstruct"): lambda *_: _Told() for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
        ("numpy", "ndarray"): _Told,
        ("numpy", "dtype"): _Told,
        # Bytes, as Python 3 pickles them for Python 2.
        ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in of a function or class of numpy."""
        if (module, name) not in self._stand_ins:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which it does not need")
        return self._stand_ins[module, name]


def _bytes_of(array: _Told, shape: tuple[int, ...]) -> UInt8Array:
    """Return an array of bytes of this shape, from what its stand-in was told; ValueError if it is another one."""
    _, shape_told, dtype, in_columns, content = array.state
    kind = _text(dtype.arguments[0])
    if (kind, shape_told, bool(in_columns)) != ("u1", shape, False):
        raise ValueError(f"data holds {dimensions(shape_told)} numbers of {kind}; expected {dimensions(shape)} bytes by rows")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _text(name: Any) -> Any:
    return name.decode("latin1") if isinstance(name, bytes) else name


def read_digits(points: int, image_shape: tuple[int, int, int]) -> tuple[UInt8Array, UInt8Array]:
    """
    Read the handwritten digits that are part of scikit-learn, without importing it, which takes a second.

    Parameters
    ----------
    points
        Images that the file must hold, N.
    image_shape
        (channels, height, width).

    Returns
    -------
    uint8 images `[N, channels, height, width]`, of pixels from 0 to 16, and uint8 labels `[N]`.

    Raises
    ------
    DataError
        scikit-learn or its file is not there, or the file holds something else.
    """
    package = importlib.util.find_spec("sklearn")
    if package is None or not package.submodule_search_locations:
        raise DataError("digits is part of scikit-learn, which is not installed; run 'pip install scikit-learn'")
    path = Path(package.submodule_search_locations[0], "datasets", "data", "digits.csv.gz")
    columns = math.prod(image_shape) + 1
    try:
        table = np.loadtxt(path, dtype=np.uint8, delimiter=",", ndmin=2)
        if table.shape != (points, columns):
            raise ValueError(f"it holds {dimensions(table.shape)} numbers; expected {points} x {columns}")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"{path} cannot be read; install scikit-learn again: {error}") from error
    return table[:, :-1].reshape(points, *image_shape), table[:, -1]


def read_split(source: Source, split: Split, folder: Path) -> tuple[UInt8Array, UInt8Array]:
    """
    Read the training or the test set of `source` from the files below `folder`.

    Returns uint8 images `[N, channels, height, width]` and uint8 labels `[N]`, the first `split.points` of those in the files.
    Raises DataError as `read_file` does.
    """
    require_files(source, folder)
    parts = [read_file(source, file, folder) for file in split.files]
    images = [images for images, _ in parts if images is not None]
    labels = [labels for _, labels in parts if labels is not None]
    return np.concatenate(images)[: split.points], np.concatenate(labels)[: split.points]


def read_file(source: Source, file: DataFile, folder: Path) -> tuple[UInt8Array | None, UInt8Array | None]:
    """
    Return the images and the labels in one file of `source` below `folder`, each None when the file holds none.

    Raises DataError if the file is missing, damaged, or another file than its name says.
    """
    path = find_file(file, folder) or folder / file.name
    _, height, width = source.image_shape
    images = labels = None
    try:
        if file.holds == "records":
            if path.suffix == ".bin":
                images, labels = read_cifar(path, file.points, source.image_shape, source.label_bytes)
            else:
                key = "labels" if source.label_bytes == 1 else "fine_labels"
                images, labels = read_pickled_cifar(path, file.points, source.image_shape, key)
        elif file.holds == "images":
            images = read_idx(path, (file.points, height, width))[:, None]
        else:
            labels = read_idx(path, (file.points,))
        if labels is not None:
            _check_labels(path, labels, source.classes)
    except DataError as error:
        raise DataError(f"{error}; run '{fetch_command(source, folder)}' to replace it") from error
    return images, labels


def _read_bytes(path: Path, size: int) -> bytes:
    """Return the content of the file, unpacked when its name ends in `.gz`; of a content longer than `size`, `size + 1` bytes."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            # One byte more shows that there is too much, however much, and takes gzip past its closing checksum.
            return stream.read(size + 1)
    except EOFError as error:
        raise DataError(f"{path} is a gzip file that ends too early") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is not a sound gzip file: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _check_size(path: Path, content: bytes, size: int) -> None:
    if len(content) > size:
        raise DataError(f"{path} holds more than the expected {size} bytes")
    if len(content) < size:
        raise DataError(f"{path} holds {len(content)} bytes; expected {size}")


def _check_labels(path: Path, labels: UInt8Array, classes: int) -> None:
    if labels.max() >= classes:
        raise DataError(f"{path} holds the label {labels.max()}; expected 0 to {classes - 1}")
    counts = np.bincount(labels, minlength=classes)
    if (counts == 0).any():
        raise DataError(f"{path} holds no point of class {counts.argmin()}; expected each of the {classes} classes")


def _magic(number: np.unsignedinteger) -> str:
    return f"0x{number:08x}" + {0x803: " (IDX images)", 0x801: " (IDX labels)"}.get(int(number), "")
