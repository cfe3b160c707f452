"""
The paper's claims against one survey: a statistic with an interval, a threshold, and a verdict.

The verdict comes from the interval: what the statistic alone suggests is not enough. docs/definitions.md, "Claims", says what is
claimed where in the paper, and why each statistic and threshold was chosen.
"""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from ..analysis.seeds import NETWORK_COLUMNS
from .arrays import boundaries, points, trajectories
from .claim import DOES_NOT_HOLD, HOLDS, NOT_ENOUGH_DATA, Claim
from .networks import THRESHOLDS, factors, gap_and_norm, gap_and_transitions

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["COLUMNS", "DOES_NOT_HOLD", "HOLDS", "NOT_ENOUGH_DATA", "THRESHOLDS", "Claim", "check_claims"]

# The columns of a survey that the claims are about.
COLUMNS = (*NETWORK_COLUMNS, "gap", "jacobian_norm", "transitions", "train_accuracy", "test_accuracy")


class Store(Protocol):
    """All that the claims ask of a survey's store."""

    def frame(self, columns: Collection[str]) -> "pd.DataFrame":
        """Return these columns, one row a network."""
        ...

    def kept(self) -> set[str]:
        """Return the ids of the networks of which arrays are kept."""
        ...

    def arrays(self, id_: str, prefix: str | tuple[str, ...] = "") -> "dict[str, NDArray[Any]]":
        """Return the arrays kept of a network whose names begin so, by name: see `sensitometer.arrays`."""
        ...


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
