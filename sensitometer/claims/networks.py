"""The claims that are about whole networks, 3 to 5: settings that generalise better, the gap against the norm and transitions."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from ..analysis.correlations import gap_correlation
from ..analysis.pairs import FACTORS, network_pairs, share_larger
from ..analysis.rank_correlation import Correlation, kendall_contrast
from ..analysis.seeds import cluster_codes, fitted_networks
from .claim import Claim

# The share of pairs in which the better setting must have the lower value. The paper says "consistently" (Figure 4) and gives no
# numbers; these are ours: nearly every pair of labels, the crudest factor; most of augmentation; of the other two a majority.
THRESHOLDS = {"labels": 0.9, "augmentation": 0.7, "activation": 0.5, "optimizer": 0.5}
FACTOR_WORDS = {
    "labels": "true labels, against random ones",
    "augmentation": "augmentation, against none",
    "activation": "ReLU, against HardSigmoid",
    "optimizer": "momentum, against L-BFGS",
}
# By quantity: the words of the statement, and those of a network that has it.
QUANTITY_WORDS = {
    "gap": ("the smaller gap", "a gap"),
    "jacobian_norm": ("the lower Jacobian norm", "a Jacobian norm"),
    "transitions": ("the fewer transitions", "transitions"),
    "test_accuracy": ("the higher test accuracy", "a test accuracy"),
}
# The one factor for which the paper finds that transitions do not go with the gap (Figure 4, bottom right).
EXCEPTION = ("optimizer", "transitions")

# A quantity that goes with the gap less than half as well as the Jacobian norm is said not to order networks.
SHARE_OF_NORM = 0.5


def factors(frame: pd.DataFrame) -> Iterator[Claim]:
    """
    Claim 3 (4.2, Figure 4): in nearly every pair the setting that generalises better has the lower value of each quantity.

    With augmentation networks are far from fitted, which alone would lower gap and norm. So the paper makes sure that they have
    the higher test accuracy (A.5.4), and the claim states train accuracies beside the shares.
    """
    # The gap of random labels is that of guessing, whatever the network: only true labels show which setting generalises better.
    true = frame[frame["labels"] == "true"]
    for factor, setting in FACTORS.items():
        augmentation = factor == "augmentation"
        for quantity, (words, needed) in QUANTITY_WORDS.items():
            if quantity == "test_accuracy" and not augmentation:
                continue
            excepted = (factor, quantity) == EXCEPTION
            columns = [quantity, "train_accuracy"] if augmentation else [quantity]
            pairs = network_pairs(frame if factor == "labels" else true, factor, columns)
            claim = Claim(
                number=3,
                subject=factor,
                quantity=quantity,
                statement=f"{FACTOR_WORDS[factor]}: {'not in most pairs ' if excepted else ''}{words}",
                statistic="share of pairs",
                method="Wilson's, as if the pairs of a configuration were one",
                threshold=THRESHOLDS[factor],
                side="below" if excepted else "above",
                unit="pairs",
            )
            if pairs.empty:
                kind = "fitted networks" if setting.fitted else "networks"
                yield replace(claim, obstacle=f"needs pairs of {kind} that differ in {factor} alone and have {needed}")
                continue
            value, low, high, count, configurations = share_larger(pairs, quantity)
            if quantity == "test_accuracy":
                # Here the better setting is claimed to have the larger value.
                value, low, high = 1 - value, 1 - high, 1 - low
            detail = ""
            if augmentation:
                accuracy = pairs[["train_accuracy_better", "train_accuracy_worse"]].mean()
                detail = f"train accuracy {accuracy.iloc[0]:.2f} with, {accuracy.iloc[1]:.2f} without"
            yield replace(claim, value=value, low=low, high=high, count=count, configurations=configurations, detail=detail)


def gap_and_norm(frame: pd.DataFrame) -> Iterator[Claim]:
    """Claim 4 (4.3, Figure 5): the gap rises with the Jacobian norm, on each data set."""
    claim = Claim(4, "", "jacobian_norm", "the gap rises with the Jacobian norm", "Kendall's tau")
    for untested, networks in _by_dataset(claim, frame, ("gap", "jacobian_norm")):
        yield untested if networks.empty else _with_correlation(untested, gap_correlation(networks, "jacobian_norm"))


def gap_and_transitions(frame: pd.DataFrame) -> Iterator[Claim]:
    r"""
    Claim 5 (4.3, Figure App.8): transitions do not order networks of different size, on each data set.

    An interval that includes 0 would show no more than that there are few networks. So transitions are compared with the Jacobian
    norm, which does order networks, over the same networks and the same resamples: the claim is that

    $$ \tau(\mathrm{transitions}, \mathrm{gap}) - \tfrac{1}{2} \tau(\mathrm{Jacobian\ norm}, \mathrm{gap}) < 0 $$
    """
    statement = "transitions do not order networks of different size, not half as well as the Jacobian norm"
    claim = Claim(5, "", "transitions", statement, "tau less half the norm's", side="below")
    for untested, networks in _by_dataset(claim, frame, ("gap", "jacobian_norm", "transitions")):
        if networks.empty:
            yield untested
            continue
        norm = gap_correlation(networks, "jacobian_norm")
        obstacle = ""
        if len(networks[["width", "depth"]].drop_duplicates()) < 2:
            obstacle = "needs networks of different size"
        # Otherwise half the norm's tau is no yardstick: transitions of no order at all could be above it.
        elif not norm.low > 0:
            obstacle = "needs networks whose gap rises with the Jacobian norm, with which it is compared"
        transitions, norms, gaps = (networks[name] for name in ("transitions", "jacobian_norm", "gap"))
        contrast = kendall_contrast(transitions, norms, gaps, cluster_codes(networks), share=SHARE_OF_NORM)
        taus = f"tau {contrast.tau + SHARE_OF_NORM * norm.tau:+.2f} of transitions, {norm.tau:+.2f} of the Jacobian norm"
        detail = taus if math.isfinite(contrast.tau) else ""
        yield replace(_with_correlation(untested, contrast), obstacle=obstacle, detail=detail)


def _by_dataset(claim: Claim, frame: pd.DataFrame, columns: tuple[str, ...]) -> Iterator[tuple[Claim, pd.DataFrame]]:
    """Yield the claim for each data set, with its networks that are fitted to true labels and have all `columns`, if any."""
    networks = fitted_networks(frame, columns, labels="true")
    needs = f"needs networks fitted to true labels that have {' and '.join(QUANTITY_WORDS[name][1] for name in columns)}"
    # A claim about no data set is still a claim.
    for dataset in sorted(frame["dataset"].dropna().unique()) or [""]:
        claim = replace(claim, subject=dataset, method="configurations resampled", threshold=0.0, unit="networks", obstacle=needs)
        yield claim, networks[networks["dataset"] == dataset]


def _with_correlation(claim: Claim, correlation: Correlation) -> Claim:
    tau, low, high, count, configurations = correlation
    return replace(claim, value=tau, low=low, high=high, count=count, configurations=configurations, obstacle="")
