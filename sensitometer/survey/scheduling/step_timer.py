"""Takes training steps to time them, in a process that has torch already or in one of its own."""

import json
import sys
import time
from collections.abc import Callable

import torch

from ... import matmul
from ...activations import activation
from ...configuration import Configuration
from ...device import arithmetic, check_device
from ...errors import InvalidInputError
from ...networks import layer_shapes
from ...optimizers import optimizer_class
from ...training.augmentation import Augmentation
from ...training.backpropagation import TrainingStack, flat_layers
from ...training.cuda_graph import WARM_UP_STEPS, GraphedStep
from .speed import machine_memory

# Seconds that one measurement takes, at least. Of so many the shortest counts: in the others the machine had more to do.
MEASURED_SECONDS = 0.005
ROUNDS = 7
# Seconds of all rounds of long steps, about: little disturbs these, and two rounds are enough.
MOST_SECONDS, FEWEST_ROUNDS = 0.05, 2
POINTS = 2048
# Numbers that a part is timed on: as many as stay in the cache.
UNITS = 2**16


class StepTimer:
    """Times steps of stacks, and parts of them, on one device."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)

    def memory(self) -> int:
        """Return the bytes of memory of the GPU, or of this machine."""
        return torch.cuda.mem_get_info(self.device)[1] if self.device.type == "cuda" else machine_memory()

    def name(self) -> str:
        """Return the name of the GPU, or of this machine's processor."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else matmul.processor()

    def step(self, *shape: int) -> float:
        """Return the seconds of one step of a stack, given the fields of its `Shape`."""
        networks, seeds, inputs, width, depth, classes, batch_size = shape
        stream = torch.Generator().manual_seed(0)
        chosen = [Configuration("any", width, depth, batch_size=batch_size, seed=i * seeds // networks) for i in range(networks)]
        shapes = layer_shapes(inputs, width, depth, classes)
        layers = [torch.randn(shape, generator=stream).div_(shape[1] ** 0.5).to(self.device) for shape in shapes]
        rates = torch.full((networks,), 1e-6, device=self.device)
        stack = TrainingStack([layer.expand(networks, -1, -1) for layer in layers], rates, chosen)
        x = torch.randn(POINTS, inputs, generator=stream).to(self.device)
        index = torch.randint(POINTS, (len(stack.seeds) * batch_size,), generator=stream).to(self.device)
        labels = torch.randint(classes, (networks, 1, batch_size), generator=stream).to(self.device)
        step = GraphedStep(stack) if self.device.type == "cuda" else stack.step

        def one() -> None:
            stack.prepare()
            step(x, index, labels, None)

        return self._seconds(one)

    def part(self, setting: str, value: str) -> float:
        """Return the seconds of a part of the step: an activation a unit, an optimizer a weight, an augmentation a pixel."""
        numbers = torch.rand(UNITS, device=self.device)
        if setting == "activation":
            found = activation(value)
            delta = numbers.clone()

            def one() -> None:
                found.apply_(numbers)
                found.backward_(delta, numbers)

        elif setting == "optimizer":
            flat, layers = flat_layers([numbers.view(1, 256, -1)])
            optimizer = optimizer_class(value)(flat, layers, torch.full((1,), 1e-6, device=self.device))
            one = optimizer.step
        else:
            augmentation = Augmentation(value, (1, 16, 16), self.device)
            images = numbers.view(-1, 256)
            moves = augmentation.draw(len(images), torch.Generator()).to(self.device)
            out = torch.empty_like(images)

            def one() -> None:
                augmentation.apply(images, moves, out)

        return self._seconds(one) / UNITS

    def _seconds(self, one: Callable[[], None]) -> float:
        """Return the seconds of one call, at the best of several times."""
        # On a processor the thread's own, which do not count what other processes take of it.
        clock = time.perf_counter if self.device.type == "cuda" else time.thread_time

        def calls(count: int) -> float:
            start = clock()
            for _ in range(count):
                one()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            return (clock() - start) / count

        calls(WARM_UP_STEPS + 1 if self.device.type == "cuda" else 1)
        once = calls(1)
        count = max(1, round(MEASURED_SECONDS / once))
        rounds = min(ROUNDS, max(FEWEST_ROUNDS, round(MOST_SECONDS / (count * once))))
        return min(calls(count) for _ in range(rounds))


def serve(device: str) -> None:
    """Answer questions, a JSON list a line, of a method's name and its arguments, until standard input ends."""
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            check_device(device)
            with arithmetic(device):
                answer = getattr(StepTimer(device), method)(*arguments)
        except InvalidInputError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), flush=True)  # noqa: T201
