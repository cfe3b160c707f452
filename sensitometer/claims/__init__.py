"""
The paper's claims against one survey: a statistic with an interval, a threshold, and a verdict.

The verdict comes from the interval, not from the statistic alone. docs/definitions.md, "Claims", gives the place of each claim in
the paper, and the reasons for each statistic and threshold.
"""

from ..analysis.seeds import NETWORK_COLUMNS
from ..data.sources import count_classes
from ..store import Store
from .arrays import boundaries, points, trajectories
from .claim import DOES_NOT_HOLD, HOLDS, NOT_ENOUGH_DATA, Claim
from .networks import THRESHOLDS, factors, gap_and_norm, gap_and_transitions

__all__ = ["COLUMNS", "DOES_NOT_HOLD", "HOLDS", "NOT_ENOUGH_DATA", "THRESHOLDS", "Claim", "check_claims"]

# The columns of a survey that the claims are about.
COLUMNS = (*NETWORK_COLUMNS, "gap", "jacobian_norm", "transitions", "train_accuracy", "test_accuracy")


def check_claims(store: Store) -> list[Claim]:
    """Return the paper's claims in their order, each tested on this survey."""
    frame = store.frame(COLUMNS)
    kept = frame[frame["id"].isin(store.kept())]
    kept = kept.assign(classes=[count_classes(dataset, lambda: store.specification) for dataset in kept["dataset"]])
    return [
        *trajectories(kept, store.arrays),
        *boundaries(kept, store.arrays),
        *factors(frame),
        *gap_and_norm(frame),
        *gap_and_transitions(frame),
        *points(kept, store.arrays),
    ]
