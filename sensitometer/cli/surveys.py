"""Commands that make surveys and look after them: run, plan, status, check."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import click

from .arguments import FOLDER, TEXT
from .printing import duration, print_correlations, print_failures, say, size


@click.command()
@click.argument("spec", type=TEXT)
@click.option("--out", required=True, type=FOLDER, help="The survey's folder.")
@click.option(
    "--executor", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Here, or a Ray cluster."
)
@click.option("--address", help="Of the Ray cluster, auto or HOST:PORT; default: RAY_ADDRESS, or a new one on this machine.")
@click.option("--workers", type=click.IntRange(min=1), help="Stacks trained at a time; default: one per processor or GPU.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--limit", type=click.IntRange(min=1), help="Largest number of networks to store in this run.")
def run(spec: str, out: Path, executor: str, address: str | None, workers: int | None, device: str, limit: int | None) -> None:
    """
    Train and measure the networks of SPEC, a preset's name or a TOML file, and store them in a folder.

    Run again on the same folder, it goes on where it stopped.
    """
    from rich.console import Console

    from ..analysis.correlations import QUANTITIES, gap_correlations
    from ..analysis.seeds import NETWORK_COLUMNS
    from ..survey import run_survey
    from ..survey.progress import TerminalReporter

    # Standard output has the results alone.
    with TerminalReporter(Console(stderr=True)) as reporter:
        store = run_survey(
            spec, out, executor=executor, address=address, workers=workers, device=device, limit=limit, reporter=reporter
        )
    with store:
        counts, failures = store.counts(), store.failures()
        frame = store.frame((*NETWORK_COLUMNS, "gap", *QUANTITIES))
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    say(f"{sum(counts.values())} networks in {out}: {states}")
    print_failures(failures)
    if frame.jacobian_norm.notna().any():
        for labels in ("true", "random"):
            if (frame.labels == labels).any():
                print_correlations(gap_correlations(frame, labels=labels), labels)


@click.command()
@click.argument("spec", type=TEXT)
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default: one per processor.")
@click.option("--like", help="Plan for GPUs, such as 8xH200, by their data sheets.")
def plan(spec: str, workers: int | None, like: str | None) -> None:
    """Say what SPEC takes on this machine, or on one like another; train nothing."""
    from ..survey import load_spec
    from ..survey import plan as make_plan

    checked, _ = load_spec(spec)
    made = make_plan(checked, workers=workers, like=like)
    note = " at most: networks stop early" if checked.training.stop_at_accuracy else ""
    amounts = {"arrays": made.arrays, "weights": made.weights, "saved states": made.states}
    parts = [f"{size(amount)} of {content}" for content, amount in amounts.items() if amount]
    for name, value in (
        ("networks", f"{made.networks:,}"),
        ("stacks", f"{made.stacks:,}"),
        ("operations", f"{made.flops:.2e} FLOP{note}"),
        ("time", f"{duration(made.seconds)} with {like or f'{made.workers} workers'}{note}"),
        ("memory", f"{size(made.memory)} at most"),
        ("disk", size(made.disk) + (f", with {' and '.join(parts)}" if parts else "")),
    ):
        say(f"{name:10}  {value}")
    say(f"predicted for {made.machine.name}: {made.machine.assumptions}")
    if made.too_large:
        count = sum(made.too_large.values())
        say(
            f"{count:,} networks are larger than a worker's memory, {size(made.share)}, and would be stored as failed; they are "
            "counted among the networks alone"
        )
        _print_shapes("too large", made.too_large)
    if len(made.shapes) > 1:
        _print_shapes("networks", made.shapes)


def _print_shapes(subject: str, shapes: Mapping[tuple[int, int], int]) -> None:
    """Print the number of networks of each shape: one line per width, one column per depth."""
    depths = sorted({depth for _, depth in shapes})
    cell = max(len(f"{count:,}") for count in [*shapes.values(), *depths]) + 2
    say("", f"{subject} by shape, width x depth")
    say(" " * 7 + "".join(f"{depth:{cell}}" for depth in depths))
    for width in sorted({width for width, _ in shapes}):
        counts = (f"{shapes[width, depth]:,}" if (width, depth) in shapes else "-" for depth in depths)
        say(f"{width:7}" + "".join(f"{count:>{cell}}" for count in counts))


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
def status(folder: Path) -> None:
    """Say how many networks of the survey in DIR are stored, of each state, the rate, and the time left."""
    from ..survey.status import survey_status

    now = survey_status(folder)
    done = sum(now.counts.values())
    say(f"{now.name}: {done:,} of {now.networks:,} networks stored")
    for state, count in now.counts.items():
        say(f"  {state:10}  {count:,}")
    print_failures(now.failures)
    if done < now.networks and now.rate is not None and now.seconds_left is not None:
        rate = f"{now.rate:,.1f}" if now.rate >= 1 else f"{now.rate:.2g}"
        say(f"{rate} networks a second in the last run; {duration(now.seconds_left)} left, by predicted cost")


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
def check(folder: Path, repair: bool) -> int:
    """
    Verify the survey in DIR; print each fault and how --repair would mend it.

    The exit status is 1 if something is wrong and was not mended.
    """
    from ..survey.checking import check_survey, unvouched

    findings = check_survey(folder, repair=repair)
    for finding in findings:
        cure = f"; {'done:' if repair else '--repair would'} {finding.repair}" if finding.repair else ""
        say(f"{finding.wrong}{cure}")
    if not findings:
        say(f"{folder} is sound")
    left = any(not repair or finding.repair is None for finding in findings)
    if not left:
        for note in unvouched(folder):
            say(note)
    return int(left)
