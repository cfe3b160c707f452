"""The contract of an executor: it trains stacks, and answers what came of each. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...configuration import Configuration

Row = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A stack that was trained: a row each, and the seconds that a worker took."""

    rows: list[Row]
    seconds: float


@dataclass(frozen=True)
class Lost:
    """
    A stack that was not trained, and why: it was too large for the memory, or its worker ended.

    `innocent` is one whose worker ended for a reason that has nothing to do with it: the machine under it is gone.
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
        """How many stacks are trained at a time; it may change while machines come and go."""

    def start(self, setup: dict[str, Any], most: int) -> None:
        """
        Start the workers, but no more than `most`.

        Parameters
        ----------
        setup
            The arguments of `sensitometer.survey.execution.worker._Worker`.
        most
            How many stacks there are.

        Raises
        ------
        SensitometerError
            The reason why the workers cannot set themselves up: a missing data set, a device that is not there.
        """

    @property
    def room(self) -> int:
        """How many stacks may be submitted before the next answer; above 0 when none is in progress."""

    def submit(self, number: int, stack: Sequence[Configuration]) -> None:
        """Train a stack, under a number that no other in progress has."""

    def answer(self) -> tuple[int, Answer]:
        """
        Wait for the next stack to end; return its number, and what came of it.

        Raises
        ------
        SensitometerError
            The obstacle to all stacks: a folder that cannot be written to, workers that cannot be started.
        """

    def close(self) -> None:
        """End all workers, in the midst of their stacks."""
