"""Calls a user's own function by its name, `package.module:function`, and says in one line what goes wrong with it."""

import importlib
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import InvalidInputError, SensitometerError, one_line

FACTORY = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


def call_factory(name: str, returns: str) -> Any:
    """
    Return what a user's function returns; its module is looked for in the current folder, too.

    Parameters
    ----------
    name
        `package.module:function`; the function takes no arguments.
    returns
        The kinds of values that it should return, as the message says it.

    Raises
    ------
    InvalidInputError
        There is no such function, its module cannot be imported, or it raises anything.
    """
    home, _, attribute = name.partition(":")
    # The user's code may raise anything, and `sys.exit` ends no program but its own.
    with current_folder():
        try:
            factory = getattr(importlib.import_module(home), attribute)
        except (ImportError, AttributeError) as error:
            raise InvalidInputError(f"no factory {name}: {one_line(error)}") from error
        except (Exception, SystemExit) as error:
            raise InvalidInputError(f"{home} cannot be imported: {type(error).__name__}: {one_line(error)}") from error
        if not callable(factory):
            raise InvalidInputError(f"{name} must be a function that returns {returns}; it is {type(factory).__name__}")
        return guarded(factory, f"{name}()")


def guarded(function: Callable[[], Any], name: str) -> Any:
    """Return what a user's function returns, called without arguments; InvalidInputError, of one line, if it raises anything."""
    try:
        return function()
    except SensitometerError:
        raise
    except (Exception, SystemExit) as error:
        raise InvalidInputError(f"{name} failed: {type(error).__name__}: {one_line(error)}") from error


@contextmanager
def current_folder() -> Iterator[None]:
    """Let modules be imported from the current folder, as `python -m` does."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
