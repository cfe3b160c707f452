"""Means over networks with their intervals, and the contrasts that they are of."""

import math
from typing import NamedTuple

import numpy as np
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
        The mean over clusters, of each the mean of its values.
    low, high
        Ends of Student's interval; nan for fewer than two clusters.
    values, clusters
        How many values there are, and of how many clusters.
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
        One a network; those that are nan are left out.
    clusters
        The number of the cluster of each, `[n]`; every value is one of its own when None.

    Raises
    ------
    InvalidInputError
        The lengths differ.
    """
    x = np.asarray(values, dtype=np.float64)
    codes = np.arange(len(x)) if clusters is None else np.asarray(clusters)
    if x.shape != codes.shape:
        raise InvalidInputError(f"values and clusters must be of one length; got {list(x.shape)} and {list(codes.shape)}")
    x, codes = x[~np.isnan(x)], codes[~np.isnan(x)]
    if not len(x):
        return MeanInterval(math.nan, math.nan, math.nan, 0, 0)
    _, codes = np.unique(codes, return_inverse=True)
    means = np.bincount(codes, x) / np.bincount(codes)
    mean, n = float(means.mean()), len(means)
    if n == 1:
        return MeanInterval(mean, math.nan, math.nan, len(x), n)
    half = float(t.ppf(0.975, n - 1) * means.std(ddof=1) / math.sqrt(n))
    return MeanInterval(mean, mean - half, mean + half, len(x), n)


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
    angle = (np.arange(len(profile)) + 0.5) * (2 * math.pi / len(profile))
    # 0 at the middles, pi/3 at the points.
    turned = np.mod(angle, 2 * math.pi / 3)
    distance = np.minimum(turned, 2 * math.pi / 3 - turned)
    at, between = profile[distance > math.pi / 3 - NEAR], profile[distance < NEAR]
    return contrast(float(between.mean()), float(at.mean()))
