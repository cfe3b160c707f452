r"""
The relation of the Jacobian norms of single points to their losses and to errors (paper, 4.4), and the bounds between them (A.3).

With $\ell$ the cross-entropy at a point of class $y$, $n$ classes, and $M = E\,\|\partial f / \partial x^T\|_F^2 / n$,
$$\sqrt{n M / (n - 1)}\, e^{-\ell} (1 - e^{-\ell}) \lesssim \|J_y\|_2 \lesssim \sqrt{2 M}\, e^{-\ell} (1 - e^{-\ell}) \quad (5)$$
the same lower bound for $\|J\|_F$ (6), and
$$\|J\|_F \approx \tfrac{\sqrt{M}}{n - 1} (1 - e^{-\ell}) \sqrt{n^2 e^{-2\ell} + n - 2} \quad (7)$$
where the wrong classes share the rest of the probability equally. The paper derives them for rows of the logit Jacobian that are
alike and independent. Everything is float64, and $1 - e^{-\ell}$ is `-expm1(-l)`: the losses of well-fitted points are far below
1e-16.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import kendalltau, mannwhitneyu

from ..errors import InvalidInputError

# A rank correlation of fewer points says nothing.
FEWEST_WRONG = 10
# How far from the bounds (5), or from the approximation (7), a norm may be and still be near: between a half and twice the value.
NEAR = 2.0

Floats = NDArray[np.float64]


class BoundShares(NamedTuple):
    r"""
    Shares of points, 0 to 1, that lie to the bounds as the paper derives.

    Parameters
    ----------
    inside
        Points whose $\|J_y\|_2$ is within (5).
    around
        Points whose $\|J_y\|_2$ is within (5) or no more than a factor of two outside. With 10 classes the two ends of (5), which
        are approximate, are a factor of 1.34 apart.
    above
        Points whose $\|J\|_F$ is at least the lower bound (6).
    near
        Points whose $\|J\|_F$ is within a factor of two of (7).
    """

    inside: float
    around: float
    above: float
    near: float


def error_auroc(norm: ArrayLike, wrong: ArrayLike) -> float:
    """
    Return the area under the ROC curve of the Jacobian norm as a detector of wrongly classified points (paper, 4.4).

    It is the probability that a wrong point has a higher norm than a correct one, a tie counting half. 0.5 is chance.

    Parameters
    ----------
    norm
        At each point, `[N]`.
    wrong
        Whether the predicted class is not the true one, bool `[N]`.

    Returns
    -------
    float
        nan where all points are correct, or all wrong.
    """
    (norm,), wrong = _checked([norm], wrong)
    if wrong.all() or not wrong.any():
        return math.nan
    u = mannwhitneyu(norm[wrong], norm[~wrong], method="asymptotic").statistic
    return float(u / (wrong.sum() * (~wrong).sum()))


def precision_at_errors(norm: ArrayLike, wrong: ArrayLike) -> float:
    """
    Return the precision of the k points of the highest norms, k = number of wrong points, as predictions of errors (paper, 4.4).

    Where several points are tied for the last places, it is the expected value over a random choice among them.

    Parameters
    ----------
    norm, wrong
        As for `error_auroc`.

    Returns
    -------
    float
        nan where no point is wrong.
    """
    (norm,), wrong = _checked([norm], wrong)
    count = int(wrong.sum())
    if not count:
        return math.nan
    last = np.partition(norm, -count)[-count]
    above, tied = norm > last, norm == last
    return float((wrong[above].sum() + (count - above.sum()) * wrong[tied].mean()) / count)


def rank_correlation_of_wrong(norm: ArrayLike, loss: ArrayLike, wrong: ArrayLike) -> float:
    """
    Return Kendall's tau-b of the Jacobian norm and the loss over the wrongly classified points alone (paper, 4.4).

    Over all points the two rise together; the paper finds wrong points of the highest losses whose norms are low.

    Parameters
    ----------
    norm, loss
        At each point, `[N]`.
    wrong
        As for `error_auroc`.

    Returns
    -------
    float
        nan with fewer than 10 wrong points, or where one of the two is the same at all of them.
    """
    (norm, loss), wrong = _checked([norm, loss], wrong)
    if wrong.sum() < FEWEST_WRONG:
        return math.nan
    return float(kendalltau(norm[wrong], loss[wrong], variant="b").statistic)


def mean_square(logit_norm: ArrayLike, classes: int) -> float:
    r"""Return M of the bounds from $\|\partial f / \partial x^T\|_F$ at each point, `[N]`."""
    return float(np.square(np.asarray(logit_norm, dtype=np.float64)).mean()) / classes


def lower_bound(cross_entropy: ArrayLike, M: float, classes: int) -> Floats:
    """Return the lower bound of (5) and (6) at each loss; the shape of `cross_entropy`."""
    return math.sqrt(classes * M / (classes - 1)) * _spread(cross_entropy)


def upper_bound(cross_entropy: ArrayLike, M: float, classes: int) -> Floats:
    """Return the upper bound of (5) at each loss; the shape of `cross_entropy`."""
    return math.sqrt(2 * M) * _spread(cross_entropy)


def approximation(cross_entropy: ArrayLike, M: float, classes: int) -> Floats:
    """Return the approximation (7) at each loss; the shape of `cross_entropy`."""
    minus = -np.asarray(cross_entropy, dtype=np.float64)
    root = np.sqrt(classes**2 * np.exp(2 * minus) + (classes - 2))
    values: Floats = math.sqrt(M) / (classes - 1) * -np.expm1(minus) * root
    return values


def bound_shares(
    cross_entropy: ArrayLike, label_norm: ArrayLike, norm: ArrayLike, logit_norm: ArrayLike, classes: int
) -> BoundShares:
    r"""
    Return the shares of points that lie to the bounds as the paper derives, with M from these points (A.3, A.5.7).

    A point of loss 0 and norm 0 lies on all of them, and counts.

    Parameters
    ----------
    cross_entropy
        At each point, `[N]`.
    label_norm, norm, logit_norm
        $\|J_y\|_2$, $\|J\|_F$ and $\|\partial f / \partial x^T\|_F$ at each point, `[N]`.
    classes
        Number of classes, n.
    """
    l, label_norm, norm = (np.asarray(values, dtype=np.float64) for values in (cross_entropy, label_norm, norm))  # noqa: E741
    M = mean_square(logit_norm, classes)
    low, high, middle = (bound(l, M, classes) for bound in (lower_bound, upper_bound, approximation))
    return BoundShares(
        inside=float(((low <= label_norm) & (label_norm <= high)).mean()),
        around=float(((low / NEAR <= label_norm) & (label_norm <= high * NEAR)).mean()),
        above=float((norm >= low).mean()),
        near=float(((middle / NEAR <= norm) & (norm <= middle * NEAR)).mean()),
    )


def _spread(cross_entropy: ArrayLike) -> Floats:
    """Return $e^{-l} (1 - e^{-l})$."""
    minus = -np.asarray(cross_entropy, dtype=np.float64)
    spread: Floats = np.exp(minus) * -np.expm1(minus)
    return spread


def _checked(values: list[ArrayLike], wrong: ArrayLike) -> tuple[list[Floats], NDArray[np.bool_]]:
    """Return the values at each point as float64, and which points are wrong, or refuse what cannot be ranked."""
    arrays, flags = [np.asarray(value, dtype=np.float64) for value in values], np.asarray(wrong)
    if flags.dtype != np.bool_ or flags.ndim != 1 or any(array.shape != flags.shape for array in arrays):
        shapes = ", ".join(str(array.shape) for array in (*arrays, flags))
        raise InvalidInputError(f"values and wrong, bool, must be lists of one length; got shapes {shapes}, wrong {flags.dtype}")
    if not np.isfinite(arrays).all():
        raise InvalidInputError("values must be finite; leave out the points where one was not measured")
    return arrays, flags
