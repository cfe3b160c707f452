r"""
Kendall's tau-b, with an interval that respects what is independent.

A percentile bootstrap needs tau of a thousand resamples. A resample of clusters is the same networks with whole-number weights,
and tau-b with weights needs the weight $D$ of the discordant pairs and of the ties (Knight, 1966):

$$ \tau_b = \frac{N - X - Y + Z - 4 D}{\sqrt{(N - X)(N - Y)}} $$

with $N$ the square of the total weight, and $X$, $Y$, $Z$ the sums of the squared weights of the groups tied in x, in y, and in
both. Which pairs are discordant does not depend on the weights: it is laid out once, as index arrays, and evaluated for many
resamples side by side. Time is `O(resamples n log n)` and memory `O(n log n)`: no matrix over pairs of networks is ever made,
so 300,000 networks take a minute and a half rather than 700 GB.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import InvalidInputError

# The same survey must give the same interval, on every day and every machine.
BOOTSTRAP_SEED = 0
# With two clusters a resample is one of them, the other, or both: not a distribution.
FEWEST_CLUSTERS = 3
# Networks times resamples weighed at a time, in numbers: the buffers then stay in the cache.
CHUNK = 2**17

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Correlation:
    """
    Kendall's tau-b and its bootstrap interval.

    Parameters
    ----------
    tau
        From -1 to 1; nan where it is undefined: fewer than two networks, or one of the two quantities is constant.
    low, high
        Ends of the interval; nan where tau is, and with fewer than three clusters.
    networks
        How many networks tau is over.
    clusters
        How many independent groups (configurations) they come from.
    """

    tau: float
    low: float
    high: float
    networks: int
    clusters: int


def kendall(x: ArrayLike, y: ArrayLike, clusters: ArrayLike, *, resamples: int = 1000, level: float = 0.95) -> Correlation:
    """
    Return Kendall's tau-b of `x` and `y` `[n]` with a percentile bootstrap interval that resamples whole clusters.

    Seeds of one configuration are not independent: they must share a cluster. Each resample draws as many clusters as there
    are, with replacement, and takes all their networks. A resample whose tau is undefined (all its networks tied) is left out of
    the percentiles. The draws are the same every time.

    Parameters
    ----------
    x, y
        Two quantities of the networks, `[n]`, finite.
    clusters
        The cluster of each network, `[n]`: labels of any kind; equal labels are one cluster.
    resamples
        How many resamples the interval is taken from.
    level
        Share of the resamples inside the interval, between 0 and 1.

    Returns
    -------
    Correlation
        With nan in place of whatever is undefined; this never warns.

    Raises
    ------
    InvalidInputError
        The lengths differ, a value is not finite, or `resamples` or `level` is out of range.
    """
    x, y = _checked(x, y)
    labels = np.asarray(clusters)
    if labels.shape != x.shape:
        raise InvalidInputError(f"clusters must have one label for each of the {x.size} networks; got shape {labels.shape}")
    if resamples < 1:
        raise InvalidInputError(f"resamples must be at least 1; got {resamples}")
    if not 0 < level < 1:
        raise InvalidInputError(f"level must be between 0 and 1; got {level}")
    codes = pd.factorize(labels, use_na_sentinel=False)[0]
    count = int(codes.max(initial=-1)) + 1
    if x.size < 2:
        return Correlation(math.nan, math.nan, math.nan, x.size, count)
    pairs = _Pairs.of(x, y)
    tau = float(pairs.tau(np.ones((x.size, 1)))[0])
    if math.isnan(tau) or count < FEWEST_CLUSTERS:
        return Correlation(tau, math.nan, math.nan, x.size, count)
    taus = np.concatenate([pairs.tau(weights[codes]) for weights in _resampled(count, resamples, CHUNK // x.size)])
    taus = taus[~np.isnan(taus)]
    if not taus.size:
        return Correlation(tau, math.nan, math.nan, x.size, count)
    low, high = np.quantile(taus, [(1 - level) / 2, (1 + level) / 2])
    return Correlation(tau, float(low), float(high), x.size, count)


def kendall_tau(x: ArrayLike, y: ArrayLike) -> float:
    """Return Kendall's tau-b of `x` and `y` `[n]`, finite, without an interval; nan where it is undefined."""
    x, y = _checked(x, y)
    return float(_Pairs.of(x, y).tau(np.ones((x.size, 1)))[0]) if x.size > 1 else math.nan


def _checked(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise InvalidInputError(f"x and y must be two lists of equally many numbers; got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidInputError("x and y must be finite; leave out the networks where one of them was not measured")
    return x, y


def _resampled(clusters: int, resamples: int, at_a_time: int) -> Iterator[Floats]:
    """Yield how often each cluster is drawn, `[clusters, some of the resamples]`, until there were `resamples`."""
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    # Rows shorter than this cost more in overhead than in arithmetic.
    at_a_time = max(at_a_time, 32)
    for start in range(0, resamples, at_a_time):
        drawn = range(start, min(start + at_a_time, resamples))
        weights = np.empty((clusters, len(drawn)))
        for column in range(len(drawn)):
            weights[:, column] = np.bincount(generator.integers(clusters, size=clusters), minlength=clusters)
        yield weights


@dataclass(frozen=True)
class _Ties:
    """Groups of equal networks: an order that puts them side by side, and where each group starts in it."""

    order: Indices
    starts: Indices

    @staticmethod
    def of(order: Indices, *keys: NDArray[Any]) -> "_Ties":
        new = np.ones(order.size, dtype=bool)
        new[1:] = np.any([key[order[1:]] != key[order[:-1]] for key in keys], axis=0)
        return _Ties(order, np.flatnonzero(new))

    def squares(self, weights: Floats) -> Floats:
        """Return the sum over groups of the squared weight of the group, for each resample, `[B]`."""
        groups = np.add.reduceat(weights[self.order], self.starts, axis=0)
        return _dot(groups, groups)


@dataclass(frozen=True)
class _Level:
    """
    The pairs that one bit of the rank of y decides.

    Networks whose higher bits agree form a group, in the order of x. In it a network with the bit unset (`zeros`) is
    discordant with every earlier one with the bit set (`ones`): those numbered from `first` to `before` in `ones`.
    """

    ones: Indices
    zeros: Indices
    first: Indices
    before: Indices

    def discordance(self, weights: Floats) -> Floats:
        total = np.zeros((self.ones.size + 1, weights.shape[1]))
        np.cumsum(weights[self.ones], axis=0, out=total[1:])
        return _dot(weights[self.zeros], total[self.before] - total[self.first])


@dataclass(frozen=True)
class _Pairs:
    """All that tau-b needs to know of the pairs of n networks, whatever their weights."""

    levels: list[_Level]
    tied_x: _Ties
    tied_y: _Ties
    tied_both: _Ties

    @staticmethod
    def of(x: Floats, y: Floats) -> "_Pairs":
        # Among equal x by rising y: no pair tied in x then counts as discordant.
        order = np.lexsort((y, x))
        ranks = np.unique(y, return_inverse=True)[1]
        return _Pairs(
            levels=list(_levels(order, ranks)),
            tied_x=_Ties.of(order, x),
            tied_y=_Ties.of(np.argsort(y, kind="stable"), y),
            tied_both=_Ties.of(order, x, y),
        )

    def tau(self, weights: Floats) -> Floats:
        """Return tau-b of each resample, `[B]`; `weights` `[n, B]` says how often it holds each network. nan if undefined."""
        N = weights.sum(0) ** 2
        X, Y, Z = (ties.squares(weights) for ties in (self.tied_x, self.tied_y, self.tied_both))
        discordant = np.zeros_like(N)
        for level in self.levels:
            discordant += level.discordance(weights)
        scale = np.sqrt((N - X) * (N - Y))
        tau: Floats = np.full_like(scale, np.nan)
        np.divide(N - X - Y + Z - 4 * discordant, scale, out=tau, where=scale > 0)
        np.clip(tau, -1, 1, out=tau)
        return tau


def _dot(a: Floats, b: Floats) -> Floats:
    """Return the product of each column of `a` with the same column of `b`, `[B]`."""
    product: Floats = np.einsum("nb,nb->b", a, b)
    return product


def _levels(order: Indices, ranks: Indices) -> Iterator[_Level]:
    """Yield the levels of the ranks of y `[n]`, where `order` sorts the networks by x."""
    ranks = ranks[order]
    for bit in range(int(ranks.max()).bit_length()):
        grouped = np.argsort(ranks >> (bit + 1), kind="stable")
        groups = ranks[grouped] >> (bit + 1)
        one = (ranks[grouped] >> bit) & 1 == 1
        before = np.cumsum(one) - one
        first = before[np.searchsorted(groups, groups)]
        networks = order[grouped]
        yield _Level(networks[one], networks[~one], first[~one], before[~one])
