"""
The paper's claims against one survey: a statistic with an interval, a threshold, and a verdict.

The verdict comes from the interval: what the statistic alone suggests is not enough. docs/definitions.md, "Claims", says what is
claimed where in the paper, and why each statistic and threshold was chosen.
"""

from collections.abc import Iterator

from ..analysis.seeds import NETWORK_COLUMNS
from ..store import Store
from .arrays import boundaries, points, trajectories
from .claim import DOES_NOT_HOLD, HOLDS, NOT_ENOUGH_DATA, Claim
from .networks import THRESHOLDS, factors, gap_and_norm, gap_and_transitions

__all__ = ["COLUMNS", "DOES_NOT_HOLD", "HOLDS", "NOT_ENOUGH_DATA", "THRESHOLDS", "Claim", "check_claims"]

# The columns of a survey that the claims are about.
COLUMNS = (*NETWORK_COLUMNS, "gap", "jacobian_norm", "transitions", "train_accuracy", "test_accuracy")


def check_claims(store: Store) -> list[Claim]:
    """Return the paper's claims in their order, each with what this survey says of it."""
    return list(_claims(store))


def _claims(store: Store) -> Iterator[Claim]:
    frame = store.frame(COLUMNS)
    kept = frame[frame["id"].isin(store.kept())]
    yield from trajectories(kept, store.arrays)
    yield from boundaries(kept, store.arrays)
    yield from factors(frame)
    yield from gap_and_norm(frame)
    yield from gap_and_transitions(frame)
    yield from points(kept, store.arrays)
