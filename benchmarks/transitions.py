"""
Transitions along paths: Sensitometer's exact count beside the paper's 2^20 samples, and beside regioncam (Rust, float32; PyPI).

    pip install regioncam==0.5.2 -c constraints.txt
    SENSITOMETER_DATA=... python benchmarks/transitions.py

The networks are relu networks without biases, random or trained for a few hundred steps; the paths are translations of MNIST's
test images, and a line through two of them. regioncam counts the breakpoints of straight lines; without it that row has no other.

The last lines are of a ResNet-20 with real weights, on 0.1% and 1% of the way from the first CIFAR10 test image to the second.
They need `../shared/models`, and CIFAR10 in `$SENSITOMETER_DATA`. Sampling counts the same if no unit crosses twice between two
samples, and finds the same regions if no two transitions are between two samples. The line says how many samples that takes, by
the exact positions, and how long these would take at the measured rate.
"""

import importlib.util
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from interleaved import Contender, main, peak, ratio

from sensitometer import matmul

TITLE = "Transitions along paths, exact, float64"
DATA = "SENSITOMETER_DATA"
INPUTS, CLASSES = 784, 10
SAMPLES = 2**20
# The least time of one measurement, s.
TIME = 0.3
TRAINING = {"train_points": 4000, "steps": 400, "batch": 128, "rate": 0.02}
SAMPLED, EXACT = ("exact", "sampled", "peak"), ("exact", "peak")
CASES: list[dict[str, Any]] = [
    {"path": "loop", "width": 200, "depth": 5, "trained": False, "contenders": SAMPLED},
    {"path": "loop", "width": 200, "depth": 5, "trained": True, "contenders": SAMPLED},
    {"path": "loop", "width": 200, "depth": 15, "trained": False, "contenders": SAMPLED},
    {"path": "loop", "width": 200, "depth": 15, "trained": True, "contenders": SAMPLED},
    {"path": "loops", "paths": 1000, "width": 200, "depth": 5, "trained": False, "contenders": EXACT},
    {"path": "loop", "width": 65_536, "depth": 2, "trained": False, "contenders": EXACT},
    {"path": "line", "width": 200, "depth": 15, "trained": False, "contenders": ("exact", "regioncam", "peak")},
]
WEIGHTS = Path(__file__).parents[2] / "shared" / "models" / "resnet20-cifar10.safetensors"
RESNET: list[dict[str, Any]] = [
    {"path": "resnet", "share": share, "trained": True, "contenders": SAMPLED} for share in (0.001, 0.01)
]
# Samples that are timed on the ResNet.
FEW_SAMPLES = 256


def _network(case: Mapping[str, Any]) -> Any:
    """Return the case's network, trained on MNIST if it says so; or the ResNet."""
    if case["path"] == "resnet":
        from resnet20 import resnet20

        return resnet20(WEIGHTS)
    from sensitometer import Configuration, load_dataset, train
    from sensitometer.networks import MLP, initial_weights, layer_shapes

    if not case["trained"]:
        return MLP(initial_weights(layer_shapes(INPUTS, case["width"], case["depth"], CLASSES), "relu", 1.0, seed=1), "relu")
    dataset = load_dataset("mnist", train_points=TRAINING["train_points"])
    shape = (case["width"], case["depth"], "relu", 1.0)
    configuration = Configuration(
        *("mnist", *shape, "momentum", TRAINING["rate"], TRAINING["batch"]), steps=TRAINING["steps"], seed=1
    )
    return train([configuration], dataset, jacobian_points=0)[0].network


def _paths(case: Mapping[str, Any]) -> Any:
    """Return the case's path, or its list of them."""
    import torch

    from sensitometer import load_dataset, paths

    if case["path"] == "resnet":
        from resnet20 import test_images

        begin, end = test_images(Path(os.environ[DATA]), 2).double()
        return paths.Polyline(torch.stack([begin, begin.lerp(end, case["share"])]), closed=False)
    images = load_dataset("mnist", train_points=TRAINING["train_points"]).test.x
    if case["path"] == "line":
        # So that the images are at a third and at two thirds of it.
        return paths.Polyline(images[:1].lerp(images[1:2], images.new_tensor([[-1.0], [2.0]])), closed=False)
    loops = [paths.translation(image.view(1, 28, 28)) for image in images[: case.get("paths", 1)]]
    return loops if "paths" in case else loops[0]


def _operations(network: Any, found: Any, path: Any) -> float:
    """
    Return the operations of the products that a path takes: of each hidden layer with the vertices and the breakpoints below.

    The breakpoints of the layer right below it are left out: they are interpolated, but for a few, which are not counted.
    """
    per_layer = found.per_layer.double().reshape(-1, found.per_layer.shape[-1]).mean(0)
    first = path[0] if isinstance(path, list) else path
    rows = per_layer.new_full(per_layer.shape, len(first.vertices) + first.closed)
    rows[2:] += per_layer[:-2].cumsum(0)
    return sum(2 * weight.numel() * float(row) for weight, row in zip(network.weights, rows, strict=False))


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Make a call again and again, for TIME; return how many a second, and what the last has returned."""
    start, calls, seconds = time.perf_counter(), 0, 0.0
    while seconds < TIME:
        found = call()
        calls, seconds = calls + 1, time.perf_counter() - start
    return calls / seconds, found


def exact(case: Mapping[str, Any]) -> Callable[[], dict[str, float]]:
    """`transitions`; paths a second."""
    from sensitometer.measures import transitions

    network, path = _network(case), _paths(case)
    if case["path"] == "resnet":
        needed = _samples_needed(network, path)

    def measure() -> dict[str, float]:
        rate, found = _timed(lambda: transitions(network, path))
        rate *= case.get("paths", 1)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        answer = {"rate": rate, "count": int(found.total.sum()), "memory": memory}
        if case["path"] == "resnet":
            return {**answer, "operations": _resnet_operations(found), **needed}
        return {**answer, "operations": _operations(network, found, path)}

    return measure


def _samples_needed(network: Any, path: Any) -> dict[str, int]:
    """Return how many samples tell transitions of one unit from one another, and how many tell all transitions."""
    import numpy as np

    from sensitometer.measures.regions.transitions import exact_crossings, path_graph

    _, crossings = exact_crossings(*path_graph(network, [path]), keep=True)
    order = np.lexsort((crossings.t, crossings.unit, crossings.stage))
    same = (np.diff(crossings.stage[order]) == 0) & (np.diff(crossings.unit[order]) == 0)
    gaps = {"to count": np.diff(crossings.t[order])[same], "to tell": np.diff(np.unique(crossings.t))}
    return {name: int(path.span / some.min()) + 2 if len(some) else 2 for name, some in gaps.items()}


def _resnet_operations(found: Any) -> float:
    """Return the operations of its convolutions at the ends of the path, and at the crossings of all stages below."""
    from resnet20 import CONVOLUTIONS

    rows = 2 + found.per_layer.cumsum(0).double()
    return sum(2 * products * float(row) for products, row in zip(CONVOLUTIONS, [2.0, *rows.tolist()], strict=False))


def sampled(case: Mapping[str, Any]) -> Callable[[], dict[str, float]]:
    """`transitions` by samples, with the first layer's products taken for the vertices alone; paths a second."""
    from sensitometer.measures import transitions

    network, path = _network(case), _paths(case)
    samples = FEW_SAMPLES if case["path"] == "resnet" else SAMPLES

    def measure() -> dict[str, float]:
        rate, found = _timed(lambda: transitions(network, path, method="sampled", samples=samples))
        return {"rate": rate, "count": int(found.total)}

    return measure


def regioncam(case: Mapping[str, Any]) -> Callable[[], dict[str, float]]:
    """Have regioncam do the same, with the line as a first layer of one input; lines a second."""
    import numpy as np
    import regioncam as rc

    begin, end = _paths(case).vertices.double().numpy()
    first, *others = (weight.numpy() for weight in _network(case).weights[:-1])
    direction, middle = (end - begin) @ first.T, (begin + end) / 2 @ first.T
    layers = [(direction[np.newaxis], middle), *((weight.T, np.zeros(len(weight))) for weight in others)]
    layers = [(np.ascontiguousarray(weight, np.float32), bias.astype(np.float32)) for weight, bias in layers]

    def walk() -> Any:
        line = rc.Regioncam1D(1.0)
        for weight, bias in layers:
            line.linear(weight, bias)
            line.relu()
        return line

    def measure() -> dict[str, float]:
        rate, line = _timed(walk)
        # Its vertices but the ends are the breakpoints.
        return {"rate": rate, "count": line.num_vertices - 2}

    return measure


def table(cases: Sequence[Mapping[str, Any]], rates: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Lay the results out: the table of the networks of the package, and what the ResNet took."""
    both = list(zip(cases, rates, strict=True))
    networks, resnet = ([one for one in both if (one[0]["path"] == "resnet") == which] for which in (False, True))
    lines = [_resnet_line(*one) for one in resnet]
    return "\n".join(([_networks_table(*zip(*networks, strict=True)), ""] if networks else []) + lines).rstrip()


def _resnet_line(case: Mapping[str, Any], rate: Mapping[str, Sequence[float]]) -> str:
    count, seconds = rate["exact count"][0], 1 / median(rate["exact"])
    count_samples, all_samples = (rate[f"exact {name}"][0] for name in ("to count", "to tell"))
    sampled = 1 / FEW_SAMPLES / median(rate["sampled"])
    share = ratio(rate, "exact", "peak") * rate["exact operations"][0]
    return (
        f"- ResNet-20, {case['share']:.1%} of the way: {count:,.0f} transitions in {seconds:.2f} s, {count / seconds:,.0f} per "
        f"second, {share:.2f} of the peak, {rate['exact memory'][-1] / 1e6:,.0f} MB for the process. By sampling, in float32, at "
        f"{1e3 * sampled:.1f} ms per sample: {count_samples:,.0f} samples, {count_samples * sampled:,.2f} s, would count them; "
        f"{all_samples:,.0f} samples, {all_samples * sampled:,.0f} s, would tell where each is."
    )


def _networks_table(cases: Sequence[Mapping[str, Any]], rates: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Lay the networks out; the last column is what the second last of 1.00 would be worth, on this machine."""
    rows = [
        "| network | path | ours, ms | other | its ms | times | our count | its count | share of peak | times at the peak |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case, rate in zip(cases, rates, strict=True):
        other = next((name for name in ("sampled", "regioncam") if name in rate), None)
        operations = rate["exact operations"][0]
        theirs = ["", "", "", "", ""]
        if other:
            theirs = [
                f"{SAMPLES:,} samples" if other == "sampled" else other,
                f"{1e3 / median(rate[other]):,.1f}",
                f"{ratio(rate, 'exact', other):,.1f}",
                f"{rate[f'{other} count'][0]:,.0f}",
                f"{ratio(rate, 'peak', other) / operations:,.0f}",
            ]
        name = f"{INPUTS}-{case['width']}x{case['depth'] - 1}-{CLASSES}{', trained' if case['trained'] else ''}"
        path = f"{case['paths']:,} loops, {median(rate['exact']):.0f} a second" if "paths" in case else case["path"]
        rows.append(
            f"| {name} | {path} | {1e3 / median(rate['exact']):,.1f} | {' | '.join(theirs[:3])} "
            f"| {rate['exact count'][0]:,.0f} | {theirs[3]} | {ratio(rate, 'exact', 'peak') * operations:.2f} | {theirs[4]} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    if not os.environ.get(DATA):
        raise SystemExit(f"this benchmark measures on MNIST: {DATA} must name the folder that has it")
    best = matmul.choose().path
    contenders = [Contender("exact", exact, best), Contender("sampled", sampled, best), Contender("peak", peak, best)]
    if importlib.util.find_spec("regioncam"):
        contenders.append(Contender("regioncam", regioncam, matmul.STOCK))
    else:
        print("regioncam is not installed: the line is measured without it", file=sys.stderr)
    if not WEIGHTS.exists():
        print(f"{WEIGHTS} is not there: the ResNet is left out", file=sys.stderr)
    # First, so that the memory of the process is theirs.
    cases = (RESNET if WEIGHTS.exists() else []) + CASES
    main(TITLE, contenders, [{"dtype": "float64", **case} for case in cases], table)
