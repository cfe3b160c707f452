"""Means over networks with their intervals or standard errors, and the contrasts that some of them are of."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import t

from ..errors import InvalidInputError
from ..store.arrays import FEWEST_BINS

# How near a point of an ellipse is to a training point, or to the middle between two, in radians: a fifth of the way to the next.
NEAR = 0.2


class MeanInterval(NamedTuple):
    """
    A mean over independent clusters, and its 95% interval.

    Parameters
    ----------
    mean
        The mean over clusters of the mean of the values of each.
    low, high
        Ends of Student's interval; nan for fewer than two clusters.
    values, clusters
        Numbers of values and of clusters.
    """

    mean: float
    low: float
    high: float
    values: int
    clusters: int


def mean_interval(values: ArrayLike, clusters: ArrayLike | None = None) -> MeanInterval:
    """
    Return the mean of finite values `[n]` and its 95% interval, by Student's distribution over the means of the clusters.

    Parameters
    ----------
    values
        One per network; nan is left out.
    clusters
        The number of the cluster of each, `[n]`; every value is its own cluster when None.

    Raises
    ------
    InvalidInputError
        The lengths differ.
    """
    x = pd.Series(np.asarray(values, dtype=np.float64))
    codes = np.arange(len(x)) if clusters is None else np.asarray(clusters)
    if x.shape != codes.shape:
        raise InvalidInputError(f"values and clusters must be of one length; got {list(x.shape)} and {list(codes.shape)}")
    means = x.groupby(codes).mean().dropna()
    mean, half = float(means.mean()), float(t.ppf(0.975, len(means) - 1)) * cast(float, means.sem())
    return MeanInterval(mean, mean - half, mean + half, int(x.count()), len(means))


def average_profiles(profiles: Sequence[Mapping[str, NDArray[Any]]]) -> pd.DataFrame:
    r"""
    Return one row per bin: mean and standard error of each measure over networks (paper, 4.1, A.5.1 and A.5.2).

    Every network counts once: a configuration of more networks counts more.

    Parameters
    ----------
    profiles
        One mapping per network, from the names of the same measures to their finite values in B equal bins of angle, from angle 0
        on; `[B]` each.

    Returns
    -------
    DataFrame
        `angle`, at the middle of the bin, in radians from 0 to $2\pi$; for each measure its mean under its own name and the
        standard error of the mean under `<name>_sem` (standard deviation with n - 1, over the root of n; nan with one network);
        `networks`, their number.

    Raises
    ------
    InvalidInputError
        There are no networks, or their numbers of bins differ.
    """
    shapes = sorted({np.shape(values) for profile in profiles for values in profile.values()})
    if len(shapes) != 1 or len(shapes[0]) != 1:
        got = " and ".join(str(list(shape)) for shape in shapes) or "none"
        raise InvalidInputError(f"profiles that are averaged must be of one number of bins, [B] each; got {got}")
    columns = {"angle": _middles(*shapes[0])}
    for name in profiles[0]:
        values = np.stack([profile[name] for profile in profiles]).astype(np.float64)
        columns |= {name: values.mean(0), f"{name}_sem": pd.DataFrame(values).sem().to_numpy()}
    return pd.DataFrame(columns).assign(networks=len(profiles))


def contrast(a: float, b: float) -> float:
    """
    Return $(a - b) / (a + b)$ of two numbers of 0 or more: 1 if only a is above 0, 0 if they are equal, 1/3 if a is twice b.

    Unlike a ratio, it has a value where one of them is 0, and one network's cannot outweigh all others'. It is nan if one of them
    is nan or infinite.
    """
    return 0.0 if a == b == 0 else (a - b) / (a + b)


def dip(profile: NDArray[np.float64]) -> float:
    r"""
    Return how far a measure along a fitted ellipse falls towards its three points (paper, 4.1): a `contrast`.

    It is that of the means within 0.2 radians of the middles between the points, 0, $2\pi/3$ and $4\pi/3$, and within 0.2 of the
    points, $\pi/3$, $\pi$ and $5\pi/3$.

    Parameters
    ----------
    profile
        The measure in B equal bins of angle, from angle 0 on.

    Raises
    ------
    InvalidInputError
        There are fewer than 16 bins: too few to tell the points from the middles.
    """
    if len(profile) < FEWEST_BINS:
        raise InvalidInputError(f"a profile must have at least {FEWEST_BINS} bins; got {len(profile)}")
    # 0 at the middles, pi/3 at the points.
    turned = np.mod(_middles(len(profile)), 2 * math.pi / 3)
    distance = np.minimum(turned, 2 * math.pi / 3 - turned)
    at, between = profile[distance > math.pi / 3 - NEAR], profile[distance < NEAR]
    return contrast(float(between.mean()), float(at.mean()))


def _middles(bins: int) -> NDArray[np.float64]:
    """Return the angles at the middles of equal bins of one turn, in radians; `[B]`."""
    return (np.arange(bins) + 0.5) * 2 * math.pi / bins
