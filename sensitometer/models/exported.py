r"""
Reads models that `torch.export` wrote (`.pt2`), running nothing that the file brings along.

`torch.export.load` trusts its file: it unpickles the example inputs, and weights and constants that say they are pickled, imports
compiled libraries, evaluates the strings of symbolic sizes and of guards as Python, and looks up the targets of the graph's nodes
anywhere in torch. So the file is not handed to it. Its records are read here, checked, and written into a fresh archive in
memory, which holds nothing else; that one is loaded. What another reader of archives might find in the file is out of reach, too.

- Example inputs, extra files and compiled libraries are left out; so are guards and the nodes' notes on their origin.
- Weights and constants are raw numbers. Those in archives of torch before 2.9, which hold all tensors in one pickle, pass through
  torch's unpickler for tensors alone (`weights_only=True`), and are saved anew.
- Operators are those of aten and arithmetic on sizes; sizes are arithmetic on symbols whose value stays small (`expressions`).
- Records that are not needed are not unpacked, and packed ones only up to the size that their tensors are declared to have.
- No other string has a character in it with which one could write a program.
"""

import io
import json
import logging
import operator
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidInputError, one_line
from .archives import BombError, check_archive, check_plain, is_packed, open_archive, read_member
from .expressions import UnsafeError, check_arithmetic, check_expression

# The records that are taken over, under the archive's root folder.
_NUMBERS = re.compile(r"data/(weights/weight_\d+|constants/tensor_\d+)")
_RAW = re.compile(r"archive_format|archive_version|byteorder|\.data/\w+|version")
_PICKLED = re.compile(r"data/(weights|constants)/model\.pt|serialized_(state_dict|constants)\.pt")
_PAYLOADS = re.compile(r"data/(weights|constants)/model_(weights|constants)_config\.json")
_EMPTIED = re.compile(r"data/sample_inputs/model\.pt|serialized_example_inputs\.pt")
_PROGRAM = re.compile(r"models/model\.json|serialized_exported_program\.json")

_ARITHMETIC = "getitem|add|sub|mul|floordiv|mod|neg|truediv|pow|and_|or_|not_|eq|ne|lt|le|gt|ge"
_TARGET = re.compile(
    r"(?!.*\b__)"
    rf"(torch\.ops\.(aten|prims)\.(?!from_file)\w+\.\w+|torch\.ops\.higher_order\.wrap_with_(set_grad_enabled|autocast)"
    rf"|_operator\.({_ARITHMETIC})|torch\.sym_\w+|math\.(ceil|floor|trunc|sqrt))",
    re.ASCII,
)
_WORDS = re.compile(r"[\w.@]*", re.ASCII)
# Values of arguments, and versions: `same`, `none`, `bij,bjk->bik`, `cuda:0`, `2.13.0+cpu`.
_TEXT = re.compile(r"[\w.@ ,:>+-]*", re.ASCII)
# By the key under which a string stands; `_WORDS` under any other.
_PATTERNS = {
    **dict.fromkeys(("target", "as_operator"), _TARGET),
    "path_name": re.compile(r"(weight|tensor)_\d+", re.ASCII),
    **dict.fromkeys(("as_string", "as_strings", "type", "torch_version"), _TEXT),
}
# Bytes of a complex number of the largest kind.
_LARGEST_NUMBER = 16
_GIVE_SIZES = {
    *("aten.sym_size.int", "aten.sym_stride.int", "aten.sym_numel.default", "aten.sym_storage_offset.default"),
    *("aten.item.default", "aten._local_scalar_dense.default"),
}
_NODE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


class _Refused(Exception):  # noqa: N818  it never leaves this module
    """A part of the file that is not taken."""


def load_exported(path: str | Path, *, trust_pickle: bool = False) -> Callable[[Tensor], Tensor]:
    """
    Load a model that `torch.export.save` wrote; return it as a callable.

    Parameters
    ----------
    path
        A `.pt2` file.
    trust_pickle
        Hand the file to `torch.export.load` as it is, which may run any code that is in it.

    Raises
    ------
    InvalidInputError
        The file is no exported program, holds what is not read without trust, was exported in training mode, or for one number
        of points alone.
    """
    try:
        source = str(path) if trust_pickle else _rebuilt(Path(path))
        with _quiet():
            program = torch.export.load(source)
            if not trust_pickle:
                check_arithmetic(program.graph.nodes, _is_arithmetic, _is_size)
            module: Callable[[Tensor], Tensor] = program.module()
    except _Refused as refused:
        raise InvalidInputError(
            f"{path} {refused}, which is not loaded without --trust-pickle: a file can run any code that way"
        ) from refused
    except UnsafeError as error:
        raise InvalidInputError(f"{path} has arithmetic that is not run without --trust-pickle: {error}") from error
    except BombError as error:
        raise InvalidInputError(f"{path} is not unpacked: {error}") from error
    except Exception as error:
        # torch does not say which errors it raises for a file that is none of its own
        raise InvalidInputError(f"{path} is not a program that torch.export.save wrote: {one_line(error)}") from error
    _check_program(program, path)
    return module


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from logging, with a traceback, that an archive is not of the newest format, before it reads the older one."""
    log = logging.getLogger("torch.export")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(level)


def _rebuilt(path: Path) -> io.BytesIO:
    """Return a fresh archive of the records of the file that are needed, checked; _Refused if one of them is not taken."""
    buffer = io.BytesIO()
    with open_archive(path) as archive, zipfile.ZipFile(buffer, "w") as fresh:
        check_archive(archive, path.stat().st_size)
        names = archive.namelist()
        if len(set(names)) < len(names):
            raise _Refused("has two records of one name")
        # Newer archives have a root folder.
        root = next((match[1] for name in names if (match := re.fullmatch(rf"([^/]+/|)({_PROGRAM.pattern})", name))), None)
        if root is None:
            raise ValueError("no program is in it")
        inner = [name.removeprefix(root) for name in names if name.startswith(root)]
        sizes: dict[str, int] = {}
        for name in filter(_PAYLOADS.fullmatch, inner):
            described = json.loads(read_member(archive, f"{root}{name}"))
            sizes |= _declared_sizes(f"data/{name.split('/')[1]}/", described)
        for name in inner:
            content = _taken(archive, f"{root}{name}", name, sizes)
            if content is not None:
                fresh.writestr(f"model/{name}" if root else name, content)
    buffer.seek(0)
    return buffer


def _declared_sizes(folder: str, described: Any) -> dict[str, int]:
    """Return the bytes of each record of raw numbers that the list of payloads in a folder names, as its tensors declare them."""
    sizes: dict[str, int] = {}
    for payload in described["config"].values():
        name, meta = f"{folder}{payload['path_name']}", payload["tensor_meta"]
        if meta is None:
            continue
        shape, strides, (offset,) = (
            [_integer(size) for size in part] for part in (meta["sizes"], meta["strides"], [meta["storage_offset"]])
        )
        last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True)) if all(shape) else -1
        sizes[name] = max(sizes.get(name, 0), _LARGEST_NUMBER * (offset + last + 1))
    return sizes


def _integer(size: Any) -> int:
    number = size["as_int"]
    if type(number) is not int or number < 0:
        raise ValueError("the shape of a tensor in it has something else than whole numbers")
    return number


def _taken(archive: zipfile.ZipFile, member: str, name: str, sizes: dict[str, int]) -> bytes | None:
    """Return the content of a record in the fresh archive, None if it is left out."""
    if _NUMBERS.fullmatch(name):
        # A record of numbers that no tensor is made of is not needed.
        return read_member(archive, member, sizes[name]) if name in sizes else None
    if _EMPTIED.fullmatch(name):
        return b""
    if _RAW.fullmatch(name):
        return read_member(archive, member)
    if _PICKLED.fullmatch(name):
        if is_packed(archive.getinfo(member)):
            raise BombError(f"its {name} is packed, which torch.export.save does not do")
        return _only_tensors(name, read_member(archive, member, 0))
    if _PROGRAM.fullmatch(name) or _PAYLOADS.fullmatch(name):
        return json.dumps(_checked(json.loads(read_member(archive, member)), "")).encode()
    return None


def _only_tensors(name: str, content: bytes) -> bytes:
    """Return a pickle of tensors that holds the tensors of this one, and nothing else."""
    if not content:
        return content
    if zipfile.is_zipfile(io.BytesIO(content)):
        with open_archive(io.BytesIO(content)) as archive:
            check_plain(archive, len(content))
    try:
        tensors = torch.load(io.BytesIO(content), weights_only=True)
    except (UnpicklingError, RuntimeError):
        tensors = None
    if not isinstance(tensors, dict) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise _Refused(f"has something else than tensors in {name}")
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    return buffer.getvalue()


def _checked(value: Any, key: str) -> Any:
    """
    Return a part of the program or of the list of its payloads, found under `key`, without notes and guards.

    Raises _Refused if a string in it is not taken, or a payload is pickled.
    """
    if key == "use_pickle" and value:
        raise _Refused("holds a weight or a constant as a pickle")
    if isinstance(value, dict):
        if key == "metadata":
            return {}
        for name in value:
            _check_string(name, _TEXT)
        return {name: _checked(part, name) for name, part in value.items()}
    if isinstance(value, list):
        return [] if key == "guards_code" else [_checked(part, key) for part in value]
    if isinstance(value, str):
        if key in ("in_spec", "out_spec"):
            _check_tree(json.loads(value)[1])
        elif key == "expr_str":
            try:
                check_expression(value)
            except UnsafeError as error:
                raise _Refused(f"has the size {value[:60]!r} in its graph ({error})") from error
        else:
            _check_string(value, _PATTERNS.get(key, _WORDS))
    return value


def _is_arithmetic(target: Any) -> bool:
    """Whether the target of a node is a function of Python on numbers, as `_TARGET` lets through."""
    return getattr(target, "__module__", "") in ("_operator", "math") or getattr(target, "__name__", "").startswith("sym_")


def _is_size(target: Any) -> bool:
    """Whether the target of a node gives a number: a size, or a part of a list of them."""
    return str(target) in _GIVE_SIZES or target is operator.getitem


def _check_string(text: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(text):
        raise _Refused(f"has {text[:60]!r} in its graph")


def _check_tree(node: Any) -> None:
    """Refuse inputs or outputs of other kinds than tuples, lists and dictionaries."""
    if node["type"] not in _NODE_TYPES or "{" in str(node["context"]):
        raise _Refused(f"takes or gives {node['type']}")
    for child in node["children_spec"]:
        _check_tree(child)


def _check_program(program: Any, path: str | Path) -> None:
    """Refuse a program that takes other than points `[n, ...]` of any number n, or was exported in training mode."""
    inputs = program.graph_signature.user_inputs
    if len(inputs) != 1:
        raise InvalidInputError(f"{path} must take one argument, points [n, ...]; it takes {len(inputs)}")
    (node,) = (node for node in program.graph.nodes if node.op == "placeholder" and node.name == inputs[0])
    shape = getattr(node.meta.get("val"), "shape", ())
    if not shape or isinstance(shape[0], int):
        raise InvalidInputError(
            f"{path} takes {list(shape)} alone; export it for any number of points: "
            "torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim('n')},))"
        )
    for node in program.graph.nodes:
        named = node.target._schema.arguments if hasattr(node.target, "_schema") else ()
        arguments = dict(zip((argument.name for argument in named), node.args, strict=False)) | node.kwargs
        if arguments.get("training", arguments.get("train")) is True:
            raise InvalidInputError(f"{path} was exported in training mode ({node.name}): call model.eval() before torch.export")
