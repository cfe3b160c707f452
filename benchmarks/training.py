"""
Training: Sensitometer's engine beside `nn.Module` + `torch.optim` as a user writes them on stock torch, and the machine's peak.

Momentum, minibatches of 256. Timed are the epochs of both, shuffling and all, not the initialisation and the final evaluation.
The user's loop trains one network after another, so its network-steps a second do not depend on how many there are.
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from interleaved import Contender, main, peak, ratio

from sensitometer import matmul

POINTS, BATCH, CLASSES = 2560, 256, 10
SECONDS = 0.7  # of one measurement

CASES = [
    {"inputs": 784, "width": 100, "depth": 3, "networks": 1, "seeds": 1},
    {"inputs": 784, "width": 200, "depth": 5, "networks": 1, "seeds": 1},
    {"inputs": 784, "width": 1000, "depth": 5, "networks": 1, "seeds": 1},
    {"inputs": 64, "width": 64, "depth": 3, "networks": 1, "seeds": 1},
    {"inputs": 64, "width": 64, "depth": 3, "networks": 8, "seeds": 8},
    {"inputs": 64, "width": 8, "depth": 3, "networks": 128, "seeds": 128},
    {"inputs": 64, "width": 8, "depth": 3, "networks": 128, "seeds": 8},
]


def _flops(case: Mapping[str, Any]) -> float:
    from sensitometer.configuration import Configuration
    from sensitometer.survey.cost import training_flops

    one_step = Configuration("random", case["width"], case["depth"], batch_size=BATCH, steps=1)
    return training_flops(one_step, case["inputs"], CLASSES)


def _steps_for(case: Mapping[str, Any]) -> int:
    # As if at 40 GFLOP/s; in whole epochs.
    steps = SECONDS * 40e9 / (_flops(case) * case["networks"])
    return max(1, round(steps / (POINTS // BATCH))) * (POINTS // BATCH)


def ours(case: Mapping[str, Any]) -> Callable[[], float]:
    """Train a stack by `train_stack`; network-steps a second."""
    import torch

    from sensitometer.configuration import Configuration
    from sensitometer.data import Dataset, Points
    from sensitometer.training import train_stack

    torch.set_flush_denormal(True)
    stream = torch.Generator().manual_seed(0)
    points = Points(torch.randn(POINTS, case["inputs"], generator=stream), torch.randint(CLASSES, (POINTS,), generator=stream))
    few = Points(points.x[:BATCH], points.y[:BATCH])
    dataset = Dataset("random", points, few, CLASSES, (1, 1, case["inputs"]))
    steps = _steps_for(case)
    stack = [
        # The learning rate tells networks of one seed apart.
        Configuration("random", case["width"], case["depth"], steps=steps, seed=i % case["seeds"], learning_rate=1e-3 + 1e-6 * i)
        for i in range(case["networks"])
    ]

    def measure() -> float:
        return steps * len(stack) / sum(one.seconds for one in train_stack(stack, dataset))

    return measure


def theirs(case: Mapping[str, Any]) -> Callable[[], float]:
    """Train one network by an `nn.Sequential` and `torch.optim.SGD`; network-steps a second."""
    import torch
    from torch import nn

    torch.set_flush_denormal(True)
    x, y = torch.randn(POINTS, case["inputs"]), torch.randint(CLASSES, (POINTS,))
    steps = max(1, _steps_for(case) * case["networks"] // 2)

    def measure() -> float:
        sizes = [case["inputs"], *[case["width"]] * (case["depth"] - 1)]
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(sizes):
            layers += [nn.Linear(fan_in, fan_out, bias=False), nn.ReLU()]
        model = nn.Sequential(*layers, nn.Linear(case["width"], CLASSES, bias=False))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        loss_function = nn.CrossEntropyLoss()
        start, done = time.perf_counter(), 0
        while done < steps:
            for batch in torch.randperm(POINTS).split(BATCH):
                optimizer.zero_grad()
                loss_function(model(x[batch]), y[batch]).backward()
                optimizer.step()
                done += 1
        return done / (time.perf_counter() - start)

    return measure


def table(cases: Sequence[Mapping[str, Any]], rates: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Lay the results out; the last column is what the second last of 1.00 would be worth, on this machine."""
    rows = [
        "| inputs, width, depth | networks (seeds) | ours, steps/s | torch.optim | times | share of peak | times at the peak |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, rate in zip(cases, rates, strict=True):
        share = ratio(rate, "ours", "peak") * _flops(case)
        rows.append(
            f"| {case['inputs']}, {case['width']}, {case['depth']} | {case['networks']} ({case['seeds']}) "
            f"| {median(rate['ours']):,.0f} | {median(rate['theirs']):,.0f} | {ratio(rate, 'ours', 'theirs'):.1f} "
            f"| {share:.2f} | {ratio(rate, 'peak', 'theirs') / _flops(case):.1f} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    best = matmul.choose().path
    contenders = [Contender("ours", ours, best), Contender("theirs", theirs, matmul.STOCK), Contender("peak", peak, best)]
    main("Training, momentum, minibatches of 256, float32", contenders, CASES, table)
