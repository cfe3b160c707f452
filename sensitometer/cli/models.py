"""The commands that measure somebody's models: one, or several on the same points."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import InvalidInputError, SensitometerError
from ..files import check_writable
from .arguments import FILE, TEXT
from .printing import number, say, say_json

if TYPE_CHECKING:
    from ..measuring import Measurement

# Classes of which a table is printed.
MOST_CLASSES = 20
KINDS = ("probabilities", "logits", "sigmoid", "outputs")
Command = Callable[..., Any]
_OPTIONS = (
    click.option(
        "--data", required=True, type=TEXT, help="A known name, FILE.npz, a folder of images, or package.module:factory."
    ),
    click.option("--normalise", help="sphere, none or MEAN/STD; default: sphere for known names, none for other data."),
    click.option("--crop", type=click.IntRange(min=1), help="Keep the centre CROP x CROP of each image of a known data set."),
    click.option("--size", type=click.IntRange(min=1), help="Resize the images of a folder to SIZE x SIZE."),
    click.option(
        "--of", type=click.Choice(KINDS), default="probabilities", show_default=True, help="The output that is measured."
    ),
    click.option("--output", help="The name or place of the output, of a model that returns several."),
    click.option("--points", type=click.IntRange(min=1), help="Random test points; default: all for an MLP, else 1,000."),
    click.option("--transitions", type=click.IntRange(min=0), default=0, help="Count transitions on the loops of N points."),
    click.option("--samples", type=click.IntRange(min=2), default=2**14, show_default=True, help="Points on each sampled loop."),
    click.option("--exact", is_flag=True, help="Count transitions exactly, of any piecewise-linear model."),
    click.option("--local-complexity", is_flag=True, help="Measure how many units change near each point."),
    click.option("--trust-pickle", is_flag=True, help="Unpickle what MODEL holds, which may run any code in it."),
    click.option("--json", "as_json", is_flag=True, help="Print JSON."),
)


def _options(command: Command) -> Command:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def _measuring_options(output: str | None, exact: bool, **options: Any) -> dict[str, Any]:
    place = int(output) if output is not None and output.isdigit() else output
    return {"output": place, "method": "exact" if exact else None, **options}


def _say_begun(line: str, *, to_stdout: bool) -> None:
    """Print what has begun, before torch is imported, which takes seconds; where output is for programs, only in a terminal."""
    if to_stdout or sys.stderr.isatty():
        say(line, err=not to_stdout)


@click.command()
@click.argument("model", type=TEXT)
@click.option("--weights", type=FILE, help="The weights of package.module:factory: safetensors, or .pt.")
@click.option(
    "--out", type=TEXT, help="CSV or .parquet file of the points, - for standard output; default: MODEL-DATA-points.csv."
)
@_options
def measure(
    model: str,
    weights: Path | None,
    out: str | None,
    data: str,
    normalise: str | None,
    crop: int | None,
    size: int | None,
    trust_pickle: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """
    Measure one trained MODEL on test points: accuracy, Jacobian norms, and how well the norm finds errors.

    MODEL is a .pt2 file of torch.export, package.module:factory (with --weights FILE), a .safetensors file of MLP.save, or, with
    --trust-pickle, a pickled module (.pt, .pth).
    """
    _say_begun(f"measuring {model} on {data}", to_stdout=not as_json and out != "-")
    if out is not None and out != "-":
        _check_target(Path(out))
    from ..data.opening import open_data
    from ..measuring.model_on_data import measure as measure_model
    from ..models.opening import open_model

    dataset = open_data(data, normalise=normalise, crop=crop, size=size)
    opened = open_model(model, weights=weights, trust_pickle=trust_pickle)
    names = [_stem(model), *([weights.stem] if weights else []), dataset.name, "points.csv"]
    target = out or "-".join(names)
    if target != "-":
        _check_target(Path(target))
    if target == "-" and as_json:
        raise InvalidInputError("--json and --out - both print to standard output: leave one out")
    done = measure_model(opened, dataset, **_measuring_options(**options))
    if target != "-":
        done.write(target)
    if as_json:
        say_json({"model": model, "weights": weights and str(weights), **done.as_dict()})
    else:
        of = f" with the weights {weights}" if weights else ", with the weights that it makes itself," if ":" in model else ""
        _print_measurement(f"{model}{of}", done, to_stderr=target == "-")
    if target == "-":
        done.frame().to_csv(sys.stdout, index=False, lineterminator="\n")
    else:
        say(f"points in {target}", err=as_json)


def _check_target(target: Path) -> None:
    """Refuse a file that cannot be written before the model is measured, which takes longer."""
    folder = target.absolute().parent
    if not folder.is_dir():
        raise SensitometerError(f"cannot write the points to {target}: No such folder")
    if target.is_dir():
        raise SensitometerError(f"cannot write the points to {target}: it is a folder")
    if target.suffix not in (".csv", ".parquet"):
        raise InvalidInputError(f"--out must end in .csv or .parquet, or be - for standard output; got {target}")
    try:
        check_writable(folder)
    except OSError as error:
        raise SensitometerError(f"cannot write the points to {target}: {error.strerror or error}") from error


def _stem(model: str) -> str:
    return model.replace(":", ".") if ":" in model else str(Path(model).with_suffix(""))


def _print_measurement(model: str, done: Measurement, *, to_stderr: bool) -> None:
    def tell(*lines: str) -> None:
        say(*lines, err=to_stderr)

    dataset = done.dataset
    points = f"{len(done.points):,} of {len(dataset.test.y):,} test points of {dataset.name}"
    tell(f"{model} on {points}, normalise: {dataset.normalise}")
    for note in done.notes:
        tell(note)
    tell("", f"{'':32}{'mean':>12}{'std. error':>12}{'points':>8}")
    for label, mean in done.table().items():
        tell(f"{label:32}{number(mean.value, 4):>12}{number(mean.standard_error, 2):>12}{mean.count:>8,}")
    if done.values.correct is not None and done.dataset.classes <= MOST_CLASSES:
        tell("", f"{'class':24}{'points':>8}{'accuracy':>12}{'std. error':>12}{'Jacobian norm':>16}{'std. error':>12}")
        for name, points, *numbers in done.per_class().itertuples(index=False):
            accuracy, accuracy_error, norm, norm_error = numbers
            tell(f"{name:24.24}{points:>8,}{accuracy:>12.4g}{accuracy_error:>12.2g}{norm:>16.4g}{norm_error:>12.2g}")
    if done.detection is not None:
        tell("", "scores as detectors of wrong points, with 95% intervals")
        tell(f"{'':16}{'AUROC':>24}{'AUGRC':>26}{'AUROC minus that of 1 - max p':>32}")
        for name, row in done.detection.iterrows():
            cells = [_interval(row, column) for column in ("auroc", "augrc", "auroc_difference")]
            tell(f"{name!s:16}{cells[0]:>24}{cells[1]:>26}{cells[2] if name != '1 - max p' else '':>32}")
        tell(done.verdict)
    if done.bounds:
        shares = f"{done.bounds.inside:.1%} within (5), {done.bounds.above:.1%} above (6)"
        tell(f"bounds of the paper's A.3: {shares}, {done.bounds.near:.1%} within a factor of two of (7)")


def _interval(row: Any, column: str) -> str:
    form = {"auroc": ".3f", "augrc": ".4f", "auroc_difference": "+.4f"}[column]
    value, low, high = (format(row[f"{column}{end}"], form) for end in ("", "_low", "_high"))
    return f"{value} [{low}, {high}]"


@click.command()
@click.argument("models", nargs=-1, required=True, type=TEXT, metavar="MODEL MODEL...")
@click.option("--weights", type=FILE, multiple=True, help="Of package.module:factory; once per such model, in order.")
@_options
def compare(
    models: tuple[str, ...],
    weights: tuple[Path, ...],
    data: str,
    normalise: str | None,
    crop: int | None,
    size: int | None,
    trust_pickle: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """
    Compare two or more MODELs on the same test points: differences with paired standard errors, and what can be told.

    Give MODEL as for measure; a factory may be given several times, with one --weights per time.
    """
    _say_begun(f"comparing {' and '.join(models)} on {data}", to_stdout=not as_json)
    from ..data.opening import open_data
    from ..measuring.comparison import compare as compare_models
    from ..models.opening import open_model

    factories = [place for place, model in enumerate(models) if ":" in model]
    if weights and len(weights) != len(factories):
        raise InvalidInputError(
            f"--weights must be given once per package.module:factory, of which there are {len(factories)}; got {len(weights)}"
        )
    weights_of = dict(zip(factories, weights, strict=False))
    names = [str(weights_of.get(place, model)) for place, model in enumerate(models)]
    if len(set(names)) < len(names):
        raise InvalidInputError(f"the models must be different ones; got {', '.join(names)}")
    dataset = open_data(data, normalise=normalise, crop=crop, size=size)
    opened = {
        name: open_model(model, weights=weights_of.get(place), trust_pickle=trust_pickle)
        for place, (name, model) in enumerate(zip(names, models, strict=True))
    }
    comparison = compare_models(opened, dataset, **_measuring_options(**options))
    table = comparison.table()
    notes = {name: list(measurement.notes) for name, measurement in comparison.measurements.items() if measurement.notes}
    if as_json:
        records = table.to_dict("records")
        say_json({"data": dataset.name, "normalise": dataset.normalise, "notes": notes, "rows": records})
        return
    points = f"{int(table.points.max()):,} of {len(dataset.test.y):,} test points"
    say(f"{len(models)} models on the same {points} of {dataset.name}, normalise: {dataset.normalise}")
    for name, lines in notes.items():
        for line in lines:
            say(f"{name}: {line}")
    for (a, b), rows in table.groupby(["a", "b"], sort=False):
        say("", f"A = {a}", f"B = {b}", f"{'':24}{'A':>10}{'B':>10}{'A - B':>12}  {'95% interval':24}")
        for row in rows.itertuples():
            low: Any = row.low
            interval = f"[{low:+.4g}, {row.high:+.4g}]" if math.isfinite(low) else "[too few points]"
            say(f"{row.quantity:24}{row.value_a:>10.4g}{row.value_b:>10.4g}{row.difference:>+12.4g}  {interval:24}{row.verdict}")
    if comparison.caution:
        say("", comparison.caution)
