"""
The stack sizes that surveys choose beside all others, and the seconds that `plan` predicts beside those measured.

    python benchmarks/stack_sizes.py

For networks of each shape, data set and minibatch size, steps of stacks of 1, 2, 4, ... networks are taken, and timed in rounds
that alternate between the sizes; the best round counts. Every second network has a seed of its own.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from statistics import median

from interleaved import _machine, record

from sensitometer import matmul

TITLE = "Stack sizes, and predicted times of steps"
# Inputs and minibatch sizes of the surveys that are shipped, and shapes.
DATA = ((64, 64), (784, 256), (768, 50), (3072, 128))
WIDTHS, DEPTHS = (4, 8, 16, 32, 64, 100, 128, 200, 256, 512), (2, 5, 9)
CLASSES, POINTS = 10, 2048
ROUNDS = 3
# Seconds of one measurement, about; numbers that a step may work on, several times those of the sizes that are chosen.
MEASURED_SECONDS, MOST_NUMBERS = 0.01, 2**23


def step(device: str, networks: int, inputs: int, width: int, depth: int, batch_size: int) -> Callable[[], None]:
    """Return a step of a stack of untrained networks."""
    import torch

    from sensitometer.configuration import Configuration
    from sensitometer.networks import layer_shapes
    from sensitometer.training.backpropagation import TrainingStack
    from sensitometer.training.cuda_graph import GraphedStep

    stream = torch.Generator().manual_seed(0)
    configurations = [Configuration("any", width, depth, batch_size=batch_size, seed=place // 2) for place in range(networks)]
    layers = [
        torch.randn(shape, generator=stream).div_(shape[1] ** 0.5).to(device)
        for shape in layer_shapes(inputs, width, depth, CLASSES)
    ]
    rates = torch.full((networks,), 1e-6, device=device)
    stack = TrainingStack([layer.expand(networks, -1, -1) for layer in layers], rates, configurations)
    x = torch.randn(POINTS, inputs, generator=stream).to(device)
    index = torch.randint(POINTS, (len(stack.seeds) * batch_size,), generator=stream).to(device)
    labels = torch.randint(CLASSES, (networks, 1, batch_size), generator=stream).to(device)
    take = GraphedStep(stack) if device == "cuda" else stack.step

    def prepared() -> None:
        stack.optimizer.prepare()
        take(x, index, labels, None)

    return prepared


def seconds(taken: Callable[[], None], device: str) -> float:
    """Return the seconds of one step, over some MEASURED_SECONDS: on a processor those of this thread."""
    import torch

    clock = time.perf_counter if device == "cuda" else time.thread_time

    def steps(count: int) -> float:
        start = clock()
        for _ in range(count):
            taken()
        if device == "cuda":
            torch.cuda.synchronize()
        return (clock() - start) / count

    return steps(max(1, round(MEASURED_SECONDS / steps(4))))


def case(device: str, inputs: int, batch_size: int, width: int, depth: int) -> tuple[str, float, list[float]]:
    """Return a row of the table, the time of the size chosen by the best one's, and the predicted times by those measured."""
    from sensitometer.configuration import Configuration
    from sensitometer.survey.scheduling.cost import Sizes, number_of_weights, step_seconds
    from sensitometer.survey.scheduling.machines import ANY_GPU, this_machine
    from sensitometer.survey.scheduling.stacks import LIMITS, choose_stack_sizes

    sizes = Sizes(inputs, CLASSES, POINTS, POINTS)
    network = Configuration("any", width, depth, batch_size=batch_size)
    numbers = number_of_weights(network, inputs, CLASSES) + batch_size * (width * (depth - 1) + inputs // 2)
    most = max(1, min(LIMITS[device].networks, MOST_NUMBERS * (1 if device == "cpu" else 64) // numbers))
    tried = [2**power for power in range(most.bit_length())]
    alike = [network.with_seed(seed) for seed in range(most)]
    (chosen,) = choose_stack_sizes(alike, {"any": sizes}, device).values()
    takers = {count: step(device, count, inputs, width, depth, batch_size) for count in tried}
    best = {count: min(seconds(taken, device) for _ in range(ROUNDS)) for count, taken in takers.items()}
    each = {count: 1e6 * value / count for count, value in best.items()}
    machine = this_machine() if device == "cpu" else ANY_GPU
    predicted = [
        step_seconds(network, count, (count + 1) // 2, sizes, machine) / best[count] for count in tried if count <= chosen
    ]
    loss = each[chosen] / min(each.values())
    columns = [f"{inputs} x {batch_size}", width, depth, chosen, f"{each[1]:,.1f}", f"{each[chosen]:,.1f}"]
    columns += [f"{min(each.values()):,.1f} ({min(each, key=lambda count: each[count])})", f"{loss:.2f}", f"{predicted[-1]:.2f}"]
    return "| " + " | ".join(map(str, columns)) + " |", loss, predicted


def main() -> None:
    """Measure, print and, when asked, record."""
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--record", metavar="NAME", help="also write it to benchmarks/records/DATE-NAME.md")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    arguments = parser.parse_args()
    matmul.activate(matmul.choose().path if arguments.device == "cpu" else matmul.STOCK)
    import torch

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    measure = partial(case, arguments.device)
    rows, losses, predictions = zip(*(measure(*data, *shape) for data in DATA for shape in product(WIDTHS, DEPTHS)), strict=True)
    ratios = sorted(ratio for each in predictions for ratio in each)
    low, high = ratios[len(ratios) // 20], ratios[-len(ratios) // 20]
    table = "\n".join(rows)
    text = f"""# {TITLE}

{_machine(arguments.device)}

Microseconds of a step, per network: alone, in a stack of the size chosen, in the fastest stack (its size).

| inputs x minibatch | width | depth | size chosen | alone | chosen | fastest | chosen / fastest | predicted / measured |
|---|---|---|---|---|---|---|---|---|
{table}

Chosen by fastest: {median(losses):.3f} in the median, {max(losses):.2f} at most. Predicted by measured seconds, of sizes up to
the chosen one: {median(ratios):.2f} in the median, nine of ten from {low:.2f} to {high:.2f}.
"""
    print(text)
    if arguments.record:
        record(arguments.record, text, " ".join(sys.argv[1:]))


if __name__ == "__main__":
    main()
