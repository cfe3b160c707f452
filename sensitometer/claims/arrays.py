"""The claims that are about points, paths and slices, 1, 2 and 6: from the arrays that a survey keeps of its networks."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.means import contrast, dip, mean_interval
from ..analysis.points import bound_shares, error_auroc, precision_at_errors, rank_correlation_of_wrong
from ..analysis.seeds import cluster_codes, fitted_networks
from ..store.arrays import FEWEST_BINS
from .claim import Claim

Arrays = dict[str, NDArray[Any]]
# The arrays of a network whose names begin so, or in one of these ways.
Reader = Callable[[str, str | tuple[str, ...]], Arrays]

# The measures along ellipses, by the name of their arrays: the column of the survey, and the words of a statement.
MEASURES = {
    "jacobian_norm": ("jacobian_norm", "the Jacobian norm"),
    "transition_density": ("transitions", "the transition density"),
}
PROFILES = tuple(f"paths.{kind}.{array}" for kind in ("random", "different", "same") for array in MEASURES)
# A measure along random ellipses is called even if it is less than this share as uneven as between classes.
SHARE_OF_DIFFERENT = 0.5
SLICES = tuple(f"slice.{when}.{array}" for when in ("before", "after") for array in ("distance", "anywhere"))
# A share of points that is "most", and the area under the curve of a detector that knows nothing.
MOST, CHANCE = 0.5, 0.5


class _Statistic(NamedTuple):
    """
    A claim about the mean of a statistic: `measure` gives a number per network, between `-most` and `most`.

    `remark` returns the claim's detail and its obstacle, from the arrays of all networks that have such a number.
    """

    claim: Claim
    measure: Callable[[Arrays], float]
    remark: Callable[[Sequence[Arrays]], tuple[str, str]] = lambda _: ("", "")
    most: float = 1.0


def trajectories(networks: pd.DataFrame, read: Reader) -> Iterator[Claim]:
    """
    Claim 1 (4.1, Figure 2): along ellipses through training points both measures dip near these.

    They are even along random ellipses, and lower along ellipses within a class than between classes. As in Figure 2, networks
    whose measures are not all finite do not count.
    """

    def usable(id_: str) -> Arrays:
        arrays = read(id_, PROFILES)
        complete = all(
            name in arrays and len(arrays[name]) >= FEWEST_BINS and np.isfinite(arrays[name]).all() for name in PROFILES
        )
        return arrays if complete else {}

    statistics = [statistic for array in MEASURES for statistic in _of_ellipses(array, *MEASURES[array])]
    needs = (
        f"needs networks fitted to true labels, measured along ellipses in at least {FEWEST_BINS} bins: "
        "the preset trajectory makes them"
    )
    yield from _tested(fitted_networks(networks, (), labels="true"), usable, statistics, needs, by_seed=True)


def _of_ellipses(array: str, quantity: str, words: str) -> list[_Statistic]:
    def dip_along(kind: str) -> Callable[[Arrays], float]:
        return lambda arrays: dip(arrays[f"paths.{kind}.{array}"])

    def unevenness(arrays: Arrays) -> float:
        # Not the mean contrast, which along random ellipses is 0 by symmetry, whatever the networks do.
        return abs(dip_along("random")(arrays)) - SHARE_OF_DIFFERENT * abs(dip_along("different")(arrays))

    dips, name = f"{words} dips at the points", "contrast between / at points"
    even = f"along a random ellipse {words} is not half as uneven as along one through points of different classes"
    lower = f"{words} is lower within a class than between classes"
    lower_within = _contrast_of_means(f"paths.different.{array}", f"paths.same.{array}")
    return [
        _Statistic(Claim(1, "different classes", quantity, dips, name, threshold=0.0), dip_along("different")),
        _Statistic(Claim(1, "one class", quantity, dips, name, threshold=0.0), dip_along("same")),
        _Statistic(Claim(1, "random", quantity, even, "size less half different's", threshold=0.0, side="below"), unevenness),
        _Statistic(Claim(1, "classes", quantity, lower, "contrast different / same", threshold=0.0), lower_within),
    ]


def boundaries(networks: pd.DataFrame, read: Reader) -> Iterator[Claim]:
    """
    Claim 2 (4.1, Figure 3): after training, the boundaries of the last hidden layer avoid the training points.

    Networks that are trained with augmentation, as the paper's are, need not be fitted. Networks without any boundary on the
    slice, before or after, have no distance from one, and do not count; nor do networks with more than are kept.
    """

    def complete(id_: str) -> Arrays:
        arrays = read(id_, SLICES)
        return arrays if arrays.keys() >= set(SLICES) else {}

    def rise(arrays: Arrays) -> float:
        before, after = (_contrast_of_means(f"slice.{when}.distance", f"slice.{when}.anywhere") for when in ("before", "after"))
        return after(arrays) - before(arrays)

    statement = "the nearest boundary is farther from training points after training than before"
    farther = Claim(2, "", "boundaries", statement, "contrast after / before", threshold=0.0)
    elsewhere = "and so in comparison with other points of the slice"
    statistics = [
        _Statistic(farther, _contrast_of_means("slice.after.distance", "slice.before.distance")),
        _Statistic(replace(farther, statement=elsewhere, statistic="rise of contrast at / anywhere"), rise, most=2.0),
    ]
    trained = networks[networks["state"].isin(["fitted", "unfitted"]) & (networks["labels"] == "true")]
    needs = "needs networks trained on true labels, with their boundaries on slices: the preset boundaries makes them"
    yield from _tested(trained, complete, statistics, needs, by_seed=True)


def _contrast_of_means(first: str, second: str) -> Callable[[Arrays], float]:
    return lambda arrays: contrast(float(arrays[first].mean()), float(arrays[second].mean()))


def points(networks: pd.DataFrame, read: Reader) -> Iterator[Claim]:
    """
    Claim 6 (4.4, Figures 6 and App. 11): wrongly classified points have the highest Jacobian norms.

    The relation to the loss is not monotone all the same; with the cross-entropy it follows (5) to (7).
    """
    fitted = fitted_networks(networks, (), labels="true")
    needs = "needs networks fitted to true labels, with the measures of single points: the preset per-point makes them"

    def finite(id_: str) -> Arrays:
        arrays = read(id_, "points.")
        keep = np.all([np.isfinite(values) for values in arrays.values()], axis=0)
        return {name.removeprefix("points."): values[keep] for name, values in arrays.items()} if keep.any() else {}

    claims: list[Claim] = []
    for loss in sorted(fitted["loss"].unique()) or ["cross-entropy"]:
        statistics = [*_of_errors(loss), *(_of_bounds() if loss == "cross-entropy" else [])]
        claims += _tested(fitted[fitted["loss"] == loss], finite, statistics, needs, by_seed=False)
    # A loss without networks is mentioned only if no loss has any.
    yield from [claim for claim in claims if claim.statistic] or claims[:1]


def _of_errors(loss: str) -> list[_Statistic]:
    subject, array = {"cross-entropy": ("", "cross_entropy"), "l2": (loss, "l2_loss")}[loss]
    higher = "misclassified points have higher norms than others"
    mostly = "the points of the highest norms, as many as are misclassified, mostly are"
    falls = "not monotone: among misclassified points the norm falls as the loss grows"
    claim = Claim(6, subject, "jacobian_norm", higher, "AUROC", threshold=CHANCE)

    def auroc(norm: str) -> _Statistic:
        return _Statistic(replace(claim, quantity=norm), lambda arrays: error_auroc(arrays[norm], _wrong(arrays)))

    def precision(arrays: Arrays) -> float:
        return precision_at_errors(arrays["jacobian_norm"], _wrong(arrays))

    def order(arrays: Arrays) -> float:
        return rank_correlation_of_wrong(arrays["jacobian_norm"], arrays[array], _wrong(arrays))

    return [
        auroc("jacobian_norm"),
        _Statistic(replace(claim, statement=mostly, statistic="share misclassified", threshold=MOST), precision, _share_of_all),
        _Statistic(replace(claim, statement=falls, statistic="Kendall's tau", threshold=0.0, side="below"), order),
        # The l2 loss trains the logits themselves; their softmax is never far from even.
        *([auroc("logit_jacobian_norm")] if loss == "l2" else []),
    ]


def _wrong(arrays: Arrays) -> NDArray[np.bool_]:
    return np.asarray(arrays["predicted"] != arrays["label"])


def _share_of_all(networks: Sequence[Arrays]) -> tuple[str, str]:
    """Return the share of all points that is misclassified, as a detail, or if it is most of them, as an obstacle."""
    if not networks:
        return "", ""
    share = np.mean([_wrong(arrays).mean() for arrays in networks])
    words = f"of all points {share:.2f} are"
    return (words, "") if share < MOST else ("", f"{words} misclassified, so that most of any points are")


def _of_bounds() -> list[_Statistic]:
    def share(name: str) -> Callable[[Arrays], float]:
        def measure(arrays: Arrays) -> float:
            losses, norm, classes = arrays["cross_entropy"], arrays["jacobian_norm"], int(arrays["classes"])
            shares = bound_shares(losses, arrays["label_jacobian_norm"], norm, arrays["logit_jacobian_norm"], classes)
            return float(getattr(shares, name))

        return measure

    statements = {
        "inside": "the norm of the true class's row is within (5)",
        "around": "the norm of the true class's row is within a factor of two of (5)",
        "above": "the norm is above (6)",
        "near": "the norm is within a factor of two of (7)",
    }
    claim = Claim(6, "bounds", "jacobian_norm", "", "share of points", threshold=MOST)
    return [_Statistic(replace(claim, statement=f"for most points {words}"), share(name)) for name, words in statements.items()]


def _tested(
    networks: pd.DataFrame,
    read: Callable[[str], Arrays],
    statistics: Sequence[_Statistic],
    needs: str,
    *,
    by_seed: bool,
) -> Iterator[Claim]:
    """
    Yield a claim for each data set and statistic, from the networks that have arrays.

    The interval is over seeds, or over configurations. All networks of one seed are measured along the same ellipses and on the
    same slice. Single points are drawn from the test set for each network anew, so that an interval over configurations includes
    their sampling.
    """
    kept = {id_: arrays for id_ in networks["id"] if (arrays := read(id_))}
    measured = networks[networks["id"].isin(kept.keys())]
    if measured.empty:
        # One line, for the claim as a whole.
        claim = statistics[0].claim
        yield Claim(claim.number, "", "", claim.statement, obstacle=needs)
        return
    for dataset, group in measured.groupby("dataset"):
        classes = group["classes"].to_numpy()[0]
        clusters = group["seed"].to_numpy() if by_seed else cluster_codes(group)
        arrays_of_all = [{**kept[id_], "classes": classes} for id_ in group["id"]]
        for statistic in statistics:
            values = [statistic.measure(arrays) for arrays in arrays_of_all]
            mean = mean_interval(values, clusters)
            detail, obstacle = statistic.remark(
                [arrays for arrays, value in zip(arrays_of_all, values, strict=True) if not math.isnan(value)]
            )
            yield replace(
                statistic.claim,
                subject=", ".join(filter(None, (str(dataset), statistic.claim.subject))),
                value=mean.mean,
                # Student's interval knows nothing of the range of the statistic.
                low=max(mean.low, -statistic.most),
                high=min(mean.high, statistic.most),
                method="Student's",
                unit="networks",
                count=mean.values,
                configurations=mean.clusters,
                seeds=by_seed,
                detail=detail,
                obstacle=obstacle,
            )
