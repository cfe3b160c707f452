"""Commands about this machine: its data sets and how fast and right it computes."""

from __future__ import annotations

import click

from .. import __version__
from ..errors import dimensions
from .arguments import TEXT
from .printing import say


@click.group()
def data() -> None:
    """List and fetch the data sets."""


@data.command("list")
def list_() -> None:
    """List the data sets, and where they are on this machine."""
    from ..data import list_datasets

    say(f"{'name':14} {'train':>7} {'test':>7} {'classes':>8}  {'image':12} where")
    for status in list_datasets():
        source, where = status.source, status.folder or "part of scikit-learn"
        missing = f" (not there: sensitometer data fetch {source.name})" if status.missing else ""
        numbers = f"{source.train.points:>7,} {source.test.points:>7,} {source.classes:>8}"
        say(f"{source.name:14} {numbers}  {dimensions(source.image_shape):12} {where}{missing}")


@data.command()
@click.argument("name", type=TEXT)
def fetch(name: str) -> None:
    """Fetch the data set NAME from where its authors publish it."""
    from ..data.fetching import fetch_dataset

    fetched = fetch_dataset(name, progress=True)
    if fetched.folder is None:
        say(f"{name} is part of a library and needs no fetching")
    elif fetched.downloaded:
        say(f"{name}: {', '.join(fetched.downloaded)} fetched into {fetched.folder}")
    else:
        say(f"{name}: already in {fetched.folder}, and sound")


@click.command()
def doctor() -> None:
    """
    Check this machine: versions, device, and the matrix products, how fast and how right.

    `plan` predicts times from the rates that it measures.
    """
    import importlib.metadata
    import platform
    from statistics import median

    import torch

    from .. import matmul
    from ..survey.scheduling.plan import default_workers

    choice = matmul.choose(fresh=True)
    say(f"sensitometer    {__version__}")
    say(f"python          {platform.python_version()}")
    for package in ("torch", "numpy", "numba"):
        say(f"{package:15} {importlib.metadata.version(package)}")
    say(f"processor       {matmul.processor()}, {default_workers()} workers")
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    say(f"cuda            {', '.join(gpus) or 'no device'}")
    say("matrix products, float32, one thread, GFLOP/s (median of alternating rounds)")
    shapes = [f"{networks} x {out}x{inner}x{points}" for networks, out, inner, points in matmul.PROBE_SHAPES]
    say(f"  {'path':14}" + "".join(f"{shape:>20}" for shape in shapes) + f"{'error vs float64':>20}")
    for probe in choice.probes:
        rates = "".join(f"{median(rounds):>20.0f}" for rounds in zip(*probe.rates, strict=True))
        say(f"  {probe.path:14}{rates}{probe.error:>20.1e}")
    say(f"path used       {choice.path}: {choice.reason}")
    say(f"an operation    {choice.operation * 1e6:.2f} µs of torch, whatever its size")
