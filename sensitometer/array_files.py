"""
Files of arrays, in the format of safetensors, with a digest of each array, by which a change of a byte is seen. Imports no torch.

The digests stand in the metadata, under `digests`, as a JSON object: a hexadecimal BLAKE2b of 16 bytes by the array's name, and
one under the empty name that covers the names and the rest of the metadata. A file that an earlier version wrote has none.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from .files import check_regular, replacing

DIGESTS = "digests"
# Under which the metadata say when digests were added to a file that had none.
ADDED = "digests_added"
TYPES = {
    "float64": "F64",
    "float32": "F32",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
    "float16": "F16",
}
# Bytes of the longest header and of the largest file, and of what is read at once.
LONGEST_HEADER, LARGEST, AT_ONCE = 10_000_000, 10**12, 2**20
# Bytes of a digest.
SIZE = 16


class DamagedError(ValueError):
    """A file of arrays is not as it was written, or none; the message goes on from its name."""


def write(file: str | Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write arrays to a file, which appears under its name only when it is whole; the same arrays make the same bytes."""
    contents = {name: array.tobytes() for name, array in arrays.items()}
    header: dict[str, Any] = {}
    digests: dict[str, str] = {}
    start = 0
    # As safetensors writes them: the widest numbers first.
    for name in sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)):
        code, shape, end = TYPES[arrays[name].dtype.name], list(arrays[name].shape), start + len(contents[name])
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [start, end]}
        digests[name] = array_digest(name, code, shape, contents[name])
        start = end
    metadata = dict(metadata or {})
    digests[""] = _digest_of_the_rest(list(arrays), metadata)
    written = json.dumps({"__metadata__": {**metadata, DIGESTS: json.dumps(digests)}, **header}).encode()
    written += b" " * (-len(written) % 8)
    with replacing(file) as unfinished, unfinished.open("wb") as stream:
        stream.write(len(written).to_bytes(8, "little") + written)
        for name in header:
            stream.write(contents[name])


def array_digest(name: str, code: str, shape: list[int], content: bytes | memoryview) -> str:
    """Return the digest of one array; `code` is the name that the format has for its type."""
    return _begin(name, code, shape, content).hexdigest()


def _begin(name: str, code: str, shape: list[int], content: bytes | memoryview = b"") -> "hashlib.blake2b":
    digest = hashlib.blake2b(json.dumps([name, code, shape]).encode(), digest_size=SIZE)
    digest.update(content)
    return digest


def _digest_of_the_rest(names: list[str], metadata: Mapping[str, str]) -> str:
    rest = json.dumps([sorted(names), sorted(metadata.items())])
    return hashlib.blake2b(rest.encode(), digest_size=SIZE).hexdigest()


def read_digests(names: list[str], metadata: Mapping[str, str]) -> dict[str, str] | None:
    """
    Return the digests that the metadata of a file have, by the arrays' names; None if it has none.

    Raises
    ------
    DamagedError
        They are not those of arrays of these names.
    """
    if DIGESTS not in metadata:
        return None
    rest = {key: value for key, value in metadata.items() if key != DIGESTS}
    try:
        digests = json.loads(metadata[DIGESTS])
        whole = digests.pop("") == _digest_of_the_rest(names, rest) and digests.keys() == set(names)
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        whole = False
    if not whole:
        raise DamagedError("its digests are damaged, or its names")
    return dict(digests)


def check_array(name: str, code: str, shape: list[int], content: bytes | memoryview, digests: Mapping[str, str] | None) -> None:
    """Raise DamagedError if an array that was read from a file is not the one that was written."""
    if digests is not None and array_digest(name, code, shape, content) != digests[name]:
        raise DamagedError(f"{name!a:.60} is not as it was written")


def verify(file: Path) -> Mapping[str, str]:
    """
    Check a whole file against its digests, in one pass and little memory, and return its metadata.

    Raises
    ------
    DamagedError
        It is damaged.
    OSError
        It cannot be read, or is no file.
    """
    check_regular(file, LARGEST)
    with file.open("rb") as stream:
        header, metadata = _read_header(stream)
        digests = read_digests(list(header), metadata)
        end = 0
        for name, array in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            start, stop = array["data_offsets"]
            if start != end:
                raise DamagedError("its arrays do not follow on one another")
            digest = _begin(name, array["dtype"], array["shape"])
            left = stop - start
            while left:
                content = stream.read(min(left, AT_ONCE))
                if not content:
                    raise DamagedError("it was cut")
                digest.update(content)
                left -= len(content)
            if digests is not None and digest.hexdigest() != digests[name]:
                raise DamagedError(f"{name!a:.60} is not as it was written")
            end = stop
        if stream.read(1):
            raise DamagedError("it goes on after its last array")
    return metadata


def read_metadata(file: Path) -> Mapping[str, str]:
    """Return the metadata of a file; raises as `verify` does."""
    check_regular(file, LARGEST)
    with file.open("rb") as stream:
        return _read_header(stream)[1]


def _read_header(stream: BinaryIO) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """Return the arrays by name, each with `dtype`, `shape` and `data_offsets`, and the metadata."""
    length = int.from_bytes(stream.read(8), "little")
    if length > LONGEST_HEADER:
        raise DamagedError(f"its header would have {length:,} bytes")
    try:
        header = json.loads(stream.read(length))
        metadata = header.pop("__metadata__", {})
        for array in header.values():
            (start, stop), shape = array["data_offsets"], array["shape"]
            numbers = (start, stop, *shape)
            sound = all(type(number) is int and 0 <= number < 2**62 for number in numbers) and isinstance(array["dtype"], str)
            if not sound or (array["dtype"] in _WIDTHS and stop - start != math.prod(shape) * _WIDTHS[array["dtype"]]):
                raise ValueError
        if not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise DamagedError("its header is damaged") from None
    return header, metadata


_WIDTHS = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "I16": 2, "F16": 2, "I8": 1, "U8": 1, "BOOL": 1}
