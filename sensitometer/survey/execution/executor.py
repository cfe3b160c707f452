"""The contract of an executor: it trains stacks, and answers for each whether it was trained. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...configuration import Configuration

Row = dict[str, Any]
# Stacks submitted per worker: one that is trained, and one that waits, so that no worker is idle while results are stored.
STACKS_PER_WORKER = 2


@dataclass(frozen=True)
class Done:
    """A stack that was trained: one row per network, and the seconds that a worker took."""

    rows: list[Row]
    seconds: float


@dataclass(frozen=True)
class Lost:
    """
    A stack that was not trained, and the reason: it was too large for the memory, or its worker ended.

    A stack is `innocent` if its worker ended for a reason that has nothing to do with it: the machine under it is gone.
    """

    reason: str
    innocent: bool = False


Answer = Done | Lost


class Executor(Protocol):
    """
    Trains stacks, several at a time.

    Stacks are begun in the order in which they are submitted, and answered in any order, each once.
    """

    @property
    def workers(self) -> int:
        """Number of stacks that are trained at a time; it may change while machines come and go."""

    def start(self, setup: dict[str, Any], most: int) -> None:
        """
        Start the workers, but no more than `most`, the number of stacks.

        `setup` holds the arguments of `execution.worker._Worker`. Raises SensitometerError with the reason why the workers cannot
        set themselves up: a missing data set, a device that is not there.
        """

    def submit(self, number: int, stack: Sequence[Configuration]) -> None:
        """Train a stack, under a number that no other in progress has."""

    def answer(self) -> tuple[int, Answer]:
        """
        Wait for the next stack to end; return its number and the answer.

        Raises SensitometerError for an obstacle to all stacks: a folder that cannot be written, workers that cannot be started.
        """

    def close(self) -> None:
        """End all workers, even while they train."""
