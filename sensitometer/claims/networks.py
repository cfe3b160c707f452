"""The claims that are about whole networks, 3 to 5: settings that generalise better, the gap against the norm and transitions."""

import math
from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from ..analysis.pairs import FACTORS, Share, network_pairs, share_larger
from ..analysis.rank_correlation import Correlation, kendall, kendall_contrast
from ..analysis.seeds import cluster_codes, fitted_networks
from .claim import Claim

# In how many pairs the better setting must have the lower value. The paper says "consistently" (Figure 4) and gives no numbers;
# these are ours: nearly every pair of labels, the crudest of the four factors; most of augmentation; of the other two a majority.
THRESHOLDS = {"labels": 0.9, "augmentation": 0.7, "activation": 0.5, "optimizer": 0.5}
FACTOR_WORDS = {
    "labels": "true labels, against random ones",
    "augmentation": "augmentation, against none",
    "activation": "ReLU, against HardSigmoid",
    "optimizer": "momentum, against L-BFGS",
}
QUANTITY_WORDS = {
    "gap": "the smaller gap",
    "jacobian_norm": "the lower Jacobian norm",
    "transitions": "the fewer transitions",
    "test_accuracy": "the higher test accuracy",
}
NEEDED = {"gap": "a gap", "jacobian_norm": "a Jacobian norm", "transitions": "transitions", "test_accuracy": "a test accuracy"}
# The one factor for which the paper finds that transitions do not go with the gap (Figure 4, bottom right).
EXCEPTION = ("optimizer", "transitions")

# A quantity that goes with the gap less than half as well as the Jacobian norm is said not to order networks.
SHARE_OF_NORM = 0.5


def factors(frame: pd.DataFrame) -> Iterator[Claim]:
    """
    Claim 3 (4.2, Figure 4): in nearly every pair the setting that generalises better has the lower value of each quantity.

    With augmentation networks are far from fitted, for which alone gap and norm would be lower. So the paper makes sure that they
    have the higher test accuracy (A.5.4), and train accuracies are said beside the shares.
    """
    # The gap of random labels is that of guessing, whatever the network: what generalises better shows on true labels alone.
    true = frame[frame["labels"] == "true"]
    for factor in FACTORS:
        augmentation = factor == "augmentation"
        for quantity, words in QUANTITY_WORDS.items():
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
                kind = "fitted networks" if FACTORS[factor].fitted else "networks"
                yield replace(claim, obstacle=f"needs pairs of {kind} that differ in {factor} alone and have {NEEDED[quantity]}")
            else:
                found = share_larger(pairs, quantity)
                if quantity == "test_accuracy":
                    # What is claimed is that the better setting has the larger value.
                    found = found._replace(share=1 - found.share, low=1 - found.high, high=1 - found.low)
                claim = replace(claim, detail=_train_accuracies(pairs) if augmentation else "")
                yield _with_evidence(claim, found.share, found, found.pairs)


def _train_accuracies(pairs: pd.DataFrame) -> str:
    means = pairs[["train_accuracy_better", "train_accuracy_worse"]].mean()
    return f"train accuracy {means.iloc[0]:.2f} with, {means.iloc[1]:.2f} without"


def gap_and_norm(frame: pd.DataFrame) -> Iterator[Claim]:
    """Claim 4 (4.3, Figure 5): the gap rises with the Jacobian norm, on each data set."""
    for dataset, networks in _by_dataset(frame, ("gap", "jacobian_norm")):
        claim = Claim(
            number=4,
            subject=dataset,
            quantity="jacobian_norm",
            statement="the gap rises with the Jacobian norm",
            statistic="Kendall's tau",
            method="configurations resampled",
            threshold=0.0,
            unit="networks",
        )
        if networks.empty:
            yield replace(claim, obstacle=_no_networks("gap", "jacobian_norm"))
        else:
            found = _norm_and_gap(networks)
            yield _with_evidence(claim, found.tau, found, found.networks)


def gap_and_transitions(frame: pd.DataFrame) -> Iterator[Claim]:
    r"""
    Claim 5 (4.3, Figure App.8): transitions do not order networks of different size, on each data set.

    An interval that includes 0 would show no more than that there are few networks. So transitions are compared with what does
    order networks, over the same networks and the same resamples: the claim is that

    $$ \tau(\mathrm{transitions}, \mathrm{gap}) - \tfrac{1}{2} \tau(\mathrm{Jacobian\ norm}, \mathrm{gap}) < 0 $$
    """
    for dataset, networks in _by_dataset(frame, ("gap", "jacobian_norm", "transitions")):
        claim = Claim(
            number=5,
            subject=dataset,
            quantity="transitions",
            statement="transitions do not order networks of different size, not half as well as the Jacobian norm",
            statistic="tau less half the norm's",
            method="configurations resampled",
            threshold=0.0,
            side="below",
            unit="networks",
        )
        if networks.empty:
            yield replace(claim, obstacle=_no_networks("gap", "jacobian_norm", "transitions"))
            continue
        norm = _norm_and_gap(networks)
        if len(networks[["width", "depth"]].drop_duplicates()) < 2:
            claim = replace(claim, obstacle="needs networks of different size")
        # Otherwise half the norm's tau is no yardstick: transitions of no order at all could be above it.
        elif not norm.low > 0:
            claim = replace(claim, obstacle="needs networks whose gap rises with the Jacobian norm, with which it is compared")
        transitions, norms, gaps = (networks[name].to_numpy() for name in ("transitions", "jacobian_norm", "gap"))
        found = kendall_contrast(transitions, norms, gaps, cluster_codes(networks), share=SHARE_OF_NORM)
        taus = f"tau {found.tau + SHARE_OF_NORM * norm.tau:+.2f} of transitions, {norm.tau:+.2f} of the Jacobian norm"
        claim = replace(claim, detail=taus if math.isfinite(found.tau) else "")
        yield _with_evidence(claim, found.tau, found, found.networks)


def _no_networks(*quantities: str) -> str:
    return f"needs networks fitted to true labels that have {' and '.join(NEEDED[name] for name in quantities)}"


def _norm_and_gap(networks: pd.DataFrame) -> Correlation:
    # The gap goes second: it has fewer different values, and the time is in those.
    return kendall(networks["jacobian_norm"].to_numpy(), networks["gap"].to_numpy(), cluster_codes(networks))


def _by_dataset(frame: pd.DataFrame, columns: tuple[str, ...]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield each data set of the survey with its networks that are fitted to true labels and have all `columns`, if any."""
    networks = fitted_networks(frame, columns, labels="true")
    # A claim about no data set is still a claim.
    for dataset in sorted(frame["dataset"].dropna().unique()) or [""]:
        yield dataset, networks[networks["dataset"] == dataset]


def _with_evidence(claim: Claim, value: float, found: Correlation | Share, count: int) -> Claim:
    configurations = found.configurations if isinstance(found, Share) else found.clusters
    return replace(claim, value=value, low=found.low, high=found.high, count=count, configurations=configurations)
