"""Averages over networks of what was measured bin by bin along a path."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..errors import InvalidInputError


def average_profiles(profiles: Sequence[Mapping[str, NDArray[Any]]]) -> pd.DataFrame:
    r"""
    Return one row a bin: mean and standard error of each measure over networks (paper, 4.1, A.5.1 and A.5.2).

    Every network counts once, whatever its configuration: of two configurations, that of more networks counts more.

    Parameters
    ----------
    profiles
        One mapping a network, from the names of the same measures to their finite values in B equal bins of angle, from angle 0
        on; `[B]` each.

    Returns
    -------
    DataFrame
        `angle`, at the middle of the bin, in radians from 0 to $2\pi$; for each measure its mean under its own name and the
        standard error of the mean under `<name>_sem` (standard deviation with n - 1, over the root of n; nan with one network);
        `networks`, how many there are.

    Raises
    ------
    InvalidInputError
        There are no networks, or their numbers of bins differ.
    """
    shapes = sorted({np.shape(values) for profile in profiles for values in profile.values()})
    if len(shapes) != 1 or len(shapes[0]) != 1:
        got = " and ".join(str(list(shape)) for shape in shapes) or "none"
        raise InvalidInputError(f"profiles that are averaged must be of one number of bins, [B] each; got {got}")
    (bins,) = shapes[0]
    columns = {"angle": (np.arange(bins) + 0.5) * 2 * math.pi / bins}
    for name in profiles[0]:
        values = np.stack([profile[name] for profile in profiles]).astype(np.float64)
        columns[name] = values.mean(0)
        columns[f"{name}_sem"] = _standard_error(values)
    return pd.DataFrame(columns).assign(networks=len(profiles))


def _standard_error(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard error of the mean of `values` `[n, B]` over the first axis; `[B]`."""
    networks, bins = values.shape
    if networks == 1:
        return np.full(bins, math.nan)
    errors: NDArray[np.float64] = values.std(0, ddof=1) / math.sqrt(networks)
    return errors
