"""How loops are compiled for the processor: by Numba, when they are first called, and kept for later processes."""

from collections.abc import Callable
from typing import Any

import numba

Loop = Callable[..., Any]


def compiled(loop: Loop | None = None, *, contract: bool = False) -> Any:
    """
    Return a function of NumPy arrays as machine code; a decorator, with or without arguments.

    Division by zero gives infinity or NaN, as in NumPy. The machine code is kept beside the source or in the user's cache
    folder, or in that which `$NUMBA_CACHE_DIR` names; where none can be written each process compiles anew, which takes seconds.

    Parameters
    ----------
    loop
        The function.
    contract
        Whether a product and a sum may be one operation, rounded once.
    """
    if loop is None:
        return lambda own: compiled(own, contract=contract)
    options: dict[str, Any] = {"error_model": "numpy", "nogil": True, "fastmath": {"contract"} if contract else False}
    try:
        return numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # Numba finds no folder for it
        return numba.njit(**options)(loop)
