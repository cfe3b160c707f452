"""How far a survey is. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..store import SPECIFICATION, open_survey
from .spec import parse_spec


@dataclass(frozen=True)
class Status:
    """How far a survey is."""

    name: str
    networks: int  # in all
    counts: dict[str, int]  # stored networks of each state
    failures: dict[str, int]  # networks that failed for each reason, the most frequent first
    rate: float | None  # networks stored per second in the last run; None if it has stored none
    seconds_left: float | None  # predicted, at the pace of the last run and with its workers; None if there was none


def survey_status(folder: str | Path) -> Status:
    """Return how far the survey in `folder` is; StoreError if there is none."""
    with open_survey(folder) as store:
        spec = parse_spec(store.specification, str(Path(folder) / SPECIFICATION))
        counts, run, failures = store.counts(), store.last_run(), store.failures()
        predicted = sum(stack.seconds for stack in store.stacks(missing=True))
    rate = left = None
    if run is not None and run.networks and run.last_at > run.begun_at:
        rate = run.networks / (run.last_at - run.begun_at)
        left = seconds_left(run.predicted, run.measured, predicted, [], run.workers)
    return Status(spec.survey.name, len(spec), counts, failures, rate, left)


def seconds_left(predicted: float, measured: float, waiting: float, begun: Sequence[tuple[float, float]], workers: int) -> float:
    """
    Return the seconds that the rest of a survey will take: the prediction, at the pace so far.

    All times are seconds of one worker. The finished stacks were `predicted` to take them, and took `measured`; those that wait
    are predicted to take `waiting`. For each stack in training `begun` holds its predicted time and the time that it has taken.
    """
    pace = measured / predicted if predicted > 0 and measured > 0 else 1.0
    rest = [max(0.0, pace * seconds - elapsed) for seconds, elapsed in begun]
    # No worker can help another with its stack.
    return max([*rest, (pace * waiting + sum(rest)) / max(1, workers)])
