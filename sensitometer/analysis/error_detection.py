r"""
Whether a score finds the wrongly classified points, and better than a model's plain confidence does.

A score is one number per point that should be higher where the model is wrong: the Jacobian norm, or one of the scores that the
logits alone give (`scores_of`). It is judged in two ways.

- AUROC: the probability that a wrong point has a higher score than a correct one, a tie counting half.
- AUGRC (Traub et al. 2024, arXiv 2407.01032): the area under the generalised risk-coverage curve. A threshold on the score
  accepts the points below it. The curve is the share of all points that are accepted and wrong, over the share that is accepted;
  a lower area is better. With a the accuracy,
  $$\mathrm{AUGRC} = (1 - \mathrm{AUROC})\, a\, (1 - a) + (1 - a)^2 / 2$$
  where the curve is straight between neighbouring thresholds. Points of one score are accepted together, which is the mean over
  all orders of them.

On the same points a higher AUROC is a lower AUGRC, so the differences of both give one verdict. The intervals are percentiles of
a bootstrap over points, in which all scores see the same resamples: what two scores have in common cancels in their difference.
"""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, t

from ..errors import InvalidInputError, check_whole_number, counted, described
from .points import error_auroc

BASELINE = "1 - max p"
# Share of the resamples, or of the distribution, inside an interval.
LEVEL = 0.95
# From this rank correlation on, a score is called nearly the same order of points as the baseline.
SAME_ORDER = 0.95
# Counts of points in resamples that are held at a time, 2 MB of them: they stay in the processor's cache.
_CHUNK = 2**18

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]


class PairedDifference(NamedTuple):
    """
    The mean difference of two models on the same points, and its 95% interval.

    Parameters
    ----------
    difference
        The mean of a minus the mean of b.
    standard_error
        Standard error of the difference, paired; nan for fewer than two points.
    low, high
        Ends of Student's interval; nan for fewer than two points.
    verdict
        `A higher`, `B higher`, or `cannot tell` where the interval spans zero or there is none.
    """

    difference: float
    standard_error: float
    low: float
    high: float
    verdict: str


def scores_of(logits: ArrayLike) -> dict[str, Floats]:
    r"""
    Return the scores of a classifier's points that its logits alone give, each higher where the model is less sure.

    | score | value |
    |---|---|
    | `1 - max p` | $1 - \max_k p_k$, with p the softmax; computed as the sum of the others, exact where it is tiny |
    | `entropy` | $-\sum_k p_k \log p_k$, natural logarithm |
    | `-margin` | the second highest logit minus the highest |
    | `energy` | $-\log \sum_k e^{f_k}$ |

    Parameters
    ----------
    logits
        f, `[N, C]`, finite, C at least 2. Arithmetic is in float64.

    Returns
    -------
    dict
        Each float64 `[N]`.

    Raises
    ------
    InvalidInputError
        There is no second class, or a logit is not finite.

    Examples
    --------
    >>> {name: float(score[0].round(2)) for name, score in scores_of([[0.0, 70.0]]).items()}
    {'1 - max p': 0.0, 'entropy': 0.0, '-margin': -70.0, 'energy': -70.0}
    >>> print(f"{scores_of([[0.0, 70.0]])['1 - max p'][0]:.4g}")
    3.975e-31
    """
    f = np.asarray(logits, dtype=np.float64)
    if f.ndim != 2 or f.shape[1] < 2:
        raise InvalidInputError(f"logits must be of points and of at least two classes, [N, C]; got {list(f.shape)}")
    _check_finite("logits must be finite", np.logical_and.reduce(np.isfinite(f), axis=1))
    top = f.argmax(1)[:, None]
    highest = np.take_along_axis(f, top, 1)
    # From 0 for the highest on down. `odds` are the others' probabilities in units of the highest one's.
    below = highest - f
    odds = np.exp(-below)
    np.put_along_axis(odds, top, 0.0, 1)
    others = odds.sum(1)
    second = np.partition(f, -2, axis=1)[:, -2]
    return {
        BASELINE: others / (1 + others),
        # The logarithm of p_k is -below_k - log(1 + others); no term is negative, so that nothing cancels.
        "entropy": np.log1p(others) + np.einsum("nc,nc->n", odds, below) / (1 + others),
        "-margin": second - highest[:, 0],
        "energy": -(highest[:, 0] + np.log1p(others)),
    }


def error_augrc(score: ArrayLike, wrong: ArrayLike) -> float:
    """
    Return the area under the generalised risk-coverage curve of a score; lower is better, and 0 is no error.

    Parameters
    ----------
    score
        At each point, `[N]`, finite; the points of the lowest scores are accepted first.
    wrong
        Whether the predicted class is not the true one, bool `[N]`.

    Returns
    -------
    float
        nan where all points are correct, or all wrong: no order is better than another.
    """
    auroc = error_auroc(score, wrong)
    return math.nan if math.isnan(auroc) else float(_augrc(np.array(auroc), np.asarray(wrong).mean(keepdims=True)).item())


def error_detection(
    scores: Mapping[str, ArrayLike], wrong: ArrayLike, *, baseline: str = BASELINE, resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """
    Return how well each score finds the wrong points, with 95% intervals, and how it differs from a baseline.

    Parameters
    ----------
    scores
        At each point, `[N]`, finite, by name; among them the baseline.
    wrong
        Whether the predicted class is not the true one, bool `[N]`.
    baseline
        The name of the score that the others are compared with.
    resamples
        How often N points are drawn with replacement. A resample without a wrong or without a correct point has no AUROC, and is
        left out.
    seed
        Seed of the draws; the same one gives the same intervals.

    Returns
    -------
    DataFrame
        One row per score, in order, named `score` in the index. `auroc`, `augrc`; `auroc_difference` and `augrc_difference`, the
        score's minus the baseline's; and for each of the four `<name>_low` and `<name>_high`. `spearman` is the rank correlation
        with the baseline, nan where one of the two is the same at all points. Everything but `spearman` is nan where all points
        are correct, or all wrong.

    Raises
    ------
    InvalidInputError
        The baseline is missing, the shapes differ, or a score is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> wrong = np.array([False, False, False, True, False, True])
    >>> scores = {"Jacobian norm": [1, 2, 3, 5, 4, 6], "1 - max p": [1, 2, 3, 4, 5, 6]}
    >>> table = error_detection(scores, wrong)
    >>> table["auroc"].to_dict()
    {'Jacobian norm': 1.0, '1 - max p': 0.875}
    >>> float(table.loc["Jacobian norm", "auroc_difference"])
    0.125
    """
    arrays, wrong = _checked(scores, wrong, baseline)
    check_whole_number("resamples", resamples)
    table = pd.DataFrame(index=pd.Index(arrays, name="score", dtype=object))
    draws = _resampled(arrays, wrong, resamples, seed)
    estimates = {
        "auroc": [error_auroc(score, wrong) for score in arrays.values()],
        "augrc": [error_augrc(score, wrong) for score in arrays.values()],
    }
    place = list(arrays).index(baseline)
    ends = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
    for name, values in estimates.items():
        for column, estimate, resampled in (
            (name, np.array(values), draws[name]),
            (f"{name}_difference", np.array(values) - values[place], draws[name] - draws[name][[place]]),
        ):
            table[column] = estimate
            table[f"{column}_low"], table[f"{column}_high"] = (
                np.quantile(resampled, ends, axis=1) if resampled.shape[1] else (math.nan, math.nan)
            )
    table["spearman"] = [_spearman(score, arrays[baseline]) for score in arrays.values()]
    return table


def detection_verdict(table: pd.DataFrame, score: str = "Jacobian norm", *, baseline: str = BASELINE) -> str:
    """
    Return one sentence on whether a score finds errors better than the baseline does, or cannot be told to.

    The better, by AUROC, is the one whose difference has an interval without zero. A score that is worse alone may still add to
    the baseline where the two are used together; that is not looked at, and a Spearman correlation near 1 leaves no room for it.

    Parameters
    ----------
    table
        The result of `error_detection`.
    score, baseline
        Names of rows of the table; the baseline is the one that the table was made with.

    Raises
    ------
    InvalidInputError
        The table has no such row.

    Examples
    --------
    >>> import numpy as np
    >>> wrong = np.arange(400) % 4 == 0
    >>> scores = {"Jacobian norm": np.arange(400.0), "1 - max p": np.arange(400.0) + 500 * wrong}
    >>> print(detection_verdict(error_detection(scores, wrong)))
    The Jacobian norm finds errors worse than 1 - max p: AUROC 0.495 against 1.000, difference -0.51 (95% interval -0.57 to \
-0.44); Spearman correlation of the two 0.619.
    """
    for name in (score, baseline):
        if name not in table.index:
            raise InvalidInputError(f"no score {name!r} in the table; it has {', '.join(map(str, table.index))}")
    row, rival = (table.loc[[name]].iloc[0] for name in (score, baseline))
    name = score if score[:1] in "-0123456789" else f"the {score}"
    relation = f"Spearman correlation of the two {row['spearman']:.3f}"
    if math.isnan(row["spearman"]):
        relation = "one of the two is the same at all points"
    elif row["spearman"] >= SAME_ORDER:
        relation += ", nearly the same order of points"
    question = f"Cannot tell whether {name} finds errors better than {baseline}"
    if math.isnan(row["auroc"]):
        return f"{question}: the points are all correct or all wrong; {relation}."
    low, high = row["auroc_difference_low"], row["auroc_difference_high"]
    numbers = (
        f"AUROC {row['auroc']:.3f} against {rival['auroc']:.3f}, difference {row['auroc_difference']:+.2g} "
        f"(95% interval {low:+.2g} to {high:+.2g}); {relation}."
    )
    if low > 0 or high < 0:
        how = "better" if low > 0 else "worse"
        return f"{name[0].upper()}{name[1:]} finds errors {how} than {baseline}: {numbers}"
    return f"{question}: {numbers}"


def paired_difference(a: ArrayLike, b: ArrayLike) -> PairedDifference:
    """
    Return the difference of the means of two models' values at the same points, and which is higher.

    The standard error is that of the mean of the N differences, so that what the two have in common cancels; the interval is
    Student's with N - 1 degrees of freedom.

    Parameters
    ----------
    a, b
        Values at the same points, `[N]`, finite: norms, losses, or whether a point is correct.

    Raises
    ------
    InvalidInputError
        The shapes differ, there are no points, or a value is not finite.

    Examples
    --------
    >>> paired_difference([1.0, 2.0, 3.0, 4.0], [0.9, 1.8, 2.9, 3.9]).verdict
    'A higher'
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or not x.size:
        raise InvalidInputError(f"a and b must be values at the same points, [N] each; got {list(x.shape)} and {list(y.shape)}")
    _check_finite("a and b must be finite", np.isfinite(x) & np.isfinite(y))
    differences = x - y
    mean, error, half = float(differences.mean()), math.nan, math.nan
    if x.size > 1:
        error = float(differences.std(ddof=1)) / math.sqrt(x.size)
        half = float(t.ppf((1 + LEVEL) / 2, x.size - 1)) * error
    low, high = mean - half, mean + half
    return PairedDifference(mean, error, low, high, "A higher" if low > 0 else "B higher" if high < 0 else "cannot tell")


def _checked(scores: Mapping[str, ArrayLike], wrong: ArrayLike, baseline: str) -> tuple[dict[str, Floats], Flags]:
    flags = np.asarray(wrong)
    if flags.dtype != np.bool_ or flags.ndim != 1:
        raise InvalidInputError(f"wrong must be bool [N], whether each point is wrong; got {described(flags)}")
    if baseline not in scores:
        raise InvalidInputError(f"baseline must be one of the scores, {', '.join(scores)}; got {baseline!r}")
    arrays = {name: np.asarray(score, dtype=np.float64) for name, score in scores.items()}
    for name, array in arrays.items():
        if array.shape != flags.shape:
            raise InvalidInputError(f"scores must be one per point, {list(flags.shape)}; {name} is {list(array.shape)}")
        _check_finite(f"scores must be finite; {name} is not everywhere", np.isfinite(array))
    return arrays, flags


def _check_finite(rule: str, finite: Flags) -> None:
    rows = np.flatnonzero(~finite)
    if rows.size:
        raise InvalidInputError(
            f"{rule}: leave out {counted(rows.size, 'point')} of {finite.size:,}, the first is point {rows[0]}"
        )


def _resampled(scores: Mapping[str, Floats], wrong: Flags, resamples: int, seed: int) -> dict[str, Floats]:
    """Return AUROC and AUGRC of each score in each resample that has correct and wrong points, `[scores, B]`."""
    sizes, aurocs = [], []
    orders = [_order(score, wrong) for score in scores.values()]
    for counts in _draws(wrong.size, resamples, seed) if wrong.any() and not wrong.all() else ():
        total = counts[:, wrong].sum(1)
        both = (total > 0) & (total < wrong.size)
        counts, total = counts[both], total[both]
        pairs = 2.0 * total * (wrong.size - total)
        sizes.append(total / wrong.size)
        aurocs.append([_twice_the_pairs_in_order(counts, order) / pairs for order in orders])
    if not sizes:
        return dict.fromkeys(("auroc", "augrc"), np.empty((len(orders), 0)))
    auroc, share = np.concatenate(aurocs, axis=1), np.concatenate(sizes)
    return {"auroc": auroc, "augrc": _augrc(auroc, share)}


def _draws(points: int, resamples: int, seed: int) -> Iterator[Counts]:
    """Yield how often each of N points is in each resample, a few resamples at a time; `[b, N]`."""
    stream = np.random.default_rng(seed)
    most = max(1, _CHUNK // points)
    for start in range(0, resamples, most):
        rows = min(most, resamples - start)
        drawn = stream.integers(points, size=(rows, points)) + points * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * points).reshape(rows, points)


class _Order(NamedTuple):
    """The correct points by rising score; the wrong points, and of each how many correct ones are lower, and lower or equal."""

    correct: Counts
    wrong: Counts
    lower: Counts
    lower_or_equal: Counts


def _order(score: Floats, wrong: Flags) -> _Order:
    correct, mistaken = np.flatnonzero(~wrong), np.flatnonzero(wrong)
    correct = correct[score[correct].argsort()]
    places = (np.searchsorted(score[correct], score[mistaken], side=side) for side in ("left", "right"))
    return _Order(correct, mistaken, *places)


def _twice_the_pairs_in_order(counts: Counts, order: _Order) -> Counts:
    """
    Return twice the number of pairs in which the wrong point has the higher score, a tie counting half, in each resample; `[b]`.

    A wrong point that is drawn w times makes w pairs with each draw of a correct one: no sum is rounded.
    """
    drawn = np.zeros((len(counts), len(order.correct) + 1), dtype=np.int64)
    np.cumsum(counts[:, order.correct], axis=1, out=drawn[:, 1:])
    twice: Counts = np.einsum("bw,bw->b", counts[:, order.wrong], drawn[:, order.lower] + drawn[:, order.lower_or_equal])
    return twice


def _augrc(auroc: Floats, error: Floats) -> Floats:
    """Return AUGRC from AUROC and the share of wrong points."""
    return (1 - auroc) * error * (1 - error) + error**2 / 2


def _spearman(score: Floats, baseline: Floats) -> float:
    """Return Spearman's rank correlation, nan where it is undefined."""
    if any(np.unique(values).size < 2 for values in (score, baseline)):
        return math.nan
    return float(np.corrcoef(rankdata(score), rankdata(baseline))[0, 1])
