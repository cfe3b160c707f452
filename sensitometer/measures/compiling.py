"""How loops are compiled for the processor: by Numba, when they are first called, and kept for later processes."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """
    Return a function of NumPy arrays as machine code.

    Division by zero gives infinity or NaN, as in NumPy. The machine code is kept beside the source or in the user's cache
    folder, or in that which `$NUMBA_CACHE_DIR` names; where none can be written each process compiles anew, which takes seconds.
    """
    try:
        function: Callable[..., Any] = numba.njit(cache=True, error_model="numpy", nogil=True)(loop)
    except RuntimeError:  # Numba finds no folder for it
        function = numba.njit(error_model="numpy", nogil=True)(loop)
    return function
