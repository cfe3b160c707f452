"""Reading TOML, and refusing what is in it: each message has the full path of a key, and is one line, not too long."""

import re
import reprlib
import tomllib
from typing import Any

from ..errors import InvalidInputError

# Characters that would end a line, or do something to a terminal.
CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029]"


def read_toml(text: str) -> dict[str, Any]:
    """Return the document that a text is; tomllib.TOMLDecodeError if it is none, RecursionError if it is nested too deeply."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except ValueError:
        # Python reads no integer of more than 4,300 digits. A shorter one in its place is too large too, and its key is named.
        return tomllib.loads(re.sub(r"\d[\d_]{499,}", "9" * 100, text))


def cut(text: str, most: int = 160) -> str:
    """Return a text without its middle, if it is too long."""
    return text if len(text) <= most else f"{text[: most // 2]}...{text[-most // 2 :]}"


class _Short(reprlib.Repr):
    """Writes any value on a line that can be read: long strings without their middles, long lists without their ends."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 2, 60, 80

    def repr(self, x: Any) -> str:
        """Write a value; one of many parts is cut once more."""
        return cut(super().repr(x))

    def repr_int(self, x: int, level: int) -> str:
        """Write an integer, which in decimal Python refuses to if it is long."""
        return super().repr_int(x, level) if x.bit_length() < 1000 else f"an integer of {x.bit_length()} bits"


SHORT = _Short()


def one_line(name: str) -> str:
    """Return a name as it is, or as Python writes it if it is no line."""
    return name if name.isprintable() else repr(name)


def require(condition: object, path: str, expected: str, value: Any) -> None:
    """Raise InvalidInputError with the full path of a key unless the condition holds; true and false are written as in TOML."""
    if not condition:
        received = str(value).lower() if isinstance(value, bool) else SHORT.repr(value)
        raise InvalidInputError(f"{path}: expected {expected}; got {received}")
