"""How loops are compiled for the processor: by Numba, when they are first called, and kept for later processes."""

from collections.abc import Callable
from typing import Any

import numba

from ..files import has_home

Loop = Callable[..., Any]


def compiled(loop: Loop) -> Loop:
    """
    Return a function of NumPy arrays as machine code.

    Division by zero gives infinity or NaN, as in NumPy. The machine code is kept beside the source or in the user's cache
    folder, or in that which `$NUMBA_CACHE_DIR` names; where none can be written each process compiles anew, which takes seconds.
    """
    return _compiled(loop, {"error_model": "numpy", "nogil": True})


def contracted(loop: Loop) -> Loop:
    """Return the same, in which a product and a sum may be one operation that is rounded once."""
    return _compiled(loop, {"error_model": "numpy", "nogil": True, "fastmath": {"contract"}})


def _compiled(loop: Loop, options: dict[str, Any]) -> Loop:
    try:
        # Without a home folder Numba would make one of the name ~ in the current folder.
        function: Loop = numba.njit(cache=has_home(), **options)(loop)
    except RuntimeError:  # Numba finds no folder for it
        function = numba.njit(**options)(loop)
    return function
