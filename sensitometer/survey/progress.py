"""The progress display of a run in a terminal: networks done, rate, time left, and the correlation so far."""

import math
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..analysis.correlations import running_tau
from .runner import Reporter

# Seconds between two looks at the correlation, which takes milliseconds.
CORRELATION_INTERVAL = 1.0


class TerminalReporter(Reporter):
    """Draws a progress bar on `console` while a run trains; a context manager."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("networks · {task.fields[rate]} · {task.fields[left]} · {task.fields[correlation]} ·"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("", total=None, rate="starting", left="-:--:-- left", correlation="τ -")
        self._gaps: list[float] = []
        self._norms: list[float] = []

    def __enter__(self) -> "TerminalReporter":
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress.live.is_started:
            self._progress.stop()

    def start(self, networks: int, stored: int, wanted: int, left: float) -> None:
        """See `Reporter`."""
        total = networks if wanted == networks - stored else stored + wanted
        self._progress.update(self._task, total=total, completed=stored, left=_words(left))
        self._progress.start()
        self._count = 0
        self._begun = self._looked = time.monotonic()

    def stored(self, rows: Sequence[Mapping[str, Any]], left: float) -> None:
        """See `Reporter`."""
        now = time.monotonic()
        self._count += len(rows)
        for row in rows:
            if row["state"] == "fitted" and row["labels"] == "true" and row.get("jacobian_norm") is not None:
                self._gaps.append(row["gap"])
                self._norms.append(row["jacobian_norm"])
        rate = self._count / (now - self._begun)
        self._progress.update(self._task, advance=len(rows), rate=f"{rate:.1f}/s", left=_words(left))
        task = self._progress.tasks[self._task]
        if now - self._looked > CORRELATION_INTERVAL or task.completed == task.total:
            self._looked = now
            tau = running_tau(self._gaps, self._norms)
            self._progress.update(self._task, correlation="τ -" if math.isnan(tau) else f"τ {tau:+.2f}")


def _words(seconds: float) -> str:
    return f"{timedelta(seconds=round(seconds))} left"
