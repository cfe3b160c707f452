"""Pairs of networks that differ in one setting alone, and the share in which the worse has the larger value (paper, 4.2)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from ..configuration import FIELDS
from ..errors import InvalidInputError
from .seeds import check_columns, cluster_codes, fitted_networks, measured_networks


class Factor(NamedTuple):
    """
    A setting in which the networks of a pair differ.

    Parameters
    ----------
    worse, better
        Its values with which the paper's networks generalise worse, and better.
    better_only
        Settings of the better one to which the worse one has no counterpart.
    fitted
        Whether both networks of a pair must be fitted.
    """

    worse: str
    better: tuple[str, ...]
    better_only: tuple[str, ...] = ()
    fitted: bool = True


# The rows of Figure 4, from the top, by the column of the setting. With augmentation few networks reach 100% train accuracy, so
# that this study keeps them all (A.5.4). L-BFGS has neither learning rate nor batch size, and its steps are iterations (A.5.5).
FACTORS = {
    "labels": Factor("random", ("true",)),
    "augmentation": Factor("none", ("shift-flip", "shift-flip-rotate"), fitted=False),
    "activation": Factor("hardsigmoid", ("relu",)),
    "optimizer": Factor("lbfgs", ("momentum",), better_only=("learning_rate", "batch_size", "steps")),
}
# 95% of a standard normal distribution lie within.
_Z = 1.959963984540054


class Share(NamedTuple):
    """
    The share of pairs in which the worse setting has the larger value.

    Parameters
    ----------
    share
        From 0 to 1; a tie counts half.
    low, high
        95% interval.
    pairs, configurations
        Their numbers.
    """

    share: float
    low: float
    high: float
    pairs: int
    configurations: int


def network_pairs(frame: pd.DataFrame, factor: str, columns: Sequence[str]) -> pd.DataFrame:
    """
    Return all pairs of networks of one seed that differ in one setting alone (paper, 4.2.1).

    An L-BFGS network makes a pair with each momentum network alike in the rest, of whatever learning rate and batch size.

    Parameters
    ----------
    frame
        One row per network, as `store.frame()` gives it.
    factor
        The setting, a key of `FACTORS`.
    columns
        Names of measured columns. Networks without a finite value in each make no pairs.

    Returns
    -------
    DataFrame
        One row per pair, in the order of the networks with the worse setting: `worse` and `better`, the two values of the
        setting; the columns of `Configuration` that both share; for `optimizer` learning rate, batch size and steps, of the
        momentum network; `<name>_worse` and `<name>_better` for each of `columns`; and `configuration`, a number that pairs share
        whose networks with the worse setting differ in their seeds alone.

    Raises
    ------
    InvalidInputError
        The factor is unknown, or the frame lacks a column.
    """
    if factor not in FACTORS:
        raise InvalidInputError(f"factor must be one of {', '.join(FACTORS)}; got {factor!r}")
    setting = FACTORS[factor]
    networks = (fitted_networks if setting.fitted else measured_networks)(frame, columns)
    check_columns(frame, [factor])
    better_only = [name for name in setting.better_only if name in networks.columns]
    shared = [name for name in FIELDS if name in networks.columns and name not in (factor, *better_only)]
    worse = networks[networks[factor] == setting.worse]
    worse = worse.assign(worse=setting.worse, configuration=cluster_codes(worse))
    better = networks[networks[factor].isin(setting.better)]
    better = better.assign(better=better[factor])
    # A setting that does not apply is null, and null equals null here.
    pairs = worse[["worse", *shared, *columns, "configuration"]].merge(
        better[["better", *shared, *better_only, *columns]], on=shared, suffixes=("_worse", "_better")
    )
    values = [f"{name}_{end}" for name in columns for end in ("worse", "better")]
    return pairs[["worse", "better", *shared, *better_only, *values, "configuration"]]


def share_larger(pairs: pd.DataFrame, column: str) -> Share:
    """
    Return the share of pairs in which the worse setting has the larger value of a measured column (paper, Figure 4).

    The 95% interval is Wilson's. Seeds of one configuration, and momentum networks that share a partner, are counted as if they
    were the same: n pairs, n_i of them of configuration i, are worth n^2 / sum n_i^2.

    Parameters
    ----------
    pairs
        At least one row of the result of `network_pairs`.
    column
        One of its measured columns.
    """
    worse, better = pairs[f"{column}_worse"], pairs[f"{column}_better"]
    share = float(((worse > better) + 0.5 * (worse == better)).mean())
    sizes = pairs["configuration"].value_counts()
    low, high = wilson_interval(share, len(pairs) ** 2 / float((sizes**2).sum()))
    return Share(share, low, high, len(pairs), len(sizes))


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95% interval of a share among `n` independent cases."""
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    # At a share of 0 or 1 one end is that share, which rounding would miss.
    return (centre - half if share > 0 else 0.0), (centre + half if share < 1 else 1.0)
