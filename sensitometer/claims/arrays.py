"""The claims that are about points, paths and slices, 1, 2 and 6: from the arrays that a survey keeps of its networks."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.means import contrast, dip, mean_interval
from ..analysis.points import bound_shares, error_auroc, precision_at_errors, rank_correlation_of_wrong
from ..analysis.seeds import cluster_codes
from ..data.sources import find_source
from ..store.arrays import FEWEST_BINS
from .claim import Claim

Arrays = dict[str, NDArray[Any]]
# The arrays of a network whose names begin so, or in one of these ways.
Reader = Callable[[str, str | tuple[str, ...]], Arrays]

# The measures along ellipses, by the name of their arrays, and what they are called elsewhere.
MEASURES = {"jacobian_norm": "jacobian_norm", "transition_density": "transitions"}
KINDS = ("random", "different", "same")
# A measure along random ellipses is called even if it is less than this share as uneven as between classes.
SHARE_OF_DIFFERENT = 0.5
SLICES = tuple(f"slice.{when}.{array}" for when in ("before", "after") for array in ("distance", "anywhere"))
# A share of points that is "most", and the area under the curve of a detector that knows nothing.
MOST, CHANCE = 0.5, 0.5


class _Statistic(NamedTuple):
    """
    One statistic of a claim: of each network a number, between `-most` and `most`, and what its mean is claimed to be.

    `beside` returns the claim's detail and its obstacle, from the arrays of all networks that have such a number.
    """

    subject: str
    quantity: str
    statement: str
    name: str
    threshold: float
    side: Literal["above", "below"]
    of: Callable[[Arrays], float]
    most: float = 1.0
    beside: Callable[[Sequence[Arrays]], tuple[str, str]] = lambda _: ("", "")


def trajectories(networks: pd.DataFrame, arrays: Reader) -> Iterator[Claim]:
    """
    Claim 1 (4.1, Figure 2): along ellipses through training points both measures dip near these.

    They are even along random ellipses, and lower along ellipses within a class than between classes. As in Figure 2, networks
    whose measures are not all finite do not count.
    """
    names = tuple(f"paths.{kind}.{array}" for kind in KINDS for array in MEASURES)

    def usable(id_: str) -> Arrays:
        own = arrays(id_, names)
        there = all(name in own and len(own[name]) >= FEWEST_BINS and np.isfinite(own[name]).all() for name in names)
        return own if there else {}

    statistics = [one for array, quantity in MEASURES.items() for one in _of_ellipses(array, quantity)]
    fitted = _fitted_to_true_labels(networks)
    obstacle = (
        f"needs networks fitted to true labels, measured along ellipses in at least {FEWEST_BINS} bins: "
        "the preset trajectory makes them"
    )
    yield from _tested(1, fitted, usable, statistics, obstacle, by_seed=True)


def _of_ellipses(array: str, quantity: str) -> list[_Statistic]:
    words = {"jacobian_norm": "the Jacobian norm", "transitions": "the transition density"}[quantity]

    def profile(kind: str) -> Callable[[Arrays], NDArray[np.float64]]:
        return lambda arrays: arrays[f"paths.{kind}.{array}"]

    different, same, random = profile("different"), profile("same"), profile("random")

    def unevenness(own: Arrays) -> float:
        # Not the mean contrast, which along random ellipses is 0 by symmetry, whatever the networks do.
        return abs(dip(random(own))) - SHARE_OF_DIFFERENT * abs(dip(different(own)))

    dips = "contrast between / at points"
    return [
        _Statistic(
            "different classes", quantity, f"{words} dips at the points", dips, 0.0, "above", lambda own: dip(different(own))
        ),
        _Statistic("one class", quantity, f"{words} dips at the points", dips, 0.0, "above", lambda own: dip(same(own))),
        _Statistic(
            "random",
            quantity,
            f"along a random ellipse {words} is not half as uneven as along one through points of different classes",
            "size less half different's",
            0.0,
            "below",
            unevenness,
        ),
        _Statistic(
            "classes",
            quantity,
            f"{words} is lower within a class than between classes",
            "contrast different / same",
            0.0,
            "above",
            lambda own: contrast(float(different(own).mean()), float(same(own).mean())),
        ),
    ]


def boundaries(networks: pd.DataFrame, arrays: Reader) -> Iterator[Claim]:
    """
    Claim 2 (4.1, Figure 3): after training, the boundaries of the last hidden layer avoid the training points.

    Networks that are trained with augmentation, as those of the paper are, need not be fitted. Those without any boundary on the
    slice, before or after, have no distance from one, and do not count; nor do those with more than are kept.
    """

    def whole(id_: str) -> Arrays:
        own = arrays(id_, SLICES)
        return own if own.keys() >= set(SLICES) else {}

    def farther(own: Arrays) -> float:
        return contrast(float(own["slice.after.distance"].mean()), float(own["slice.before.distance"].mean()))

    def than_elsewhere(own: Arrays) -> float:
        after, before = (
            contrast(float(own[f"slice.{when}.distance"].mean()), float(own[f"slice.{when}.anywhere"].mean()))
            for when in ("after", "before")
        )
        return after - before

    statistics = [
        _Statistic(
            "", "boundaries", "the nearest boundary is farther from training points after training than before",
            "contrast after / before", 0.0, "above", farther,
        ),
        _Statistic(
            "", "boundaries", "and so in comparison with other points of the slice",
            "rise of contrast at / anywhere", 0.0, "above", than_elsewhere, most=2.0,
        ),
    ]  # fmt: skip
    chosen = networks[networks["state"].isin(["fitted", "unfitted"]) & (networks["labels"] == "true")]
    obstacle = "needs networks trained on true labels, with their boundaries on slices: the preset boundaries makes them"
    yield from _tested(2, chosen, whole, statistics, obstacle, by_seed=True)


def points(networks: pd.DataFrame, arrays: Reader) -> Iterator[Claim]:
    """
    Claim 6 (4.4, Figures 6 and App. 11): wrongly classified points have the highest Jacobian norms.

    The relation to the loss is not monotone all the same; with the cross-entropy it follows (5) to (7).
    """
    fitted = _fitted_to_true_labels(networks)
    obstacle = "needs networks fitted to true labels, with the measures of single points: the preset per-point makes them"

    def finite(id_: str) -> Arrays:
        return _finite(arrays(id_, "points."))

    claims: list[Claim] = []
    for loss in sorted(fitted["loss"].unique()) or ["cross-entropy"]:
        about = [*_of_errors(loss), *(_of_bounds() if loss == "cross-entropy" else [])]
        claims += _tested(6, fitted[fitted["loss"] == loss], finite, about, obstacle, by_seed=False)
    # What one loss lacks is said only if no other has it.
    yield from [claim for claim in claims if claim.statistic] or claims[:1]


def _of_errors(loss: str) -> list[_Statistic]:
    array = {"cross-entropy": "points.cross_entropy", "l2": "points.l2_loss"}[loss]
    subject = "" if loss == "cross-entropy" else loss

    def auroc(norm: str) -> Callable[[Arrays], float]:
        return lambda own: error_auroc(own[f"points.{norm}"], _wrong(own))

    def precision(own: Arrays) -> float:
        return precision_at_errors(own["points.jacobian_norm"], _wrong(own))

    def order(own: Arrays) -> float:
        return rank_correlation_of_wrong(own["points.jacobian_norm"], own[array], _wrong(own))

    def of_norm(norm: str) -> _Statistic:
        words = "misclassified points have higher norms than others"
        return _Statistic(subject, norm, words, "AUROC", CHANCE, "above", auroc(norm))

    return [
        of_norm("jacobian_norm"),
        _Statistic(
            subject, "jacobian_norm", "the points of the highest norms, as many as are misclassified, mostly are",
            "share misclassified", MOST, "above", precision, beside=_share_of_all,
        ),
        _Statistic(
            subject, "jacobian_norm", "not monotone: among misclassified points the norm falls as the loss grows",
            "Kendall's tau", 0.0, "below", order,
        ),
        # Of l2 what the logits do is what was trained; their softmax is never far from even.
        *([of_norm("logit_jacobian_norm")] if loss == "l2" else []),
    ]  # fmt: skip


def _wrong(own: Arrays) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = own["points.predicted"] != own["points.label"]
    return found


def _share_of_all(networks: Sequence[Arrays]) -> tuple[str, str]:
    """Return how many of all points are misclassified, as a detail, or if these are most, as an obstacle."""
    if not networks:
        return "", ""
    share = np.mean([_wrong(own).mean() for own in networks])
    said = f"of all points {share:.2f} are"
    return (said, "") if share < MOST else ("", f"{said} misclassified, so that most of any points are")


def _of_bounds() -> list[_Statistic]:
    names = ("cross_entropy", "label_jacobian_norm", "jacobian_norm", "logit_jacobian_norm")

    def share(what: str) -> Callable[[Arrays], float]:
        def of(own: Arrays) -> float:
            losses, of_label, of_all, of_logits = (own[f"points.{name}"] for name in names)
            return float(getattr(bound_shares(losses, of_label, of_all, of_logits, int(own["classes"])), what))

        return of

    statements = {
        "inside": "the norm of the true class's row is within (5)",
        "around": "the norm of the true class's row is within a factor of two of (5)",
        "above": "the norm is above (6)",
        "near": "the norm is within a factor of two of (7)",
    }
    return [
        _Statistic("bounds", "jacobian_norm", f"for most points {words}", "share of points", MOST, "above", share(name))
        for name, words in statements.items()
    ]


def _fitted_to_true_labels(networks: pd.DataFrame) -> pd.DataFrame:
    return networks[(networks["state"] == "fitted") & (networks["labels"] == "true")]


def _tested(
    number: int,
    networks: pd.DataFrame,
    arrays: Callable[[str], Arrays],
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
    read = {id_: own for id_ in networks["id"] if (own := arrays(id_))}
    having = networks[networks["id"].isin(read.keys())]
    if having.empty:
        # One line, for the claim as a whole.
        yield Claim(number, "", "", statistics[0].statement, obstacle=needs)
        return
    for dataset, group in having.groupby("dataset"):
        classes = np.array(find_source(str(dataset)).classes)
        clusters = group["seed"].to_numpy() if by_seed else cluster_codes(group)
        whole = [{**read[id_], "classes": classes} for id_ in group["id"]]
        for one in statistics:
            subject = ", ".join(filter(None, (str(dataset), one.subject)))
            claim = Claim(number, subject, one.quantity, one.statement, one.name, unit="networks", seeds=by_seed)
            yield _with_interval(claim, one, whole, clusters)


def _with_interval(claim: Claim, one: _Statistic, networks: Sequence[Arrays], clusters: NDArray[Any]) -> Claim:
    values = [one.of(own) for own in networks]
    found = mean_interval(values, clusters)
    detail, obstacle = one.beside([own for own, value in zip(networks, values, strict=True) if not math.isnan(value)])
    return replace(
        claim,
        value=found.mean,
        # Student's interval knows nothing of what the statistic can be.
        low=max(found.low, -one.most),
        high=min(found.high, one.most),
        method="Student's",
        threshold=one.threshold,
        side=one.side,
        count=found.values,
        configurations=found.clusters,
        detail=detail,
        obstacle=obstacle,
    )


def _finite(points: Arrays) -> Arrays:
    """Return the arrays of single points without the points at which something is no number; nothing if none is left."""
    keep = np.all([np.isfinite(values) for values in points.values()], axis=0)
    return {name: values[keep] for name, values in points.items()} if keep.any() else {}
