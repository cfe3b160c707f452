"""The errors that Sensitometer raises, each with a message of one line; the checks and the words that many messages share."""

import operator
from collections.abc import Iterable
from typing import Any, SupportsIndex, cast


class SensitometerError(Exception):
    """Base of every error that Sensitometer raises on purpose; the command line prints it as one line and exits with 2."""


class InvalidInputError(SensitometerError, ValueError):
    """An argument, or a value in a specification, is not what the function takes."""


class UnseenError(InvalidInputError):
    """A model has no activation that can be seen: none whose boundaries are known, or one inside a fused operator."""


class TooManyRegionsError(SensitometerError):
    """A slice has more linear regions than were asked for at most."""


class DataError(SensitometerError):
    """A data set is missing, damaged or not what its name says, or could not be fetched."""


class StoreError(SensitometerError):
    """A survey's folder or results file is missing, damaged, or belongs to another survey."""


class WorkerError(SensitometerError):
    """A worker process could not be started, or ended before it had answered."""


class MissingDataError(SensitometerError):
    """A survey holds nothing that a figure could draw. The message says what is needed, and what there is."""


def check_whole_number(name: str, value: object, *, least: int = 1, most: int | None = None) -> int:
    """
    Return `value` as an `int`.

    Any whole number type is taken, such as `np.int64`; `True` and `2.0` are not.

    Parameters
    ----------
    name
        The argument, as the message calls it.
    least, most
        The smallest and the largest number taken; no largest one when None.

    Raises
    ------
    InvalidInputError
        It is no whole number, or out of range.

    Examples
    --------
    >>> check_whole_number("points", 12)
    12
    >>> check_whole_number("points", True)
    Traceback (most recent call last):
    sensitometer.errors.InvalidInputError: points must be a whole number of at least 1; got True
    """
    try:
        # For NumPy 1, its booleans are whole numbers.
        truth = isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool"
        number = None if truth else operator.index(cast(SupportsIndex, value))
    except TypeError:
        number = None
    if number is None or number < least or (most is not None and number > most):
        expected = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise InvalidInputError(f"{name} must be a whole number {expected}; got {value!r}")
    return number


def described(value: Any) -> str:
    """Return what a message says of an argument that was refused: type and shape of a tensor or array, else its class."""
    return f"{value.dtype} {list(value.shape)}" if hasattr(value, "dtype") else type(value).__name__


def counted(count: int, name: str) -> str:
    """Return a number and the name of the things counted, as in `1 network` and `1,200 networks`."""
    return f"{count:,} {name}{'s' * (count != 1)}"


def dimensions(shape: Iterable[int]) -> str:
    """Return the sizes of an image or a grid, as in `1 x 28 x 28`."""
    return " x ".join(f"{size:,}" for size in shape)


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line; its name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def printable(text: str) -> str:
    r"""
    Return a text as one line that does nothing to a terminal but show.

    Escape codes, line breaks, characters that turn the direction of writing, and others that nobody sees are written as Python
    writes them in a string; so are bytes of a name of a file that are no UTF-8. A text that is printable stays as it is.

    Examples
    --------
    >>> print(printable("naïve \x1b[31m red\u202e\n"))
    naïve \x1b[31m red\u202e\n
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
