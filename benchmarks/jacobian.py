"""
Jacobian norms: Sensitometer's structured pass beside `vmap(jacrev)` as a user would write it on stock torch, in its best chunks.

Both give the norm of the Jacobian of the probabilities at each point; ours gives the logits' as well.

The share of the peak, that of float32, is of the method's own operations. Of these the points' forward pass is in float64, where
each takes twice the time, and counts twice.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from interleaved import Contender, main, peak, ratio

from sensitometer import matmul

# A whole test set where that takes seconds. With few points the start-up shows, a factorisation of the first layer.
CASES = [
    {"inputs": 784, "width": 200, "depth": 5, "classes": 10, "points": 10_000},
    {"inputs": 3072, "width": 200, "depth": 5, "classes": 10, "points": 10_000},
    {"inputs": 784, "width": 1000, "depth": 5, "classes": 100, "points": 500},
    {"inputs": 3072, "width": 1000, "depth": 5, "classes": 100, "points": 500},
    # Networks of quick surveys.
    {"inputs": 64, "width": 8, "depth": 2, "classes": 10, "points": 2000},
    {"inputs": 64, "width": 8, "depth": 3, "classes": 10, "points": 2000, "networks": 16},
    {"inputs": 64, "width": 16, "depth": 3, "classes": 10, "points": 2000},
    {"inputs": 64, "width": 32, "depth": 4, "classes": 10, "points": 2000},
    {"inputs": 64, "width": 64, "depth": 5, "classes": 10, "points": 2000},
    {"inputs": 64, "width": 128, "depth": 6, "classes": 10, "points": 2000},
    {"inputs": 64, "width": 256, "depth": 9, "classes": 10, "points": 2000},
]
CHUNKS = (20, 100, 500)


def _stack(case: Mapping[str, Any]) -> tuple[Any, Any]:
    import torch

    from sensitometer.networks import MLPStack, initial_weights, layer_shapes

    shapes = layer_shapes(case["inputs"], case["width"], case["depth"], case["classes"])
    points = torch.randn(case["points"], case["inputs"], generator=torch.Generator().manual_seed(0))
    drawn = [initial_weights(shapes, "relu", 1.0, seed=1 + network) for network in range(_networks(case))]
    return MLPStack([torch.stack(layer) for layer in zip(*drawn, strict=True)], "relu"), points


def _networks(case: Mapping[str, Any]) -> int:
    return int(case.get("networks", 1))


def ours(case: Mapping[str, Any]) -> Callable[[], float]:
    """Both norms by `jacobian_norms`; points a second, of all networks together."""
    from sensitometer.measures import jacobian_norms

    stack, x = _stack(case)

    def measure() -> float:
        start = time.perf_counter()
        jacobian_norms(stack, x)
        return len(stack) * len(x) / (time.perf_counter() - start)

    return measure


def theirs(case: Mapping[str, Any]) -> Callable[[], float]:
    """`vmap(jacrev)` of the softmax of an `nn.Sequential`, one network's; points a second."""
    import torch
    from torch import nn

    stack, x = _stack(case)
    layers: list[nn.Module] = []
    for weight in stack[0].weights:
        layers += [nn.Linear(weight.shape[1], weight.shape[0], bias=False), nn.ReLU()]
        with torch.no_grad():
            layers[-2].weight.copy_(weight)
    model = nn.Sequential(*layers[:-1], nn.Softmax(-1))

    def run(chunk: int) -> float:
        start = time.perf_counter()
        torch.func.vmap(torch.func.jacrev(model), chunk_size=chunk)(x).flatten(1).norm(dim=1)
        return len(x) / (time.perf_counter() - start)

    best = max(CHUNKS, key=run)
    return lambda: run(best)


def _flops(case: Mapping[str, Any]) -> float:
    from sensitometer.configuration import Configuration
    from sensitometer.survey.scheduling.cost import jacobian_flops

    return jacobian_flops(Configuration("random", case["width"], case["depth"]), case["inputs"], case["classes"], points=1)


def table(cases: Sequence[Mapping[str, Any]], rates: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Lay the results out; the last column is what the second last of 1.00 would be worth, on this machine."""
    rows = [
        "| inputs, width, depth | networks | classes | points | ours, points/s | vmap(jacrev) | times "
        "| share of peak | times at the peak |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case, rate in zip(cases, rates, strict=True):
        rows.append(
            f"| {case['inputs']}, {case['width']}, {case['depth']} | {_networks(case)} | {case['classes']} "
            f"| {case['points']:,} "
            f"| {median(rate['ours']):,.0f} | {median(rate['theirs']):,.0f} | {ratio(rate, 'ours', 'theirs'):.1f} "
            f"| {ratio(rate, 'ours', 'peak') * _flops(case):.2f} | {ratio(rate, 'peak', 'theirs') / _flops(case):.1f} |"
        )
    rows += ["", "The share is of the float32 peak; operations in float64, of the points' forward pass, count twice."]
    return "\n".join(rows)


if __name__ == "__main__":
    best = matmul.choose().path
    contenders = [Contender("ours", ours, best), Contender("theirs", theirs, matmul.STOCK), Contender("peak", peak, best)]
    main("Jacobian norms of the probabilities, exact, float32", contenders, CASES, table)
