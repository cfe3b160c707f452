"""How far a survey is. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path

from ..store import SPECIFICATION, open_survey
from .spec import parse_spec


@dataclass(frozen=True)
class Status:
    """
    How far a survey is.

    Attributes
    ----------
    name
        The survey's name.
    networks
        How many it has in all.
    counts
        How many are stored, of each state.
    rate
        Networks stored a second in the last run; None if it has stored none.
    seconds_left
        Time that the rest would take at the pace of the last run, by predicted cost; None if that cannot be said.
    """

    name: str
    networks: int
    counts: dict[str, int]
    rate: float | None
    seconds_left: float | None


def survey_status(folder: str | Path) -> Status:
    """Return how far the survey in `folder` is; StoreError if there is none."""
    with open_survey(folder) as store:
        spec = parse_spec(store.specification, str(Path(folder) / SPECIFICATION))
        stored, counts = store.ids(), store.counts()
        recent, elapsed = store.last_run()
        sizes = store.stack_sizes()
    if not recent or elapsed <= 0:
        return Status(spec.survey.name, len(spec), counts, None, None)
    done = left = 0.0
    for one in spec.configurations():
        if one.kind not in sizes:  # the survey has grown since the last run
            return Status(spec.survey.name, len(spec), counts, len(recent) / elapsed, None)
        _, seconds = sizes[one.kind]
        done += seconds * (one.id in recent)
        left += seconds * (one.id not in stored)
    return Status(spec.survey.name, len(spec), counts, len(recent) / elapsed, elapsed * left / done)
