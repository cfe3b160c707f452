r"""
Kendall's tau-b with an interval that resamples whole clusters, since the seeds of one configuration are not independent.

A resample that holds cluster k $w_k$ times has

$$ \tau_b(w) = \frac{w^T C w}{\sqrt{(w^T X w)(w^T Y w)}} $$

where the sum over all pairs of networks, one of cluster k and one of cluster l, is $C_{kl}$ of the product of the signs of their
differences in x and in y, $X_{kl}$ of the square of the one and $Y_{kl}$ of the square of the other.

Few networks or few clusters: the percentiles of a thousand resamples.

Many of both: the infinitesimal jackknife (Efron, *The Jackknife, the Bootstrap and Other Resampling Plans*, 1982, chapter 6),
which needs only the row sums of the three matrices and makes no matrix. It is the standard error of the bootstrap when tau is
replaced by its tangent in w. At $w = 1$, with $c$, $x$, $y$ the row sums, and $\bar{c}$, $\bar{x}$, $\bar{y}$ their totals,

$$ \mathrm{se}^2 = \sum_k U_k^2, \qquad U_k = \frac{\partial \tau_b}{\partial w_k}
   = \frac{2 c_k}{\sqrt{\bar{x} \bar{y}}} - \tau_b \left( \frac{x_k}{\bar{x}} + \frac{y_k}{\bar{y}} \right) $$

The numbers of times that K clusters are drawn have the variances $1 - 1/K$ and the covariances $-1/K$. Since tau is the same for
weights twice as large, the $U_k$ sum to 0, and only their squares remain. 80,000 networks take about a second.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array
from scipy.stats import kendalltau, norm

from ..errors import InvalidInputError

# The same survey must give the same interval, on every day and every machine.
BOOTSTRAP_SEED = 0
RESAMPLES = 1_000
# Share of the resamples inside the interval.
LEVEL = 0.95
# With two clusters a resample is one of them, the other, or both: not a distribution.
FEWEST_CLUSTERS = 3
# With this many networks, each its own cluster, the resamples take about a second.
MOST_RESAMPLED_NETWORKS = 2_000
# The jackknife takes tau for normal, and for straight in the weights. With this many clusters the ends of the two intervals are
# within 3% of their width, which is what a thousand resamples themselves leave open; with 20 they are 5% apart.
FEWEST_JACKKNIFE_CLUSTERS = 200

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


class Correlation(NamedTuple):
    """
    Kendall's tau-b and its 95% interval.

    Parameters
    ----------
    tau
        From -1 to 1; nan where it is undefined: fewer than two networks, or one of the two quantities is constant.
    low, high
        Ends of the interval; nan where tau is, and with fewer than three clusters.
    networks
        How many networks tau is over.
    configurations
        How many independent clusters they come from.
    """

    tau: float
    low: float
    high: float
    networks: int
    configurations: int


def kendall(x: ArrayLike, y: ArrayLike, clusters: ArrayLike) -> Correlation:
    """
    Return Kendall's tau-b of `x` and `y` `[n]` with a 95% interval for the resampling of whole clusters.

    Seeds of one configuration are not independent: they must share a cluster. Up to 2,000 networks, or with fewer than 200
    clusters, the interval is a percentile bootstrap: each of 1,000 resamples draws as many clusters as there are, with
    replacement, and takes all their networks. A resample whose tau is undefined (all its networks tied) is left out. The draws
    are the same every time. Beyond, it is tau plus and minus 1.96 standard errors of such resamples, by the infinitesimal
    jackknife, cut to [-1, 1]: the two differ by less than is printed, and the bootstrap would take minutes.

    Parameters
    ----------
    x, y
        Two quantities of the networks, `[n]`, finite.
    clusters
        The cluster of each network, `[n]`: labels of any kind; equal labels are one cluster.

    Returns
    -------
    Correlation
        With nan in place of whatever is undefined; this never warns.

    Raises
    ------
    InvalidInputError
        The lengths differ, or a value is not finite.
    """
    return _combination([(1.0, x)], y, clusters)


def kendall_contrast(x: ArrayLike, yardstick: ArrayLike, y: ArrayLike, clusters: ArrayLike, *, share: float = 0.5) -> Correlation:
    r"""
    Return by how much Kendall's tau-b of `x` and `y` exceeds a share of that of a yardstick and `y`.

    $$ \tau_b(x, y) - s\, \tau_b(\mathrm{yardstick}, y) $$

    Both are of the same networks and, in the interval, of the same resamples, so that what the two have in common cancels.

    Parameters
    ----------
    x, yardstick, y
        Three quantities of the networks, `[n]`, finite.
    clusters
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
    return _combination([(1.0, x), (-share, yardstick)], y, clusters)


def kendall_tau(x: ArrayLike, y: ArrayLike) -> float:
    """Return Kendall's tau-b of `x` and `y` `[n]`, finite, without an interval; nan where it is undefined."""
    x, y = _checked(x, y)
    # Rounded, since the last digit would make a perfect order less than 1.
    return round(float(kendalltau(x, y).statistic), 15) if x.size > 1 else math.nan


def _combination(terms: Sequence[tuple[float, ArrayLike]], y: ArrayLike, clusters: ArrayLike) -> Correlation:
    """Return the sum of `factor` times tau of `x` and `y` over the `terms`, pairs of a factor and an `x`, with its interval."""
    pairs = [(factor, *_checked(x, y)) for factor, x in terms]
    labels, networks = np.asarray(clusters), np.size(y)
    if labels.shape != (networks,):
        raise InvalidInputError(f"clusters must have one label for each of the {networks} networks; got shape {labels.shape}")
    codes, names = pd.factorize(labels, use_na_sentinel=False)
    tau, low, high = sum(factor * kendall_tau(x, y) for factor, x, y in pairs), math.nan, math.nan
    if not math.isnan(tau) and len(names) >= FEWEST_CLUSTERS:
        if networks > MOST_RESAMPLED_NETWORKS and len(names) >= FEWEST_JACKKNIFE_CLUSTERS:
            influences = np.sum([factor * _influences(x, y, codes) for factor, x, y in pairs], axis=0)
            half = float(norm.ppf((1 + LEVEL) / 2)) * math.sqrt(influences @ influences)
            furthest = sum(abs(factor) for factor, _ in terms)
            low, high = max(tau - half, -furthest), min(tau + half, furthest)
        else:
            drawn = np.random.default_rng(BOOTSTRAP_SEED).integers(len(names), size=(RESAMPLES, len(names)))
            weights = np.stack([np.bincount(draw, minlength=len(names)) for draw in drawn], axis=1).astype(np.float64)
            taus = np.sum([factor * _resampled_taus(x, y, codes, weights) for factor, x, y in pairs], axis=0)
            low, high = map(float, np.nanquantile(taus, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return Correlation(tau, low, high, networks, len(names))


def _checked(x: ArrayLike, y: ArrayLike) -> tuple[Floats, Floats]:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise InvalidInputError(f"x and y must be two lists of equally many numbers; got shapes {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InvalidInputError("x and y must be finite; leave out the networks where one of them was not measured")
    return x, y


def _resampled_taus(x: Floats, y: Floats, codes: Indices, weights: Floats) -> Floats:
    """Return tau-b of each resample, `[B]`; `weights` `[K, B]` says how often it holds each cluster. nan where undefined."""
    concordance = np.zeros((len(weights), len(weights)))
    for network, cluster in enumerate(codes):
        concordance[cluster] += np.bincount(codes, np.sign(x - x[network]) * np.sign(y - y[network]), len(weights))
    top = np.einsum("kb,kb->b", weights, concordance @ weights)
    X, Y = (_untied_weight(values, codes, weights) for values in (x, y))
    return np.asarray(np.divide(top, np.sqrt(X * Y), out=np.full_like(top, np.nan), where=X * Y > 0))


def _untied_weight(values: Floats, codes: Indices, weights: Floats) -> Floats:
    """Return how many pairs of each resample have different `values` `[n]`, counted in both orders; `[B]`."""
    groups = np.unique(values, return_inverse=True)[1]
    tied = np.asarray(coo_array((np.ones(len(values)), (groups, codes))) @ weights)
    return np.asarray(tied.sum(0) ** 2 - (tied**2).sum(0))


def _influences(x: Floats, y: Floats, codes: Indices) -> Floats:
    """Return the derivative of tau-b by the weight of each cluster, `[K]`, at weights of 1, where tau-b is defined."""
    # A complex number is equal to another where both x and y are.
    tied_x, tied_y, tied_in_both = (_tied(values) for values in (x, y, x + 1j * y))
    discordant = np.empty(len(x))
    # Among equal x by rising y: no pair tied in x then counts as discordant.
    order = np.lexsort((y, x))
    discordant[order] = _discordant(y[order])
    concordance = len(x) - tied_x - tied_y + tied_in_both - 2 * discordant
    c, X, Y = (np.bincount(codes, rows) for rows in (concordance, len(x) - tied_x, len(x) - tied_y))
    scale = math.sqrt(X.sum() * Y.sum())
    influences: Floats = 2 * c / scale - c.sum() / scale * (X / X.sum() + Y / Y.sum())
    return influences


def _tied(values: NDArray[Any]) -> Indices:
    """Return to how many of `values`, itself among them, each is equal; `[n]`."""
    _, groups, sizes = np.unique(values, return_inverse=True, return_counts=True)
    return sizes[groups]


def _discordant(y: Floats) -> Indices:
    """Return how many earlier values are greater than each of `y` `[n]`, and how many later ones smaller; `[n]`."""
    if len(y) < 64:
        inverted = np.triu(y[:, None] > y)
        return np.asarray(inverted.sum(0) + inverted.sum(1))
    earlier, later = np.array_split(y, 2)
    counts = np.concatenate([_discordant(earlier), _discordant(later)])
    counts[: len(earlier)] += np.searchsorted(np.sort(later), earlier)
    counts[len(earlier) :] += len(earlier) - np.searchsorted(np.sort(earlier), later, side="right")
    return counts
