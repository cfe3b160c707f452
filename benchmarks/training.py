"""
Training: Sensitometer's engine, `nn.Module` + `torch.optim` as users write them, `torch.func` ensembling, and the machine's peak.

Minibatches of 256. Timed are whole epochs, shuffling and all, not the initialisation and the final evaluation. The user's loop
trains one network after another, so its network-steps a second do not depend on how many there are. `--profile` says where the
engine's time goes instead.
"""

import itertools
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from interleaved import TWINS, Contender, main, peak, ratio

from sensitometer import matmul

POINTS, BATCH, CLASSES = 2560, 256, 10
SECONDS = 0.6  # of one measurement
RATE, MOMENTUM = 1e-3, 0.9
OPTIMIZERS = ("sgd", "momentum", "adam", "rmsprop", "lbfgs")
AUGMENTATIONS = ("shift-flip", "shift-flip-rotate")


def _case(inputs: int, width: int, depth: int, networks: int, seeds: int, **settings: str) -> dict[str, Any]:
    shape = {"inputs": inputs, "width": width, "depth": depth, "networks": networks, "seeds": seeds}
    return {**shape, "optimizer": "momentum", "augmentation": "none", **settings}


SHAPES = [
    _case(784, 100, 3, 1, 1),
    _case(784, 200, 5, 1, 1),
    _case(784, 1000, 5, 1, 1),
    _case(64, 64, 3, 1, 1),
    _case(64, 64, 3, 8, 8),
    _case(64, 8, 3, 128, 128),
    _case(64, 8, 3, 128, 8),
]
MIXED = [SHAPES[0], SHAPES[1], SHAPES[4], SHAPES[6]]
# All settings of a shape follow one another: their ratios are taken within a minute.
SETTINGS = [
    {**shape, **change, "contenders": ("ours", "loop")}
    for shape in MIXED
    for change in [*({"optimizer": name} for name in OPTIMIZERS), *({"augmentation": name} for name in AUGMENTATIONS)]
]
CASES = [*SHAPES, *SETTINGS]


def _flops(case: Mapping[str, Any]) -> float:
    from sensitometer.configuration import Configuration
    from sensitometer.survey.scheduling.cost import step_flops

    one = Configuration("random", case["width"], case["depth"], batch_size=BATCH)
    return step_flops(one, case["inputs"], CLASSES, POINTS)


def _steps_for(case: Mapping[str, Any]) -> int:
    # As if at 40 GFLOP/s, 4 TFLOP/s on a GPU; in whole epochs. An iteration of L-BFGS is an epoch.
    speed = 40e9 if case["device"] == "cpu" else 4e12
    steps = SECONDS * speed / (_flops(case) * case["networks"])
    return max(1, round(steps / (POINTS // BATCH))) * (POINTS // BATCH)


def _stack(case: Mapping[str, Any], steps: int) -> tuple[list[Any], Any]:
    """Return a case's configurations and data."""
    import torch

    from sensitometer.configuration import Configuration
    from sensitometer.data import Dataset, Points

    torch.set_flush_denormal(True)
    stream = torch.Generator().manual_seed(0)
    points = Points(torch.randn(POINTS, case["inputs"], generator=stream), torch.randint(CLASSES, (POINTS,), generator=stream))
    few = Points(points.x[:BATCH], points.y[:BATCH])
    side = round(case["inputs"] ** 0.5)
    dataset = Dataset("random", points, few, CLASSES, (1, side, side))
    settings = {"optimizer": case["optimizer"], "augmentation": case["augmentation"], "steps": steps}
    shape = ("random", case["width"], case["depth"])
    stack = [
        # The initial scale tells networks of one seed apart.
        Configuration(*shape, init_scale=1 + 1e-6 * i, learning_rate=RATE, seed=i % case["seeds"], **settings)
        for i in range(case["networks"])
    ]
    return stack, dataset


def ours(case: Mapping[str, Any]) -> Callable[[], float]:
    """Train a stack by `train_stack`; network-steps a second."""
    from sensitometer.training import train_stack

    full_batch = case["optimizer"] == "lbfgs"
    steps = max(3, _steps_for(case) * BATCH // POINTS) if full_batch else _steps_for(case)
    stack, dataset = _stack(case, steps)

    def measure() -> float:
        trained = train_stack(stack, dataset, device=case["device"])
        done = sum(one.steps_done for one in trained)
        return done * (POINTS / BATCH if full_batch else 1) / sum(one.seconds for one in trained)

    return measure


def loop(case: Mapping[str, Any]) -> Callable[[], float]:
    """Train one network by an `nn.Sequential` and `torch.optim`; network-steps a second."""
    import torch
    from torch import nn

    torch.set_flush_denormal(True)
    device = case["device"]
    x, y = torch.randn(POINTS, case["inputs"], device=device), torch.randint(CLASSES, (POINTS,), device=device)
    steps = max(1, _steps_for(case) * case["networks"] // 2)
    optimizers: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "sgd": lambda parameters: torch.optim.SGD(parameters, lr=RATE),
        "momentum": lambda parameters: torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM),
        "adam": lambda parameters: torch.optim.Adam(parameters, lr=RATE),
        "rmsprop": lambda parameters: torch.optim.RMSprop(parameters, lr=RATE, alpha=0.9),
        "lbfgs": lambda parameters: torch.optim.LBFGS(parameters, max_iter=1, history_size=10, line_search_fn="strong_wolfe"),
    }
    loss_function = nn.CrossEntropyLoss()

    def measure() -> float:
        model = _module(case).to(device)
        optimizer = optimizers[case["optimizer"]](model.parameters())

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = loss_function(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        start, done = time.perf_counter(), 0
        while done < steps:
            if case["optimizer"] == "lbfgs":
                optimizer.step(closure)  # type: ignore[arg-type]
                done += POINTS // BATCH
                continue
            for batch in torch.randperm(POINTS, device=device).split(BATCH):
                optimizer.zero_grad()
                loss_function(model(_moved(x[batch], case["augmentation"])), y[batch]).backward()
                optimizer.step()
                done += 1
        if device != "cpu":
            torch.cuda.synchronize()
        return done / (time.perf_counter() - start)

    return measure


def _module(case: Mapping[str, Any]) -> Any:
    from torch import nn

    sizes = [case["inputs"], *[case["width"]] * (case["depth"] - 1)]
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out, bias=False), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(case["width"], CLASSES, bias=False))


def _moved(x: Any, augmentation: str) -> Any:
    """Move each image of a minibatch as one writes it with torch: indices of rows and columns, and `where` for the flips."""
    import torch

    if augmentation == "none":
        return x
    count, side = len(x), round(x.shape[1] ** 0.5)
    images = x.view(count, side, side)
    coin = lambda: torch.rand(count, 1, 1, device=x.device) < 0.5  # noqa: E731
    images = torch.where(coin(), images.flip(2), images)
    if augmentation == "shift-flip-rotate":
        images = torch.where(coin(), images.flip(1), images)
        quarter = torch.randint(-1, 2, (count, 1, 1), device=x.device)
        images = torch.where(quarter == 1, images.rot90(1, (1, 2)), torch.where(quarter == -1, images.rot90(-1, (1, 2)), images))
    shifts = torch.randint(-4, 5, (2, count, 1), device=x.device)
    rows, columns = (torch.arange(side, device=x.device) - shifts) % side
    every = torch.arange(count, device=x.device).view(-1, 1, 1)
    return images[every, rows.unsqueeze(2), columns.unsqueeze(1)].flatten(1)


def ensemble(case: Mapping[str, Any]) -> Callable[[], float]:
    """Train a stack by `torch.func`: `vmap` of `grad` over stacked parameters, momentum by hand; network-steps a second."""
    import torch
    from torch.func import functional_call, grad, stack_module_state, vmap

    torch.set_flush_denormal(True)
    device, networks = case["device"], case["networks"]
    x, y = torch.randn(POINTS, case["inputs"], device=device), torch.randint(CLASSES, (POINTS,), device=device)
    steps = max(POINTS // BATCH, _steps_for(case) // 2)
    base = _module(case).to(device)

    def loss(parameters: dict[str, Any], inputs: Any, labels: Any) -> Any:
        return torch.nn.functional.cross_entropy(functional_call(base, parameters, (inputs,)), labels)

    gradient = vmap(grad(loss))

    def measure() -> float:
        parameters, _ = stack_module_state([_module(case).to(device) for _ in range(networks)])
        weights = {name: weight.detach() for name, weight in parameters.items()}
        velocities = {name: torch.zeros_like(weight) for name, weight in weights.items()}
        start, done = time.perf_counter(), 0
        while done < steps:
            orders = torch.stack([torch.randperm(POINTS, device=device) for _ in range(networks)])
            for batch in orders.split(BATCH, 1):
                found = gradient(weights, x[batch], y[batch])
                for name, velocity in velocities.items():
                    weights[name].sub_(velocity.mul_(MOMENTUM).add_(found[name]), alpha=RATE)
                done += 1
        if device != "cpu":
            torch.cuda.synchronize()
        return done * networks / (time.perf_counter() - start)

    return measure


def table(cases: Sequence[Mapping[str, Any]], rates: Sequence[Mapping[str, Sequence[float]]]) -> str:
    """Lay the results out."""
    rows = list(zip(cases, rates, strict=True))
    shapes, settings = rows[: len(SHAPES)], rows[len(SHAPES) :]
    return _shape_table(shapes) + (f"\n\n{_setting_table(settings)}" if settings else "")


def _shape(case: Mapping[str, Any]) -> str:
    return f"| {case['inputs']}, {case['width']}, {case['depth']} | {case['networks']} ({case['seeds']}) "


def _shape_table(rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Sequence[float]]]]) -> str:
    lines = [
        "Momentum. Rates are network-steps a second; *at the peak* is what the times would be at a share of 1.00: no program can",
        "do more on this machine.",
        "",
        "| inputs, width, depth | networks (seeds) | ours | torch.optim | torch.func | times torch.optim | at the peak "
        "| times torch.func | share of peak | two processes |",
        "|---" * 10 + "|",
    ]
    for case, rate in rows:
        share = ratio(rate, "ours", "peak") * _flops(case)
        twins = f"{ratio(rate, TWINS, 'ours'):.2f}" if TWINS in rate else "-"
        lines.append(
            f"{_shape(case)}| {median(rate['ours']):,.0f} | {median(rate['loop']):,.0f} | {median(rate['ensemble']):,.0f} "
            f"| {ratio(rate, 'ours', 'loop'):.1f} | {ratio(rate, 'peak', 'loop') / _flops(case):.1f} "
            f"| {ratio(rate, 'ours', 'ensemble'):.1f} | {share:.2f} | {twins} |"
        )
    return "\n".join(lines)


def _setting_table(rows: Sequence[tuple[Mapping[str, Any], Mapping[str, Sequence[float]]]]) -> str:
    lines = [
        "Every optimizer, and Momentum with augmentation. *Of Momentum* is the rate beside Momentum's on the same shape. For",
        f"L-BFGS a step is {BATCH} points of its full batch of {POINTS:,}, line search included.",
        "",
        "| inputs, width, depth | networks (seeds) | optimizer | augmentation | ours | torch.optim | times | of Momentum |",
        "|---" * 8 + "|",
    ]
    plain: dict[str, float] = {}
    for case, rate in rows:
        if case["optimizer"] == "momentum" and case["augmentation"] == "none":
            plain[_shape(case)] = median(rate["ours"])
    for case, rate in rows:
        one = median(rate["ours"])
        lines.append(
            f"{_shape(case)}| {case['optimizer']} | {case['augmentation']} | {one:,.0f} | {median(rate['loop']):,.0f} "
            f"| {ratio(rate, 'ours', 'loop'):.1f} | {one / plain[_shape(case)]:.2f} |"
        )
    return "\n".join(lines)


# Where a step's time goes, by the names of torch's operators.
PARTS = {
    "products": ("bmm", "baddbmm"),
    "activations": ("threshold", "relu", "clamp"),
    "softmax": ("softmax", "scatter"),
    "minibatch": ("index_select", "gather"),
    "optimizer": ("sub_",),
}


def profile() -> None:
    """Print where the time of each shape goes, in percent of the time of its steps, and the products' own share of the peak."""
    matmul.activate(matmul.choose().path)
    import torch
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    from sensitometer.training.active_networks import ActiveNetworks
    from sensitometer.training.minibatches import MinibatchRun
    from sensitometer.training.schedule import Schedule

    torch.set_num_threads(1)
    with profiler(activities=[ProfilerActivity.CPU]):
        torch.ones(1).sum()  # the first start takes a second
    print("| inputs, width, depth | networks (seeds) |", " | ".join(PARTS), "| the rest | products' share of peak |")
    print("|---" * (4 + len(PARTS)) + "|")
    for shape in SHAPES:
        case = {**shape, "device": "cpu"}
        steps = max(POINTS // BATCH, _steps_for(case) // 4)
        roof = max(peak(case)() for _ in range(5))
        networks = ActiveNetworks(*_stack(case, steps), Schedule(), None, torch.device("cpu"))
        run = MinibatchRun(networks)
        with profiler(activities=[ProfilerActivity.CPU]) as found:
            run.train()
        taken = sum(one.seconds for one in networks.ended.values())
        times = dict.fromkeys(PARTS, 0.0)
        for event in found.key_averages():
            for part, names in PARTS.items():
                if any(name in event.key for name in names):
                    times[part] += event.self_cpu_time_total / 1e6
                    break
        shares = [times[part] / taken for part in PARTS]
        speed = _flops(case) * steps * case["networks"] / times["products"] / roof
        cells = " | ".join(f"{100 * share:.0f}%" for share in [*shares, 1 - sum(shares)])
        print(f"{_shape(case)}| {cells} | {speed:.2f} |")


if __name__ == "__main__":
    if sys.argv[1:] == ["--profile"]:
        profile()
        sys.exit()
    best = matmul.choose().path
    contenders = [
        Contender("ours", ours, best),
        Contender("loop", loop, matmul.STOCK),
        Contender("ensemble", ensemble, matmul.STOCK),
        Contender("peak", peak, best),
    ]
    main("Training, minibatches of 256, float32", contenders, CASES, table, twins="ours", devices=("cpu", "cuda"))
