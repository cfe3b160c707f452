"""Numbers, durations and tables as commands print them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

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


def print_failures(failures: Mapping[str, int]) -> None:
    """Print the most frequent reasons of failure, and how many networks each ended."""
    for reason, count in list(failures.items())[:MOST_REASONS]:
        click.echo(f"  failed: {count:,}, {reason}")
    if len(failures) > MOST_REASONS:
        click.echo(f"  failed: for {len(failures) - MOST_REASONS} other reasons")


def print_correlations(table: pd.DataFrame, labels: str) -> None:
    """Print Kendall's tau of each quantity against the gap, with its interval."""
    networks, configurations = table.networks.max(), table.configurations.max()
    if not networks:
        click.echo(f"\nno network is fitted to {labels} labels")
        return
    click.echo(
        f"\nKendall's tau of the generalization gap, {networks} networks fitted to {labels} labels\n"
        f"(in brackets its 95% interval, by resampling the {configurations} configurations)"
    )
    for quantity, tau, low, high in table[table.networks > 0][["quantity", "tau", "low", "high"]].to_numpy().tolist():
        interval = f"[{low:+.2f}, {high:+.2f}]" if math.isfinite(low) else "[too few configurations]"
        shown = f"{tau:+.2f}" if math.isfinite(tau) else "undefined"
        click.echo(f"  {QUANTITY_NAMES[quantity]:20} {shown:>9}  {interval}")


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
