"""The claims that are about points, paths and slices, 1, 2 and 6: from the arrays that a survey keeps of its networks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ..analysis.means import FEWEST_BINS, MeanInterval, contrast, dip, mean_interval
from ..analysis.points import bound_shares, error_auroc, precision_at_errors, rank_correlation_of_wrong
from ..analysis.seeds import cluster_codes
from ..data.sources import find_source
from .claim import Claim

Arrays = dict[str, NDArray[Any]]
# The arrays of a network whose names begin so.
Reader = Callable[[str, str], Arrays]

# The measures along ellipses, by the name of their arrays, and what they are called elsewhere.
MEASURES = {"jacobian_norm": "jacobian_norm", "transition_density": "transitions"}
KINDS = ("random", "different", "same")
# Measures at random places are even if they are not so much as this contrast apart: a factor of 1.22.
EVEN = 0.1
# A share of points that is "most", and the area under the curve of a detector that knows nothing.
MOST, CHANCE = 0.5, 0.5


class _Statistic(NamedTuple):
    """One statistic of a claim: of each network a number, what its mean is claimed to be, and what is said of all beside it."""

    subject: str
    quantity: str
    statement: str
    name: str
    threshold: float
    side: Literal["above", "below"]
    of: Callable[[Arrays], float]
    detail: Callable[[Sequence[Arrays]], str] = lambda _: ""


def trajectories(networks: pd.DataFrame, arrays: Reader) -> Iterator[Claim]:
    """
    Claim 1 (4.1, Figure 2): along ellipses through training points both measures dip near these.

    They are even along random ellipses, and lower along ellipses within a class than between classes. As in Figure 2, networks
    whose measures are not all finite do not count.
    """

    def usable(id_: str, prefix: str) -> Arrays:
        own = arrays(id_, prefix)
        names = [f"{prefix}{kind}.{array}" for kind in KINDS for array in MEASURES]
        there = all(name in own and len(own[name]) >= FEWEST_BINS and np.isfinite(own[name]).all() for name in names)
        return own if there else {}

    statistics = [one for array, quantity in MEASURES.items() for one in _of_ellipses(array, quantity)]
    fitted = networks[(networks["state"] == "fitted") & (networks["labels"] == "true")]
    obstacle = (
        f"needs networks fitted to true labels, measured along ellipses in at least {FEWEST_BINS} bins: "
        "the preset trajectory makes them"
    )
    yield from _tested(1, fitted, usable, "paths.", statistics, obstacle)


def _of_ellipses(array: str, quantity: str) -> list[_Statistic]:
    words = {"jacobian_norm": "the Jacobian norm", "transitions": "the transition density"}[quantity]

    def profile(kind: str) -> Callable[[Arrays], NDArray[np.float64]]:
        return lambda arrays: arrays[f"paths.{kind}.{array}"]

    different, same, random = profile("different"), profile("same"), profile("random")
    dips = "contrast between / at points"
    return [
        _Statistic(
            "different classes", quantity, f"{words} dips at the points", dips, 0.0, "above", lambda own: dip(different(own))
        ),
        _Statistic("one class", quantity, f"{words} dips at the points", dips, 0.0, "above", lambda own: dip(same(own))),
        _Statistic(
            "random",
            quantity,
            f"{words} is even, within {EVEN:g}",
            "size of the contrast",
            EVEN,
            "below",
            lambda own: dip(random(own)),
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
    slice, before or after, have no distance from one, and do not count.
    """

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
            "rise of contrast at / anywhere", 0.0, "above", than_elsewhere,
        ),
    ]  # fmt: skip
    chosen = networks[networks["state"].isin(["fitted", "unfitted"]) & (networks["labels"] == "true")]
    obstacle = "needs networks trained on true labels, with their boundaries on slices: the preset boundaries makes them"
    yield from _tested(2, chosen, arrays, "slice.", statistics, obstacle)


def points(networks: pd.DataFrame, arrays: Reader) -> Iterator[Claim]:
    """
    Claim 6 (4.4, Figures 6 and App. 11): wrongly classified points have the highest Jacobian norms.

    The relation to the loss is not monotone all the same; with the cross-entropy it follows (5) to (7).
    """
    fitted = networks[(networks["state"] == "fitted") & (networks["labels"] == "true")]
    obstacle = "needs networks fitted to true labels, with the measures of single points: the preset per-point makes them"

    def finite(id_: str, prefix: str) -> Arrays:
        return _finite(arrays(id_, prefix))

    claims: list[Claim] = []
    for loss in sorted(fitted["loss"].unique()) or ["cross-entropy"]:
        about = [*_of_errors(loss), *(_of_bounds() if loss == "cross-entropy" else [])]
        claims += _tested(6, fitted[fitted["loss"] == loss], finite, "points.", about, obstacle)
    # What one loss lacks is said only if no other has it.
    yield from [claim for claim in claims if not claim.obstacle] or claims[:1]


def _of_errors(loss: str) -> list[_Statistic]:
    array = {"cross-entropy": "points.cross_entropy", "l2": "points.l2_loss"}[loss]
    subject = "" if loss == "cross-entropy" else loss

    def wrong(own: Arrays) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = own["points.predicted"] != own["points.label"]
        return found

    def auroc(norm: str) -> Callable[[Arrays], float]:
        return lambda own: error_auroc(own[f"points.{norm}"], wrong(own))

    def precision(own: Arrays) -> float:
        return precision_at_errors(own["points.jacobian_norm"], wrong(own))

    def order(own: Arrays) -> float:
        return rank_correlation_of_wrong(own["points.jacobian_norm"], own[array], wrong(own))

    def overall(all_: Sequence[Arrays]) -> str:
        return f"of all points {np.mean([wrong(own).mean() for own in all_]):.2f} are"

    def of_norm(norm: str) -> _Statistic:
        words = "misclassified points have higher norms than others"
        return _Statistic(subject, norm, words, "AUROC", CHANCE, "above", auroc(norm))

    return [
        of_norm("jacobian_norm"),
        _Statistic(
            subject, "jacobian_norm", "the points of the highest norms, as many as are misclassified, mostly are",
            "share misclassified", MOST, "above", precision, overall,
        ),
        _Statistic(
            subject, "jacobian_norm", "not monotone: among misclassified points the norm falls as the loss grows",
            "Kendall's tau", 0.0, "below", order,
        ),
        # Of l2 what the logits do is what was trained; their softmax is never far from even.
        *([of_norm("logit_jacobian_norm")] if loss == "l2" else []),
    ]  # fmt: skip


def _of_bounds() -> list[_Statistic]:
    names = ("cross_entropy", "label_jacobian_norm", "jacobian_norm", "logit_jacobian_norm")

    def share(what: str) -> Callable[[Arrays], float]:
        def of(own: Arrays) -> float:
            losses, of_label, of_all, of_logits = (own[f"points.{name}"] for name in names)
            return float(getattr(bound_shares(losses, of_label, of_all, of_logits, int(own["classes"])), what))

        return of

    statements = {
        "around": "the norm of the true class's row is within a factor of two of (5)",
        "above": "the norm is above (6)",
        "near": "the norm is within a factor of two of (7)",
    }
    return [
        _Statistic("bounds", "jacobian_norm", f"for most points {words}", "share of points", MOST, "above", share(name))
        for name, words in statements.items()
    ]


def _tested(
    number: int, networks: pd.DataFrame, arrays: Reader, prefix: str, statistics: Sequence[_Statistic], obstacle: str
) -> Iterator[Claim]:
    """Yield a claim for each data set and statistic, from networks that have arrays whose names begin so."""
    claims = [
        Claim(number, one.subject, one.quantity, one.statement, one.name, threshold=one.threshold, side=one.side, unit="networks")
        for one in statistics
    ]
    read = {id_: own for id_ in networks["id"] if (own := arrays(id_, prefix))}
    having = networks[networks["id"].isin(read.keys())]
    if having.empty:
        # One line, for the claim as a whole.
        yield Claim(number, "", "", claims[0].statement, obstacle=obstacle)
        return
    # Along paths and on slices each network has points of its own seed's choice; at single points configurations differ.
    by_seed = prefix != "points."
    for dataset, group in having.groupby("dataset"):
        classes = np.array(find_source(str(dataset)).classes)
        codes = None if by_seed else cluster_codes(group)
        whole = [{**read[id_], "classes": classes} for id_ in group["id"]]
        for claim, one in zip(claims, statistics, strict=True):
            found = mean_interval([one.of(arrays_) for arrays_ in whole], codes)
            if one.threshold == EVEN:
                found = _size(found)
            yield replace(
                claim,
                subject=", ".join(filter(None, (str(dataset), one.subject))),
                value=found.mean,
                # All statistics lie between -1 and 1; Student's interval knows nothing of that.
                low=max(found.low, -1.0),
                high=min(found.high, 1.0),
                method="Student's",
                count=found.values,
                configurations=found.clusters,
                seeds=by_seed,
                detail=one.detail(whole),
            )


def _finite(points: Arrays) -> Arrays:
    """Return the arrays of single points without the points at which something is no number; nothing if none is left."""
    keep = np.all([np.isfinite(values) for values in points.values()], axis=0)
    return {name: values[keep] for name, values in points.items()} if keep.any() else {}


def _size(found: MeanInterval) -> MeanInterval:
    """Return the interval of the absolute value: it reaches to 0 if the mean's own includes that."""
    ends = sorted((abs(found.low), abs(found.high)))
    low = 0.0 if found.low < 0 < found.high else ends[0]
    return found._replace(mean=abs(found.mean), low=low, high=ends[1])
