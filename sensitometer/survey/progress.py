"""The progress display of a run in a terminal: networks done, rate, time left, and the correlation so far."""

import math
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ..analysis.correlations import running_tau

# Seconds between two looks at the correlation, which takes milliseconds.
CORRELATION_INTERVAL = 1.0


class TerminalReporter:
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

    def start(self, networks: int, stored: int, wanted: int, seconds: float) -> None:
        """Begin: so many networks in all, so many of them stored, so many to be trained now, in so much time at most."""
        self._progress.update(self._task, total=networks if wanted == networks - stored else stored + wanted, completed=stored)
        self._progress.start()
        self._count = 0
        self._seconds = seconds
        self._predicted = 0.0
        self._begun = self._looked = time.monotonic()

    def stored(self, row: Mapping[str, Any], seconds: float) -> None:
        """One more network is stored, its share of the time that was given to `start`."""
        now = time.monotonic()
        self._count += 1
        self._predicted += seconds
        if row["state"] == "fitted" and row["labels"] == "true" and row.get("jacobian_norm") is not None:
            self._gaps.append(row["gap"])
            self._norms.append(row["jacobian_norm"])
        elapsed = now - self._begun
        # What is left is predicted to take as much longer, or shorter, as what is done did.
        left = timedelta(seconds=round(max(0.0, elapsed * (self._seconds - self._predicted) / self._predicted)))
        self._progress.update(self._task, advance=1, rate=f"{self._count / elapsed:.1f}/s", left=f"{left} left")
        if now - self._looked > CORRELATION_INTERVAL:
            self._looked = now
            tau = running_tau(self._gaps, self._norms)
            self._progress.update(self._task, correlation="τ -" if math.isnan(tau) else f"τ {tau:+.2f}")
