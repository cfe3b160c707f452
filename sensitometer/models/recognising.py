"""Recognises the format of a model's file by its content, not its name, and says what to do with formats that are not opened."""

import zipfile
from enum import Enum, auto
from pathlib import Path

from ..errors import InvalidInputError
from ..files import is_special
from .archives import open_archive


class Format(Enum):
    """The format of a file."""

    EXPORTED = auto()  # torch.export.save
    TORCHSCRIPT = auto()  # torch.jit.save
    TORCH = auto()  # torch.save, or another pickle
    SAFETENSORS = auto()
    ONNX = auto()
    HDF5 = auto()
    KERAS = auto()
    GGUF = auto()
    LFS_POINTER = auto()
    UNKNOWN = auto()


_MAGIC = {
    b"GGUF": Format.GGUF,
    b"\x89HDF\r\n\x1a\n": Format.HDF5,
    b"version https://git-lfs.github.com": Format.LFS_POINTER,
}
_LONGEST_MAGIC = max(map(len, _MAGIC))
_KERAS = (
    "is a model of Keras, which is not opened: give package.module:factory that returns keras.models.load_model({path!r}), with "
    "KERAS_BACKEND=torch set, whose models are PyTorch modules"
)
# The cure for a file of a format that is not opened.
CURES = {
    Format.ONNX: (
        "is an ONNX file, which is not opened: give package.module:factory that returns onnx2torch.convert({path!r}) "
        "(pip install onnx2torch), or export the original model with torch.export"
    ),
    Format.HDF5: _KERAS.replace("is a model of Keras", "is an HDF5 file, as Keras writes"),
    Format.KERAS: _KERAS,
    Format.GGUF: (
        "is a GGUF file of llama.cpp, which is not opened: give package.module:factory that returns "
        "transformers.AutoModelForCausalLM.from_pretrained({folder!r}, gguf_file={name!r})"
    ),
    Format.LFS_POINTER: "is a Git LFS pointer in place of the file: run git lfs pull",
}


def recognised(path: Path) -> Format:
    """
    Return the format of an existing file.

    Raises
    ------
    InvalidInputError
        It is no regular file, cannot be read, or begins as a zip archive and lacks its end.
    """
    if path.is_dir():
        raise InvalidInputError(
            f"{path} is a folder; name a file in it, or, for a model of transformers, give package.module:factory that returns "
            f"AutoModel...from_pretrained({str(path)!r})"
        )
    if is_special(path):
        raise InvalidInputError(f"{path} must be a file; it is a pipe or a device")
    try:
        with path.open("rb") as file:
            head = file.read(_LONGEST_MAGIC)
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read: {error.strerror}") from error
    for magic, format_ in _MAGIC.items():
        if head.startswith(magic):
            return format_
    if _is_safetensors(head, path.stat().st_size):
        return Format.SAFETENSORS
    if head.startswith(b"PK\x03\x04"):
        return _zipped(path)
    # A pickle of protocol 2 or later begins so, and torch.save writes no earlier one.
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return Format.TORCH
    return Format.ONNX if _is_onnx(path) else Format.UNKNOWN


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file begins with the length of a header of JSON and the header."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size - 8


def _zipped(path: Path) -> Format:
    try:
        with open_archive(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise InvalidInputError(
            f"{path} is damaged: it begins as a zip archive and lacks its end; copy or download it again"
        ) from error
    # Without the root folder, which torch names for the file.
    inner = {name.partition("/")[2] for name in names} | set(names)
    if {"models/model.json", "serialized_exported_program.json"} & inner:
        return Format.EXPORTED
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return Format.TORCHSCRIPT
    if "data.pkl" in inner:
        return Format.TORCH
    return Format.KERAS if {"config.json", "metadata.json"} <= inner else Format.UNKNOWN


# The fields of ONNX's ModelProto: whole numbers (ir_version, model_version), and those that state their length; 7 is the graph.
_ONNX_NUMBERS, _ONNX_LENGTHS, _ONNX_GRAPH = {1, 5}, {2, 3, 4, 6, 7, 8, 14, 20, 25, 26}, 7


def _is_onnx(path: Path) -> bool:
    """Whether a file is a message of ONNX's ModelProto from its beginning to its end; a protobuf has no other mark."""
    size, position, fields = path.stat().st_size, 0, set()
    with path.open("rb") as file:
        while position < size:
            key, value = _varint(file.read(10)), None
            if key is not None:
                file.seek(position + key[1])
                value = _varint(file.read(10))
            if key is None or value is None:
                return False
            field, wire = key[0] >> 3, key[0] & 7
            fields.add(field)
            position += key[1] + value[1]
            if wire == 2 and field in _ONNX_LENGTHS:
                position += value[0]
            elif wire != 0 or field not in _ONNX_NUMBERS:
                return False
            file.seek(position)
    return position == size and {1, _ONNX_GRAPH} <= fields


def _varint(head: bytes) -> tuple[int, int] | None:
    """Return a whole number of protobuf and how many bytes it takes; None if there is none."""
    number = 0
    for place, byte in enumerate(head):
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, place + 1
    return None
