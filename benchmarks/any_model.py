"""
Jacobian norms of any model: ours beside the two programs that a user would write by hand, both numerically stable.

All give the norm of the Jacobian of the probabilities at each point, from rows of `diag(p) - p p^T` in float64. `loop` pulls one
row after the other back through batches of points, `batched` all rows at once (`is_grads_batched`, the backward pass vmapped);
each in its best batch size. Ours has two forward passes more, which check that points are treated alone.

The last columns are the memory at the peak above that of the model and its points, in a process of its own.
"""

import itertools
import multiprocessing
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from interleaved import Contender, main, ratio

from sensitometer import matmul

CASES = [
    {"model": "MLP 64-64-64-10", "points": 2000},
    {"model": "MLP 784-200-200-100", "points": 500},
    {"model": "CNN, 28 x 28", "points": 500},
    {"model": "ResNet-20, 32 x 32 x 3", "points": 64},
    {"model": "ViT, 32 x 32 x 3", "points": 64},
    # All rows at once would take gigabytes, and more time.
    {"model": "CNN, 224 x 224 x 3, 1,000 classes", "points": 1, "memory": True, "contenders": ("ours", "loop")},
]


def _model(name: str) -> tuple[Any, tuple[int, ...]]:
    """Return a model, and the shape of its points."""
    import torch
    from resnet20 import ResNet20
    from torch import nn

    def dense(*widths: int) -> nn.Module:
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    torch.manual_seed(0)
    if name.startswith("MLP"):
        widths = [int(width) for width in name.removeprefix("MLP ").split("-")]
        return dense(*widths).eval(), (widths[0],)
    if name.startswith("ResNet"):
        return ResNet20().eval(), (3, 32, 32)
    if name.startswith("ViT"):
        return _vit().eval(), (3, 32, 32)
    if "1,000" in name:
        stages = [nn.Conv2d(3, 16, 7, 2, 3), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        for inputs, outputs in ((16, 32), (32, 64), (64, 256)):
            stages += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        return nn.Sequential(*stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 1000)).eval(), (3, 224, 224)
    layers = nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()
    return nn.Sequential(*layers, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(1568, 10)).eval(), (1, 28, 28)


def _vit() -> Any:
    """Make a vision transformer of four blocks, of width 64, on patches of 4 x 4 pixels."""
    import torch
    from torch import Tensor, nn

    class ViT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.positions = nn.Conv2d(3, 64, 4, 4), nn.Parameter(0.1 * torch.randn(1, 64, 64))
            layer = nn.TransformerEncoderLayer(64, 4, 128, activation="gelu", batch_first=True, norm_first=True)
            self.blocks, self.head = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), nn.Linear(64, 10)

        def forward(self, x: Tensor) -> Tensor:
            h = self.patches(x).flatten(2).transpose(1, 2) + self.positions
            return self.head(self.blocks(h).mean(1))

    return ViT()


def _memory(name: str) -> float:
    """Return the memory of this process, `VmRSS`, or the most that it has had, `VmHWM`, in MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024


def _grown(program: str, case: Mapping[str, Any], size: int) -> float:
    """Return by how many MiB this process, a fresh one, grows at most."""
    import torch

    torch.set_num_threads(1)
    model, x = _model_and_points(case)
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the most so far is now
    PROGRAMS[program](model, x, size)
    return _memory("VmHWM") - before


def _model_and_points(case: Mapping[str, Any]) -> tuple[Any, Any]:
    import torch

    model, shape = _model(case["model"])
    return model, torch.randn(case["points"], *shape, generator=torch.Generator().manual_seed(1))


def _timed(program: str, case: Mapping[str, Any]) -> Callable[[], Any]:
    """Return what measures a program once, in the best of its sizes: points a second, and memory."""
    model, x = _model_and_points(case)

    def rate(size: int) -> float:
        start = time.perf_counter()
        PROGRAMS[program](model, x, size)
        return len(x) / (time.perf_counter() - start)

    sizes = [size for size in SIZES[program] if size < 2 * len(x)] or [1]
    rate(sizes[0])
    best = max(sizes, key=rate) if len(sizes) > 1 else sizes[0]
    memory = 0.0
    if case.get("memory"):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            memory = pool.apply(_grown, (program, case, best))
    return lambda: {"rate": rate(best), "memory": memory, "size": best}


def ours(model: Any, x: Any, _: int) -> Any:
    """`jacobian_norm`, of any model."""
    from sensitometer.measures import jacobian_norm

    return jacobian_norm(model, x)


def _weights(outputs: Any, row: int) -> Any:
    """Return a row of the softmax's Jacobian at each point, float64, with a diagonal that is not rounded to 0."""
    p = outputs.detach().double().softmax(1)
    weights = -p[:, row : row + 1] * p
    weights[:, row] = p[:, row] * (p[:, :row].sum(1) + p[:, row + 1 :].sum(1))
    return weights


def loop(model: Any, x: Any, size: int) -> Any:
    """Pull one row after the other back."""
    import torch

    norms = []
    for chunk in x.split(size):
        points = chunk.clone().requires_grad_()
        outputs = model(points)
        squares = torch.zeros(len(chunk), dtype=torch.float64)
        for row in range(outputs.shape[1]):
            weights = _weights(outputs, row).to(outputs.dtype)
            (slopes,) = torch.autograd.grad(outputs, points, weights, retain_graph=True)
            squares += slopes.flatten(1).double().square().sum(1)
        norms.append(squares.sqrt())
    return torch.cat(norms)


def batched(model: Any, x: Any, size: int) -> Any:
    """Pull all rows back at once."""
    import torch

    norms = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of operations that torch does one by one
        for chunk in x.split(size):
            points = chunk.clone().requires_grad_()
            outputs = model(points)
            p = outputs.detach().double().softmax(1)
            others = (p.unsqueeze(1) * (1 - torch.eye(p.shape[1], dtype=p.dtype))).sum(2)
            weights = -p.unsqueeze(2) * p.unsqueeze(1)
            weights.diagonal(dim1=1, dim2=2).copy_(p * others)
            rows = weights.transpose(0, 1).to(outputs.dtype)
            (slopes,) = torch.autograd.grad(outputs, points, rows, is_grads_batched=True)
            norms.append(slopes.flatten(2).double().square().sum((0, 2)).sqrt())
    return torch.cat(norms)


# By name: the program, and the points at once of which it takes the best.
PROGRAMS: dict[str, Callable[[Any, Any, int], Any]] = {"ours": ours, "loop": loop, "batched": batched}
SIZES = {"ours": (1,), "loop": (16, 64, 256, 1024), "batched": (1, 4, 16, 64, 256, 512)}


def table(cases: Sequence[Mapping[str, Any]], rates: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Lay the results out: rates, our time over that of the better of the others, and memory."""
    rows = [
        "| model | points | ours, points/s | loop | of points | batched | of points | our time over the better's "
        "| ours, MiB | loop |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case, rate in zip(cases, rates, strict=True):
        others = [name for name in ("loop", "batched") if name in rate]
        better = max(others, key=lambda name: median(rate[name]))
        theirs = " | ".join(f"{median(rate[name]):,.2f} | {rate[f'{name} size'][0]:.0f}" for name in others)
        memory = [f"{rate[f'{name} memory'][0]:,.0f}" if case.get("memory") else "" for name in ("ours", "loop")]
        rows.append(
            f"| {case['model']} | {case['points']:,} | {median(rate['ours']):,.2f} "
            f"| {theirs}{'' if len(others) > 1 else ' | | '} | {ratio(rate, better, 'ours'):.2f} | {' | '.join(memory)} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    best = matmul.choose().path
    contenders = [Contender(name, partial(_timed, name), best) for name in PROGRAMS]
    main("Jacobian norms of the probabilities, of any model, exact, float32", contenders, CASES, table)
