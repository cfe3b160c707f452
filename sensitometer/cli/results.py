"""Commands that read what a survey found: export, figures, claims."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .arguments import FILE, FOLDER
from .printing import QUANTITY_NAMES, say, say_json

if TYPE_CHECKING:
    from ..claims import Claim


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.argument("file", metavar="FILE", type=FILE)
def export(folder: Path, file: Path) -> None:
    """Write the networks of the survey in DIR, one row each, to FILE.parquet or FILE.csv."""
    from ..store import open_survey

    with open_survey(folder) as store:
        count = store.export(file)
    say(f"{count:,} networks in {file}")


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--only", help="Numbers of figures in the paper, such as 1,5; default: all that there are data for.")
@click.option("--format", "formats", default="png,svg", show_default=True, help="Some of png,svg,pdf.")
@click.option("--paper-style", is_flag=True, help="For a paper's page: serif type, closed frames, no statistics and no caption.")
def figures(folder: Path, only: str | None, formats: str, paper_style: bool) -> None:
    """Draw the figures of the survey in DIR into DIR/figures, each beside a CSV of the data drawn."""
    from ..figures.catalogue import save_figures
    from ..store import open_survey

    with open_survey(folder) as store:
        numbers = _list(only) if only is not None else None
        saved = save_figures(store, folder / "figures", numbers, _list(formats), paper_style=paper_style)
    for path in saved.paths:
        say(path)
    if saved.skipped:
        first = next(iter(saved.skipped))
        say(f"not drawn, for lack of data: {', '.join(saved.skipped)} (--only {first} says what {first} needs)", err=True)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, one object per claim.")
def claims(folder: Path, as_json: bool) -> None:
    """
    Test the paper's claims on the survey in DIR.

    Each has a statistic, its 95% interval, and a threshold, on one side of which the whole interval must be. See
    docs/definitions.md, "Claims".
    """
    from ..claims import check_claims
    from ..store import open_survey

    with open_survey(folder) as store:
        checked = check_claims(store)
    if as_json:
        say_json([claim.as_dict() for claim in checked])
        return
    rows = [("claim", "statistic", "value", "95% interval", "threshold", "verdict"), *map(_claim_row, checked)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, claim in zip(rows, [None, *checked], strict=True):
        say("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        if claim is not None:
            say(f"   {claim.statement} ({claim.reason})")


def _claim_row(claim: Claim) -> tuple[str, ...]:
    about = ": ".join(part for part in (claim.subject, QUANTITY_NAMES.get(claim.quantity, claim.quantity)) if part)
    value = f"{claim.value:z.3f}" if math.isfinite(claim.value) else ""
    interval = f"[{claim.low:z.3f}, {claim.high:z.3f}]" if math.isfinite(claim.low) else ""
    threshold = f"{claim.side} {claim.threshold:g}" if math.isfinite(claim.threshold) else ""
    return (f"{claim.number}  {about}".strip(), claim.statistic, value, interval, threshold, claim.verdict)
