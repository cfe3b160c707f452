"""The types of a row of a results file, and its digest, by which a change of a byte is seen. Imports no torch."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

# Bytes of a digest: of ever so many rows no two that differ have the same.
SIZE = 16
_TYPES = {"TEXT": str, "INTEGER": int, "REAL": float}
_encode = msgspec.msgpack.Encoder().encode


def row_digest(values: Sequence[Any]) -> bytes:
    """
    Return the digest of a row's values, as they are read: BLAKE2b of their MessagePack array, 16 bytes.

    Examples
    --------
    >>> row_digest(("0123456789abcdef", 12, 0.25, None)).hex()
    'fec331e8e1fbaf9d26981b4244510c71'
    """
    return hashlib.blake2b(_encode(values), digest_size=SIZE).digest()


class Kinds:
    """
    The types that the columns of a table take, from their declarations, such as `REAL NOT NULL`.

    Looking at a value costs as much as storing it: rows have few combinations of types, and these are remembered.
    """

    def __init__(self, declarations: Iterable[str]) -> None:
        self._declarations = tuple(declarations)
        self._types = [types_of(kind) for kind in self._declarations]
        self._numbers = [place for place, kind in enumerate(self._declarations) if kind.startswith("REAL")]
        self._known: dict[tuple[type, ...], bool] = {}

    def fit(self, values: Sequence[Any]) -> bool:
        """Return whether each value is of a type that its column takes; whether text is Unicode is not looked at."""
        types = tuple(map(type, values))
        fits = self._known.get(types)
        if fits is None:
            fits = self._known[types] = all(kind in kinds for kind, kinds in zip(types, self._types, strict=True))
        return fits

    def canonical(self, values: list[Any]) -> list[Any]:
        """
        Return the values of a row as SQLite gives them back once they are stored, so that their digest can be made before.

        A value that a column does not take stays, for SQLite to refuse.
        """
        for place in self._numbers:
            value = values[place]
            if value is None:
                continue
            # NaN becomes null, -0.0 is stored as 0, and a whole number as one that is not.
            if value != value:
                values[place] = None
            elif value == 0 or (type(value) is not float and isinstance(value, int | float)):
                values[place] = float(value) + 0.0
        if not self.fit(values):
            values = [_plain(value) for value in values]
        try:
            _encode(values)
        except UnicodeEncodeError:
            values = [_in_unicode(value) if isinstance(value, str) else value for value in values]
        except (TypeError, OverflowError):
            pass  # SQLite says what it is
        return values


def _plain(value: Any) -> Any:
    """Return a value of a class below one of Python's as what it is stored as: True as 1."""
    return next((kind(value) for kind in (int, float, str) if isinstance(value, kind)), value)


def _in_unicode(text: str) -> str:
    """Return text as it is; what is no Unicode, such as a file's name in another encoding, as Python shows it."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def types_of(kind: str) -> set[type]:
    """Return the types that a column's values may have, from its declaration, such as `REAL NOT NULL`."""
    types = {_TYPES[kind.partition(" ")[0]]}
    return types if "NOT NULL" in kind or "PRIMARY KEY" in kind else types | {type(None)}


def is_sound(value: Any, kind: str) -> bool:
    """Return whether a value that was read is one that a column of this declaration takes."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
    return type(value) in types_of(kind)
