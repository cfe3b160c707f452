"""From networks to configurations: which networks count, and averages over the seeds of a configuration."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..configuration import FIELDS, LABELS
from ..errors import InvalidInputError

# The columns of a survey that the functions of this package need beside the measured ones.
NETWORK_COLUMNS = ("id", *FIELDS, "state")


def configuration_columns(frame: pd.DataFrame) -> list[str]:
    """Return the columns of `frame` that name a configuration: all fields of `Configuration` but the seed, in its order."""
    return [name for name in FIELDS if name != "seed" and name in frame.columns]


def cluster_codes(frame: pd.DataFrame) -> NDArray[np.intp]:
    """
    Return the number of the configuration that each network belongs to, `[n]`; the seeds of one configuration share it.

    A setting that does not apply is null, and null equals null.
    """
    groups = frame.groupby(configuration_columns(frame), dropna=False, sort=False)
    codes: NDArray[np.intp] = groups.ngroup().to_numpy().astype(np.intp)
    return codes


def fitted_networks(frame: pd.DataFrame, columns: Sequence[str], *, labels: str | None = None) -> pd.DataFrame:
    """
    Return the fitted networks (paper, 4.3: 100% train accuracy) whose `columns` are all finite, these as float64.

    Parameters
    ----------
    frame
        One row per network, as `store.frame()` gives it. A column that was never measured may be all null, of any type.
    columns
        Names of measured columns; none: all fitted networks.
    labels
        `true` or `random`: only networks trained on these; None: both.

    Raises
    ------
    InvalidInputError
        The frame lacks a column, or `labels` is neither.
    """
    if labels is not None and labels not in LABELS:
        raise InvalidInputError(f"labels must be one of {', '.join(LABELS)}, or None for both; got {labels!r}")
    check_columns(frame, ("state", "labels", *columns))
    chosen = frame["state"] == "fitted"
    if labels is not None:
        chosen &= frame["labels"] == labels
    return measured_networks(frame[chosen], columns)


def measured_networks(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """
    Return the networks, of whatever state, whose `columns` are all finite, these as float64.

    Raises
    ------
    InvalidInputError
        The frame lacks a column.
    """
    check_columns(frame, columns)
    measured = {name: frame[name].to_numpy(dtype=np.float64, na_value=np.nan) for name in columns}
    finite = np.all([np.ones(len(frame), bool), *(np.isfinite(values) for values in measured.values())], axis=0)
    return frame.assign(**measured)[finite].reset_index(drop=True)


def check_columns(frame: pd.DataFrame, columns: Sequence[str]) -> None:
    """Raise InvalidInputError unless `frame` has all `columns`."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise InvalidInputError(f"the frame must have the column {missing[0]}; it has {', '.join(map(str, frame.columns))}")


def average_over_seeds(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """
    Return one row per configuration: mean and standard error of each of `columns` over its seeds (paper, A.5.1).

    All rows given count: choose them first, as with `fitted_networks`, since a seed that did not finish is left out (A.5.1).

    Parameters
    ----------
    frame
        One row per network; `columns` finite.
    columns
        Names of measured columns.

    Returns
    -------
    DataFrame
        The configuration's columns; for each of `columns` its mean under its own name and the standard error of the mean
        under `<name>_sem` (standard deviation with n - 1, over the root of n; nan with a single seed); `seeds`, their number. In
        the order in which the configurations first occur.
    """
    groups = frame.groupby(configuration_columns(frame), dropna=False, sort=False)
    averages = {f"{name}{ending}": (name, how) for name in columns for ending, how in (("", "mean"), ("_sem", "sem"))}
    return groups.agg(**averages, seeds=("seed", "size")).reset_index()
