"""The command that measures somebody's model."""

from __future__ import annotations

import math
from pathlib import Path

import click

from ..errors import SensitometerError


@click.command()
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
    from ..data import load_dataset
    from ..measuring import measure as measure_model
    from ..measuring import write_points
    from ..models.opening import open_model

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
    if done.bounds:
        shares = f"{done.bounds.inside:.1%} within (5), {done.bounds.above:.1%} above (6)"
        click.echo(f"bounds of the paper's A.3: {shares}, {done.bounds.near:.1%} within a factor of two of (7)")
    write_points(done, out)
    click.echo(f"points in {out}")
