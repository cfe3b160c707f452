"""Numbers, durations and tables as commands print them; all that is printed passes through `say`."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from ..errors import printable

if TYPE_CHECKING:
    import pandas as pd

QUANTITY_NAMES = {
    "jacobian_norm": "Jacobian norm",
    "logit_jacobian_norm": "logit Jacobian norm",
    "transitions": "transitions",
    "weights": "number of weights",
    "train_loss": "train loss",
    "test_accuracy": "test accuracy",
}
# Reasons of failure that are printed.
MOST_REASONS = 3


def say(*lines: object, err: bool = False) -> None:
    """
    Print lines, an empty one if there is none; `err`: to the standard error.

    Each is one line and no more, whatever is in it: names and messages come from files that somebody else may have written.
    """
    for line in lines or ("",):
        click.echo(printable(str(line)), err=err)


def say_json(value: Any) -> None:
    """Print a value as JSON, in which all but ASCII is escaped; NaN and infinity, which JSON lacks, are null."""
    plain = json.loads(json.dumps(value, default=float), parse_constant=lambda _: None)
    say(*json.dumps(plain, indent=2).splitlines())


def print_failures(failures: Mapping[str, int]) -> None:
    """Print the most frequent reasons of failure, and how many networks each ended."""
    for reason, count in list(failures.items())[:MOST_REASONS]:
        say(f"  failed: {count:,}, {reason}")
    if len(failures) > MOST_REASONS:
        say(f"  failed: for {len(failures) - MOST_REASONS} other reasons")


def print_correlations(table: pd.DataFrame, labels: str) -> None:
    """Print Kendall's tau of each quantity against the gap, with its interval."""
    networks, configurations = table.networks.max(), table.configurations.max()
    if not networks:
        say("", f"no network is fitted to {labels} labels")
        return
    say(
        "",
        f"Kendall's tau of the generalization gap, {networks} networks fitted to {labels} labels",
        f"(in brackets its 95% interval, by resampling the {configurations} configurations)",
    )
    for quantity, tau, low, high in table[table.networks > 0][["quantity", "tau", "low", "high"]].to_numpy().tolist():
        interval = f"[{low:+.2f}, {high:+.2f}]" if math.isfinite(low) else "[too few configurations]"
        shown = f"{tau:+.2f}" if math.isfinite(tau) else "undefined"
        say(f"  {QUANTITY_NAMES[quantity]:20} {shown:>9}  {interval}")


def number(value: float, digits: int) -> str:
    """Return a number with so many significant digits; a large one whole, and without an exponent."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.{digits}g}"


def duration(seconds: float) -> str:
    """Return seconds in the unit in which they are a number above 2."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def size(count: int) -> str:
    """Return a number of bytes in GB, MB or kB."""
    for unit, bytes_each in (("GB", 1e9), ("MB", 1e6)):
        if count >= bytes_each:
            return f"{count / bytes_each:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"
