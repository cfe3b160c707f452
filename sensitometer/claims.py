"""
The paper's claims against one survey: a statistic with an interval, a threshold, and a verdict.

The verdict comes from the interval: what the statistic alone suggests is not enough. docs/definitions.md, "Claims", says what is
claimed where in the paper, and why each statistic and threshold was chosen.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import pandas as pd

from .analysis.pairs import FACTORS, Share, network_pairs, share_larger
from .analysis.rank_correlation import Correlation, kendall, kendall_contrast
from .analysis.seeds import NETWORK_COLUMNS, cluster_codes, fitted_networks
from .errors import InvalidInputError

HOLDS = "holds"
DOES_NOT_HOLD = "does not hold"
NOT_ENOUGH_DATA = "not enough data"

# The columns of a survey that the claims are about.
COLUMNS = (*NETWORK_COLUMNS, "gap", "jacobian_norm", "transitions")

# Three networks are in perfect order by chance one time in six, and the resamples of perfect order have no width; four pairs fall
# to one side one time in eight, and Wilson's interval is then beyond a half. Of ten pairs nine must, which is one time in fifty.
FEWEST_CONFIGURATIONS = 10

# In how many pairs the better setting must have the lower value. The paper says "consistently" (Figure 4) and gives no numbers;
# these are ours: nearly every pair of labels, the crudest of the four factors; most of augmentation; of the other two a majority.
THRESHOLDS = {"labels": 0.9, "augmentation": 0.7, "activation": 0.5, "optimizer": 0.5}
FACTOR_WORDS = {
    "labels": "true labels, against random ones",
    "augmentation": "augmentation, against none",
    "activation": "ReLU, against HardSigmoid",
    "optimizer": "momentum, against L-BFGS",
}
QUANTITY_WORDS = {"gap": "the smaller gap", "jacobian_norm": "the lower Jacobian norm", "transitions": "the fewer transitions"}
NEEDED = {"gap": "a gap", "jacobian_norm": "a Jacobian norm", "transitions": "transitions"}
# The one factor for which the paper finds that transitions do not go with the gap (Figure 4, bottom right).
EXCEPTION = ("optimizer", "transitions")

# A quantity that goes with the gap less than half as well as the Jacobian norm is said not to order networks.
SHARE_OF_NORM = 0.5


@dataclass(frozen=True)
class Claim:
    """
    One claim of the paper, tested on one survey.

    Parameters
    ----------
    number
        Of the claim, 1 to 6, in the order of docs/definitions.md.
    subject
        What part of the claim this is about: a data set, or a factor; empty for the claim as a whole.
    quantity
        The column that is tested; empty where the columns of a survey cannot tell.
    statement
        What is claimed, in a line.
    statistic
        Name of what was computed.
    value, low, high
        The statistic and the ends of its 95% interval; nan where they are undefined.
    method
        How the interval was made.
    threshold, side
        The claim says that the statistic is `above` or `below` the threshold; nan where nothing is computed.
    unit, count, configurations
        How many `networks` or `pairs` the statistic is over, and of how many configurations, which are what is independent.
    detail
        What else the statistic is made of.
    obstacle
        Why the claim cannot be tested whatever the interval; empty if it can be.
    """

    number: int
    subject: str
    quantity: str
    statement: str
    statistic: str = ""
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    method: str = ""
    threshold: float = math.nan
    side: Literal["above", "below"] = "above"
    unit: str = ""
    count: int = 0
    configurations: int = 0
    detail: str = ""
    obstacle: str = ""

    @property
    def verdict(self) -> str:
        """
        `holds`, `does not hold` or `not enough data`.

        The first two only if the whole interval is on the one or the other side of the threshold, and from enough configurations.
        """
        if self.obstacle or self.configurations < FEWEST_CONFIGURATIONS:
            return NOT_ENOUGH_DATA
        above, below = self.low > self.threshold, self.high < self.threshold
        if not (above or below):
            return NOT_ENOUGH_DATA
        return HOLDS if above == (self.side == "above") else DOES_NOT_HOLD

    @property
    def reason(self) -> str:
        """What the verdict rests on, in a line; for `not enough data`, what is missing."""
        if self.obstacle:
            return self.obstacle
        counted = f"{self.count:,} {self.unit} of {self.configurations:,} configurations"
        if self.detail:
            counted = f"{counted}; {self.detail}"
        if self.configurations < FEWEST_CONFIGURATIONS:
            return f"{counted}; needs {FEWEST_CONFIGURATIONS} configurations"
        if not math.isfinite(self.low):
            return f"{counted}; undefined, since one of the quantities is the same for all"
        if self.verdict == NOT_ENOUGH_DATA:
            return f"{counted}; the interval includes the threshold"
        return counted

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, the verdict and the reason by name, as JSON takes them: None in place of nan."""
        fields = {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in asdict(self).items()}
        # The reason has both.
        del fields["detail"], fields["obstacle"]
        return {"claim": fields.pop("number"), **fields, "verdict": self.verdict, "reason": self.reason}


def check_claims(frame: pd.DataFrame) -> list[Claim]:
    """
    Return the paper's claims in their order, each with what this survey says of it.

    Parameters
    ----------
    frame
        One row a network, as `store.frame()` gives it, with at least `COLUMNS`.

    Raises
    ------
    InvalidInputError
        The frame lacks a column.
    """
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise InvalidInputError(f"the frame must have the column {missing[0]}; it has {', '.join(map(str, frame.columns))}")
    return [claim for check in CHECKS for claim in check(frame)]


def _trajectories(frame: pd.DataFrame) -> Iterator[Claim]:
    """Claim 1 (4.1, Figure 2)."""
    statement = "along ellipses through training points the Jacobian norm and the transitions dip near these"
    yield _not_stored(1, statement, "both measures along fitted and random ellipses")


def _boundaries(frame: pd.DataFrame) -> Iterator[Claim]:
    """Claim 2 (4.1, Figure 3)."""
    statement = "after training, the boundaries of the linear regions avoid the training points"
    yield _not_stored(2, statement, "the boundaries on slices before and after training")


def _factors(frame: pd.DataFrame) -> Iterator[Claim]:
    """Claim 3 (4.2, Figure 4): in nearly every pair the setting that generalises better has the lower value of each quantity."""
    # The gap of random labels is that of guessing, whatever the network: what generalises better shows on true labels alone.
    true = frame[frame["labels"] == "true"]
    for factor in FACTORS:
        for quantity, words in QUANTITY_WORDS.items():
            excepted = (factor, quantity) == EXCEPTION
            pairs = network_pairs(frame if factor == "labels" else true, factor, [quantity])
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
                yield _with_evidence(claim, found.share, found, found.pairs)


def _gap_and_norm(frame: pd.DataFrame) -> Iterator[Claim]:
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


def _gap_and_transitions(frame: pd.DataFrame) -> Iterator[Claim]:
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


def _points(frame: pd.DataFrame) -> Iterator[Claim]:
    """Claim 6 (4.4, Figure 6)."""
    statement = "the points of the highest Jacobian norms are mostly misclassified"
    yield _not_stored(6, statement, "the Jacobian norm and the loss at each test point")


# One for each claim of the paper, in their order.
CHECKS: tuple[Callable[[pd.DataFrame], Iterator[Claim]], ...] = (
    _trajectories,
    _boundaries,
    _factors,
    _gap_and_norm,
    _gap_and_transitions,
    _points,
)


def _not_stored(number: int, statement: str, needed: str) -> Claim:
    return Claim(number, "", "", statement, obstacle=f"needs {needed}, which a survey does not store")


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
