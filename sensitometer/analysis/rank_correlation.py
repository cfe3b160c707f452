r"""
Kendall's tau-b, with an interval that respects what is independent.

A resample of clusters is the same networks with whole-number weights, and tau-b with weights needs the weight $D$ of the
discordant pairs and of the ties (Knight, 1966):

$$ \tau_b = \frac{N - X - Y + Z - 4 D}{\sqrt{(N - X)(N - Y)}} $$

with $N$ the square of the total weight, and $X$, $Y$, $Z$ the sums of the squared weights of the groups tied in x, in y, and in
both. Which pairs are discordant does not depend on the weights: it is laid out once, as index arrays, in `O(n log n)` time and
memory. No matrix over pairs of networks is ever made.

Few networks or few clusters: a percentile bootstrap, the tau of a thousand resamples, evaluated many side by side.

Many of both: the infinitesimal jackknife (Efron, *The Jackknife, the Bootstrap and Other Resampling Plans*, 1982, chapter 6).
That is what the bootstrap's standard error becomes when tau is replaced by its tangent in the weights. With $U_k$ the sum, over
the networks $i$ of cluster $k$, of $\partial \tau_b / \partial w_i$ at weights of 1,

$$ \mathrm{se}^2 = \sum_k U_k^2, \qquad \tau_b \pm z\, \mathrm{se}, \qquad
   \frac{\partial \tau_b}{\partial w_i} = \frac{N_i - X_i - Y_i + Z_i - 4 D_i}{\sqrt{(N - X)(N - Y)}}
   - \frac{\tau_b}{2} \left( \frac{N_i - X_i}{N - X} + \frac{N_i - Y_i}{N - Y} \right) $$

where an index $i$ is the derivative by $w_i$: twice the total weight, twice the weight of the group of $i$, and, for $D$, the
weight of the networks that are discordant with $i$. The numbers of times that K clusters are drawn have the variances $1 - 1/K$
and the covariances $-1/K$; since tau is the same for weights twice as large, the $U_k$ sum to 0, and only their squares remain.
80,000 networks take half a second.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from ..errors import InvalidInputError

# The same survey must give the same interval, on every day and every machine.
BOOTSTRAP_SEED = 0
# With two clusters a resample is one of them, the other, or both: not a distribution.
FEWEST_CLUSTERS = 3
# Of so many networks a thousand resamples take about a second, and of more in proportion.
MOST_RESAMPLED_NETWORKS = 2_000
# The jackknife takes tau for normal, and for straight in the weights. With so many clusters the ends of the two intervals are
# within 3% of their width, which is what a thousand resamples themselves leave open; with 20 they are 5% apart.
FEWEST_JACKKNIFE_CLUSTERS = 200
# Networks times resamples weighed at a time, in numbers: the buffers then stay in the cache.
CHUNK = 2**17

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Correlation:
    """
    Kendall's tau-b and its interval.

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
    Return Kendall's tau-b of `x` and `y` `[n]` with an interval for the resampling of whole clusters.

    Seeds of one configuration are not independent: they must share a cluster. Up to 2,000 networks, or with fewer than 200
    clusters, the interval is a percentile bootstrap: each resample draws as many clusters as there are, with replacement, and
    takes all their networks. A resample whose tau is undefined (all its networks tied) is left out of the percentiles. The draws
    are the same every time. Beyond, it is tau plus and minus a normal quantile times the standard error of such resamples, by the
    infinitesimal jackknife, cut to [-1, 1]: the two differ by less than is printed, and the bootstrap would take minutes.

    Parameters
    ----------
    x, y
        Two quantities of the networks, `[n]`, finite.
    clusters
        The cluster of each network, `[n]`: labels of any kind; equal labels are one cluster.
    resamples
        How many resamples a bootstrap takes.
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
    codes = _cluster_numbers(clusters, x.size, resamples, level)
    return _with_interval(_Pairs.of(x, y) if x.size else None, codes, resamples, level)


def kendall_contrast(
    x: ArrayLike,
    yardstick: ArrayLike,
    y: ArrayLike,
    clusters: ArrayLike,
    *,
    share: float = 0.5,
    resamples: int = 1000,
    level: float = 0.95,
) -> Correlation:
    r"""
    Return by how much Kendall's tau-b of `x` and `y` exceeds a share of that of a yardstick and `y`.

    $$ \tau_b(x, y) - s\, \tau_b(\mathrm{yardstick}, y) $$

    Both are of the same networks and, in the interval, of the same resamples, so that what the two have in common cancels.

    Parameters
    ----------
    x, yardstick, y
        Three quantities of the networks, `[n]`, finite.
    clusters, resamples, level
        As for `kendall`.
    share
        The share s of the yardstick's tau.

    Returns
    -------
    Correlation
        Its `tau`, `low` and `high` are of the difference; nan where one of the two is undefined, and as for `kendall`.

    Raises
    ------
    InvalidInputError
        As for `kendall`.
    """
    x, y = _checked(x, y)
    yardstick, _ = _checked(yardstick, y)
    codes = _cluster_numbers(clusters, x.size, resamples, level)
    contrast = _Contrast(_Pairs.of(x, y), _Pairs.of(yardstick, y), share) if x.size else None
    return _with_interval(contrast, codes, resamples, level)


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


def _cluster_numbers(clusters: ArrayLike, networks: int, resamples: int, level: float) -> Indices:
    """Return the clusters numbered from 0, `[n]`, or refuse them or the options of an interval."""
    labels = np.asarray(clusters)
    if labels.shape != (networks,):
        raise InvalidInputError(f"clusters must have one label for each of the {networks} networks; got shape {labels.shape}")
    if resamples < 1:
        raise InvalidInputError(f"resamples must be at least 1; got {resamples}")
    if not 0 < level < 1:
        raise InvalidInputError(f"level must be between 0 and 1; got {level}")
    return pd.factorize(labels, use_na_sentinel=False)[0].astype(np.intp)


def _with_interval(pairs: "_Pairs | _Contrast | None", codes: Indices, resamples: int, level: float) -> Correlation:
    """Return the tau of `pairs`, None if there are no networks, with the interval that their number and their clusters' allow."""
    count = int(codes.max(initial=-1)) + 1
    tau = float(pairs.tau(np.ones((codes.size, 1)))[0]) if pairs else math.nan
    if pairs is None or math.isnan(tau) or count < FEWEST_CLUSTERS:
        return Correlation(tau, math.nan, math.nan, codes.size, count)
    if codes.size > MOST_RESAMPLED_NETWORKS and count >= FEWEST_JACKKNIFE_CLUSTERS:
        low, high = _jackknife_interval(tau, pairs, codes, level)
    else:
        low, high = _bootstrap_interval(pairs, codes, resamples, level)
    return Correlation(tau, low, high, codes.size, count)


def _bootstrap_interval(pairs: "_Pairs | _Contrast", codes: Indices, resamples: int, level: float) -> tuple[float, float]:
    """Return the percentile interval of tau when the clusters, numbered from 0 by `codes` `[n]`, are resampled."""
    at_a_time = CHUNK // codes.size
    taus = np.concatenate([pairs.tau(weights[codes]) for weights in _resampled(int(codes.max()) + 1, resamples, at_a_time)])
    taus = taus[~np.isnan(taus)]
    if not taus.size:
        return math.nan, math.nan
    low, high = np.quantile(taus, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _jackknife_interval(tau: float, pairs: "_Pairs | _Contrast", codes: Indices, level: float) -> tuple[float, float]:
    """Return the normal interval of tau, whose standard error is from the influences of the clusters."""
    influences = np.bincount(codes, pairs.derivative(np.ones(codes.size)))
    half = NormalDist().inv_cdf((1 + level) / 2) * math.sqrt(influences @ influences)
    return max(tau - half, -pairs.limit), min(tau + half, pairs.limit)


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

    def weight_of_own(self, weights: Floats) -> Floats:
        """Return the weight of the group of each network, `[n]`, from that of the networks."""
        groups = np.add.reduceat(weights[self.order], self.starts)
        own = np.empty_like(weights)
        own[self.order] = np.repeat(groups, np.diff(self.starts, append=weights.size))
        return own


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

    def weight_discordant(self, weights: Floats) -> Floats:
        """Return the weight of the networks that are discordant with each one at this level, `[n]`."""
        found = np.empty_like(weights)
        total = np.concatenate([[0.0], np.cumsum(weights[self.ones])])
        found[self.zeros] = total[self.before] - total[self.first]
        # A network with the bit unset counts for all of `ones` from `first` on, and no longer from `before` on.
        begun, ended = (np.bincount(edge, weights[self.zeros], self.ones.size + 1) for edge in (self.first, self.before))
        found[self.ones] = np.cumsum(begun - ended)[:-1]
        return found


@dataclass(frozen=True)
class _Pairs:
    """All that tau-b needs to know of the pairs of n networks, whatever their weights."""

    levels: list[_Level]
    tied_x: _Ties
    tied_y: _Ties
    tied_both: _Ties

    # The furthest that tau can be from 0.
    limit: ClassVar[float] = 1.0

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

    def derivative(self, weights: Floats) -> Floats:
        """Return the derivative of tau-b by the weight of each network, `[n]`, at `weights` `[n]`, where tau-b is defined."""
        of_x, of_y, of_both = (2 * ties.weight_of_own(weights) for ties in (self.tied_x, self.tied_y, self.tied_both))
        of_all = 2 * weights.sum()
        discordant = np.zeros_like(weights)
        for level in self.levels:
            discordant += level.weight_discordant(weights)
        untied_x, untied_y = ((weights @ (of_all - own)) / 2 for own in (of_x, of_y))
        top = of_all - of_x - of_y + of_both - 4 * discordant
        # Tau-b is of degree 0 in the weights, its two parts of degree 2: a sum of w_i times the derivative is twice the part.
        tau = (weights @ top) / 2 / math.sqrt(untied_x * untied_y)
        of_scale = tau / 2 * ((of_all - of_x) / untied_x + (of_all - of_y) / untied_y)
        found: Floats = top / math.sqrt(untied_x * untied_y) - of_scale
        return found


@dataclass(frozen=True)
class _Contrast:
    """The tau of `pairs` less a share of that of the `yardstick`, over the same networks."""

    pairs: _Pairs
    yardstick: _Pairs
    share: float

    @property
    def limit(self) -> float:
        """The furthest that the difference can be from 0."""
        return 1.0 + abs(self.share)

    def tau(self, weights: Floats) -> Floats:
        return self.pairs.tau(weights) - self.share * self.yardstick.tau(weights)

    def derivative(self, weights: Floats) -> Floats:
        return self.pairs.derivative(weights) - self.share * self.yardstick.derivative(weights)


def _dot(a: Floats, b: Floats) -> Floats:
    """Return the product of each column of `a` with the same column of `b`, `[B]`."""
    product: Floats = np.einsum("nb,nb->b", a, b)
    return product


def _levels(order: Indices, ranks: Indices) -> Iterator[_Level]:
    """Yield the levels of the ranks of y `[n]`, where `order` sorts the networks by x."""
    ranks = ranks[order]
    for bit in range(int(ranks.max()).bit_length()):
        higher = ranks >> (bit + 1)
        # In the smallest type: numpy sorts 16 bits and less digit by digit, many times as fast.
        grouped = np.argsort(higher.astype(np.min_scalar_type(int(higher.max()))), kind="stable")
        groups = higher[grouped]
        one = (ranks[grouped] >> bit) & 1 == 1
        before = np.cumsum(one) - one
        first = before[np.searchsorted(groups, groups)]
        networks = order[grouped]
        yield _Level(networks[one], networks[~one], first[~one], before[~one])
