"""The command line: parses, calls the library, prints. Every error of the library is one line and exit status 2."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import __version__
from .errors import SensitometerError

if TYPE_CHECKING:
    import pandas as pd

    from .claims import Claim
    from .matmul import Probe

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


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="sensitometer")
def cli() -> None:
    """Measure how sensitive trained networks are to their inputs, and what that says about how well they generalise."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 on success, 2 on bad input with one line that says what, 130 when interrupted."""
    try:
        status = cli.main(args=arguments, prog_name="sensitometer", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        status = 2
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "sensitometer"
        click.echo(f"{path}: {error.format_message()}", err=True)
        status = 2
    except SensitometerError as error:
        click.echo(f"sensitometer: {error}", err=True)
        status = 2
    except OSError as error:
        click.echo(f"sensitometer: {error}", err=True)
        status = 2
    except (click.Abort, KeyboardInterrupt):
        click.echo("sensitometer: interrupted; what was stored stays, and the same command goes on from there", err=True)
        status = 130
    sys.exit(status or 0)


@cli.command()
@click.argument("spec")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="The survey's folder.")
@click.option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    help="Where to train: processes on this machine, or a Ray cluster.",
)
@click.option("--address", help="Of the Ray cluster, auto or HOST:PORT; default: RAY_ADDRESS, or a new one on this machine.")
@click.option("--workers", type=click.IntRange(min=1), help="Stacks trained at a time; default: one a processor, or one a GPU.")
@click.option("--device", default="cpu", show_default=True, help="cpu or cuda.")
@click.option("--limit", type=click.IntRange(min=1), help="Store at most so many more networks.")
def run(spec: str, out: Path, executor: str, address: str | None, workers: int | None, device: str, limit: int | None) -> None:
    """
    Train and measure the networks of SPEC, a preset's name or a TOML file, and store them in a folder.

    Run again on the same folder, it goes on where it stopped.
    """
    from rich.console import Console

    from .analysis.correlations import QUANTITIES, gap_correlations
    from .analysis.seeds import NETWORK_COLUMNS
    from .survey import run_survey
    from .survey.progress import TerminalReporter

    # The command's findings go to standard output, on their own.
    with TerminalReporter(Console(stderr=True)) as reporter:
        store = run_survey(
            spec, out, executor=executor, address=address, workers=workers, device=device, limit=limit, reporter=reporter
        )
    with store:
        counts, failures = store.counts(), store.failures()
        frame = store.frame((*NETWORK_COLUMNS, "gap", *QUANTITIES))
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    click.echo(f"{sum(counts.values())} networks in {out}: {states}")
    _print_failures(failures)
    if frame.jacobian_norm.notna().any():
        for labels in ("true", "random"):
            if (frame.labels == labels).any():
                _print_correlations(gap_correlations(frame, labels=labels), labels)


def _print_failures(failures: Mapping[str, int]) -> None:
    for reason, count in list(failures.items())[:MOST_REASONS]:
        click.echo(f"  failed: {count:,}, {reason}")
    if len(failures) > MOST_REASONS:
        click.echo(f"  failed: for {len(failures) - MOST_REASONS} other reasons")


def _print_correlations(table: pd.DataFrame, labels: str) -> None:
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


@cli.command()
@click.argument("spec")
@click.option("--workers", type=click.IntRange(min=1), help="Worker processes; default: one a processor.")
@click.option("--like", help="Plan for GPUs, such as 8xH200, as their data sheets let expect; nothing is measured.")
def plan(spec: str, workers: int | None, like: str | None) -> None:
    """Say what SPEC takes on this machine, or on one like another; train nothing."""
    from .survey import load_spec
    from .survey import plan as make_plan

    checked, _ = load_spec(spec)
    made = make_plan(checked, workers=workers, like=like)
    note = " at most: networks stop early" if checked.training.stop_at_accuracy else ""
    parts = [
        f"{_size(size)} of {what}"
        for what, size in (("arrays", made.arrays), ("weights", made.weights), ("saved states", made.states))
        if size
    ]
    for name, value in (
        ("networks", f"{made.networks:,}"),
        ("stacks", f"{made.stacks:,}"),
        ("operations", f"{made.flops:.2e} FLOP{note}"),
        ("time", f"{_duration(made.seconds)} with {like or f'{made.workers} workers'}{note}"),
        ("memory", f"{_size(made.memory)} at most"),
        ("disk", _size(made.disk) + (f", with {' and '.join(parts)}" if parts else "")),
    ):
        click.echo(f"{name:10}  {value}")
    if made.assumed:
        click.echo(f"as assumed for {like}: {made.assumed}")
    if made.too_large:
        count = sum(made.too_large.values())
        click.echo(
            f"{count:,} networks are larger than a worker's memory, {_size(made.share)}, and would be stored as failed; they are "
            "counted among the networks alone"
        )
        _print_shapes("too large", made.too_large)
    if len(made.shapes) > 1:
        _print_shapes("networks", made.shapes)


def _print_shapes(what: str, shapes: Mapping[tuple[int, int], int]) -> None:
    """Print how many networks of each shape there are: a width a line, a depth a column."""
    depths = sorted({depth for _, depth in shapes})
    cell = max(len(f"{count:,}") for count in [*shapes.values(), *depths]) + 2
    click.echo(f"\n{what} by shape, width x depth")
    click.echo(" " * 7 + "".join(f"{depth:{cell}}" for depth in depths))
    for width in sorted({width for width, _ in shapes}):
        counts = (f"{shapes[width, depth]:,}" if (width, depth) in shapes else "-" for depth in depths)
        click.echo(f"{width:7}" + "".join(f"{count:>{cell}}" for count in counts))


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"


def _rate(rate: float) -> str:
    return f"{rate:,.1f}" if rate >= 1 else f"{rate:.2g}"


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
def status(folder: Path) -> None:
    """Say how many networks of the survey in DIR are stored, of each state, the rate, and the time left."""
    from .survey.status import survey_status

    now = survey_status(folder)
    done = sum(now.counts.values())
    click.echo(f"{now.name}: {done:,} of {now.networks:,} networks stored")
    for state, count in now.counts.items():
        click.echo(f"  {state:10}  {count:,}")
    _print_failures(now.failures)
    if done < now.networks and now.rate is not None and now.seconds_left is not None:
        click.echo(f"{_rate(now.rate)} networks a second in the last run; {_duration(now.seconds_left)} left, by predicted cost")


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
def check(folder: Path, repair: bool) -> int:
    """
    Verify the survey in DIR, and say what is wrong and how --repair would mend it.

    The exit status is 1 if something is wrong and was not mended.
    """
    from .survey.checking import check_survey

    found = check_survey(folder, repair=repair)
    for one in found:
        cure = f"; --repair would {one.repair}" if not repair else f"; done: {one.repair}"
        click.echo(f"{one.wrong}{cure if one.repair else ''}")
    if not found:
        click.echo(f"{folder} is sound")
    return int(any(not repair or one.repair is None for one in found))


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
def export(folder: Path, file: Path) -> None:
    """Write the networks of the survey in DIR, a row each, to FILE.parquet or FILE.csv."""
    from .store import open_survey

    with open_survey(folder) as store:
        count = store.export(file)
    click.echo(f"{count:,} networks in {file}")


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--only", help="Numbers of figures in the paper, such as 1,5; default: all that there are data for.")
@click.option("--format", "formats", default="png,svg", show_default=True, help="Some of png,svg,pdf.")
@click.option("--paper-style", is_flag=True, help="For a paper's page: serif type, closed frames, no statistics and no caption.")
def figures(folder: Path, only: str | None, formats: str, paper_style: bool) -> None:
    """Draw the figures of the survey in DIR into DIR/figures, each beside a CSV of the data drawn."""
    from .figures.catalogue import save_figures
    from .store import open_survey

    with open_survey(folder) as store:
        numbers = _list(only) if only is not None else None
        saved = save_figures(store, folder / "figures", numbers, _list(formats), paper_style=paper_style)
    for path in saved.paths:
        click.echo(path)
    if saved.skipped:
        first = next(iter(saved.skipped))
        click.echo(f"not drawn, for lack of data: {', '.join(saved.skipped)} (--only {first} says what {first} needs)", err=True)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


@cli.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list, an object a claim.")
def claims(folder: Path, as_json: bool) -> None:
    """
    Test the paper's claims on the survey in DIR.

    Each has a statistic, its 95% interval, and a threshold, on one side of which the whole interval must be. See
    docs/definitions.md, "Claims".
    """
    import json

    from .claims import check_claims
    from .store import open_survey

    with open_survey(folder) as store:
        found = check_claims(store)
    if as_json:
        click.echo(json.dumps([claim.as_dict() for claim in found], indent=2))
        return
    rows = [("claim", "statistic", "value", "95% interval", "threshold", "verdict"), *map(_claim_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, claim in zip(rows, [None, *found], strict=True):
        click.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())
        if claim is not None:
            click.echo(f"   {claim.statement} ({claim.reason})")


def _claim_row(claim: Claim) -> tuple[str, ...]:
    """Return what a claim is about, its statistic, and the verdict, as they are printed."""
    about = ": ".join(part for part in (claim.subject, QUANTITY_NAMES.get(claim.quantity, claim.quantity)) if part)
    value = f"{claim.value:z.3f}" if math.isfinite(claim.value) else ""
    interval = f"[{claim.low:z.3f}, {claim.high:z.3f}]" if math.isfinite(claim.low) else ""
    threshold = f"{claim.side} {claim.threshold:g}" if math.isfinite(claim.threshold) else ""
    return (f"{claim.number}  {about}".strip(), claim.statistic, value, interval, threshold, claim.verdict)


@cli.command()
@click.argument("model")
@click.option("--data", "name", required=True, help="The data set whose test points are taken.")
@click.option("--crop", type=click.IntRange(min=1), help="Keep the centre CROP x CROP of each image.")
@click.option("--weights", type=click.Path(path_type=Path), help="A safetensors file of the weights, for package.module:factory.")
@click.option("--trust-pickle", is_flag=True, help="Unpickle what MODEL holds, which may run any code in it.")
@click.option("--points", type=click.IntRange(min=1), help="So many random test points; default: all for an MLP, else 1,000.")
@click.option("--transitions", type=click.IntRange(min=0), help="On so many points' loops; default: 10, if they can be counted.")
@click.option("--samples", type=click.IntRange(min=2), default=2**14, show_default=True, help="Points on each sampled loop.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="CSV of the points; default: MODEL-DATA-points.csv.")
def measure(
    model: str,
    name: str,
    crop: int | None,
    weights: Path | None,
    trust_pickle: bool,
    points: int | None,
    transitions: int | None,
    samples: int,
    out: Path | None,
) -> None:
    """
    Measure one trained MODEL on test points.

    MODEL is a .pt2 file of torch.export, package.module:factory (with --weights FILE.safetensors), a .safetensors file of
    MLP.save, or, with --trust-pickle, a pickled module (.pt, .pth).
    """
    from .data import load_dataset
    from .measuring import measure as measure_model
    from .measuring import write_points
    from .model_files import open_model

    dataset = load_dataset(name, crop=crop)
    opened = open_model(model, weights=weights, trust_pickle=trust_pickle)
    out = out or Path(f"{model.replace(':', '.') if ':' in model else Path(model).with_suffix('')}-{name}-points.csv")
    if not out.absolute().parent.is_dir():
        raise SensitometerError(f"cannot write the points to {out}: No such folder")
    done = measure_model(opened, dataset, points=points, transitions=transitions, samples=samples)
    click.echo(f"{model} on {len(done.points):,} of {len(dataset.test.y):,} test points of {name}")
    click.echo(f"{'':32}{'mean':>12}{'std. error':>12}{'points':>8}")
    for label, mean in done.table(samples).items():
        click.echo(f"{label:32}{mean.value:>12.4g}{mean.standard_error:>12.2g}{mean.count:>8,}")
    if done.uncounted:
        click.echo(f"transitions not counted: {done.uncounted}")
    if math.isfinite(done.auroc):
        click.echo(f"a wrong point has the higher Jacobian norm than a correct one in {done.auroc:.1%} of pairs (AUROC)")
    if done.comparison:
        shares = f"{done.comparison.inside:.1%} within (5), {done.comparison.above:.1%} above (6)"
        click.echo(f"bounds of the paper's A.3: {shares}, {done.comparison.ratio:.3g} times (7) in the median")
    write_points(done, out)
    click.echo(f"points in {out}")


@cli.group()
def data() -> None:
    """List and fetch the data sets."""


@data.command("list")
def list_() -> None:
    """List the data sets, and where they are on this machine."""
    from .data import list_datasets

    click.echo(f"{'name':14} {'train':>7} {'test':>7} {'classes':>8}  {'image':12} where")
    for one in list_datasets():
        where = "part of scikit-learn" if one.folder is None else str(one.folder)
        missing = "" if one.present else f" (not there: sensitometer data fetch {one.name})"
        shape = " x ".join(map(str, one.image_shape))
        click.echo(f"{one.name:14} {one.train_points:>7,} {one.test_points:>7,} {one.classes:>8}  {shape:12} {where}{missing}")


@data.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Fetch the data set NAME from where its authors publish it."""
    from .data.fetching import fetch_dataset

    fetched = fetch_dataset(name, progress=True)
    if fetched.folder is None:
        click.echo(f"{name} is part of a library and needs no fetching")
    elif fetched.downloaded:
        click.echo(f"{name}: {', '.join(fetched.downloaded)} fetched into {fetched.folder}")
    else:
        click.echo(f"{name}: already in {fetched.folder}, and sound")


@cli.command()
def doctor() -> None:
    """
    Check this machine: versions, device, and the matrix products, how fast and how right.

    Step times that were measured here before, for `plan` and for the sizes of stacks, are measured anew when next needed.
    """
    import importlib.metadata
    import platform

    from . import matmul
    from .survey.scheduling.plan import default_workers
    from .survey.scheduling.speed import Speeds

    choice = matmul.choose(fresh=True)
    Speeds(choice.path).forget()
    click.echo(f"sensitometer    {__version__}")
    click.echo(f"python          {platform.python_version()}")
    for package in ("torch", "numpy", "numba"):
        click.echo(f"{package:15} {importlib.metadata.version(package)}")
    click.echo(f"processor       {matmul.processor()}, {default_workers()} workers")
    click.echo(f"cuda            {_cuda()}")
    click.echo("matrix products, float32, one thread, GFLOP/s (median of alternating rounds)")
    shapes = [f"{networks} x {out}x{inner}x{points}" for networks, out, inner, points in matmul.PROBE_SHAPES]
    click.echo(f"  {'path':14}" + "".join(f"{shape:>20}" for shape in shapes) + f"{'error vs float64':>20}")
    for probe in choice.probes:
        click.echo(_probe_line(probe))
    click.echo(f"path used       {choice.path}: {choice.reason}")


def _probe_line(probe: Probe) -> str:
    from statistics import median

    rates = [median(rates) for rates in zip(*probe.rates, strict=True)]
    return f"  {probe.path:14}" + "".join(f"{rate:>20.0f}" for rate in rates) + f"{probe.error:>20.1e}"


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no device"
    return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
