"""
How fast stacks train on this machine: seconds a step, measured for each shape that a survey has, and remembered.

A step of many networks costs hardly more than that of one while they are narrow, and as many times more when they are wide; where
the one turns into the other depends on the machine. So the number of networks in a stack, and the time that `plan` predicts, come
from steps that were taken here. Imports torch only in the process that takes them.
"""

import contextlib
import json
import os
import subprocess
import sys
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

import msgspec
from filelock import FileLock

from ... import matmul
from ...errors import InvalidInputError, WorkerError

FILE = "speeds.json"
# Wider layers run at the rate of these.
WIDEST_MEASURED = 1024
# Depths at which steps are measured; between and beyond them each layer costs the same.
SHALLOW, DEEP = 2, 5
# Larger stacks are measured at powers of two alone, of networks and of seeds, and lie on a line between them: kinds differ in how
# many networks they have, and large surveys would measure hundreds of sizes of each shape.
EACH_MEASURED = 16
# The path must be taken before torch is imported.
_PROBE = """
import sys
from sensitometer import matmul
matmul.activate(sys.argv[1])
from sensitometer.survey.scheduling.step_timer import serve
serve(sys.argv[2])
"""


class Shape(NamedTuple):
    """A stack whose step is timed: so many networks of so many seeds; ReLU, Momentum, cross-entropy and no augmentation."""

    networks: int
    seeds: int
    inputs: int
    width: int
    depth: int
    classes: int
    batch_size: int

    @property
    def weights(self) -> int:
        """The number of weights of one network."""
        return self.inputs * self.width + (self.depth - 2) * self.width**2 + self.width * self.classes


class Pace(Protocol):
    """How fast a device trains, measured or assumed."""

    # The time of an elementwise pass, where one core of a processor takes 1.
    elementwise: float

    def step(self, shape: Shape) -> float:
        """Return the seconds of one step of a stack of any shape."""

    def part(self, setting: str, value: str) -> float:
        """Return the seconds of a part of the step: an activation a unit, an optimizer a weight, an augmentation a pixel."""

    def memory(self) -> int:
        """Return the bytes of memory that the workers share."""


class Timer(Protocol):
    """Takes the times."""

    def step(self, *shape: int) -> float:
        """Return the seconds of one step of a stack, given the fields of its `Shape`."""

    def part(self, setting: str, value: str) -> float:
        """Return the seconds of a part of the step: an activation a unit, an optimizer a weight, an augmentation a pixel."""

    def memory(self) -> int:
        """Return the bytes of memory that the device has."""

    def name(self) -> str:
        """Return what the device is."""


class Speeds:
    """
    Seconds a training step, of one device and one matrix-product path.

    Parameters
    ----------
    path
        The matrix-product path.
    device
        `cpu`, or a CUDA device.
    timer
        The clock of steps; None: a process of its own, which ends with this context.
    """

    elementwise = 1.0

    def __init__(self, path: str, device: str = "cpu", timer: Timer | None = None) -> None:
        self._timer = timer or _Probe(path, device)
        try:
            self._machine = f"{self._timer.name()}, torch {version('torch')}, {path}"
        except BaseException:  # the device is not there, and the process that has said so is still running
            self.close()
            raise
        self._known = self._read().get(self._machine, {})

    def __enter__(self) -> "Speeds":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process that takes the times."""
        if isinstance(self._timer, _Probe):
            self._timer.close()

    def step(self, shape: Shape) -> float:
        """Return the seconds of one step of a stack of any shape, from steps of some shapes that are measured."""
        networks, seeds = shape.networks, shape.seeds
        if networks <= EACH_MEASURED:
            return self._any_depth(shape)
        below, seeds = 2 ** (networks.bit_length() - 1), 2 ** (seeds - 1).bit_length()
        seconds = self._any_depth(shape._replace(networks=below, seeds=seeds))
        if networks > below:
            above = self._any_depth(shape._replace(networks=2 * below, seeds=seeds))
            seconds += (above - seconds) * (networks - below) / below
        return seconds

    def _any_depth(self, shape: Shape) -> float:
        measured = shape._replace(width=min(shape.width, WIDEST_MEASURED))
        seconds = self._measured("step", *measured._replace(depth=SHALLOW))
        if shape.depth > SHALLOW:
            layer = (self._measured("step", *measured._replace(depth=DEEP)) - seconds) / (DEEP - SHALLOW)
            seconds += (shape.depth - SHALLOW) * max(0.0, layer)
        return seconds * shape.weights / measured.weights

    def part(self, setting: str, value: str) -> float:
        """Return the seconds of a part of the step: an activation a unit, an optimizer a weight, an augmentation a pixel."""
        return self._measured("part", setting, value)

    def _measured(self, what: str, *arguments: int | str) -> float:
        name = " ".join(map(str, (what, *arguments)))
        if name not in self._known:
            self._remember(name, getattr(self._timer, what)(*arguments))
        return self._known[name]

    def forget(self) -> None:
        """Measure anew what will be asked: what was remembered may come from a busy hour."""
        with contextlib.suppress(OSError):  # there is no file, or no folder for one
            (matmul.cache_folder() / FILE).unlink(missing_ok=True)
        self._known = {}

    def memory(self) -> int:
        """Return the bytes of memory that the device has."""
        return self._timer.memory()

    def _remember(self, name: str, seconds: float) -> None:
        """Keep what was measured, unless another process has done so: the first one holds, so that all divide stacks alike."""
        try:
            file = matmul.cache_folder() / FILE
            with FileLock(file.with_suffix(".lock")):
                known = self._read()
                self._known |= known.get(self._machine, {})
                known[self._machine] = {name: seconds, **self._known}
                temporary = file.with_suffix(".new")
                temporary.write_bytes(msgspec.json.encode(known))
                temporary.replace(file)
                self._known = known[self._machine]
        except OSError:  # a folder that cannot be written to: it will be measured again
            self._known[name] = seconds

    def _read(self) -> dict[str, dict[str, float]]:
        try:
            return msgspec.json.decode((matmul.cache_folder() / FILE).read_bytes(), type=dict[str, dict[str, float]])
        except (OSError, msgspec.DecodeError):  # in both cases they are measured again
            return {}


def machine_memory() -> int:
    """Return the bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class _Probe:
    """A process that measures; started when it is first asked."""

    def __init__(self, path: str, device: str) -> None:
        self._device = device
        self._command = [sys.executable, "-c", _PROBE, path if device == "cpu" else matmul.STOCK, device]
        self._process: subprocess.Popen[str] | None = None

    def step(self, *shape: int) -> float:
        return float(self._ask("step", *shape))

    def part(self, setting: str, value: str) -> float:
        return float(self._ask("part", setting, value))

    def memory(self) -> int:
        return machine_memory() if self._device == "cpu" else int(self._ask("memory"))

    def name(self) -> str:
        return matmul.processor() if self._device == "cpu" else str(self._ask("name"))

    def _ask(self, *question: int | str) -> Any:
        if self._process is None:
            environment = matmul.worker_environment(os.environ)
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # how it ended is said below
            print(json.dumps(question), file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise WorkerError(f"the process that measures training steps ended with status {self._process.wait()}")
        found = json.loads(answer)
        if isinstance(found, dict):
            raise InvalidInputError(found["error"])
        return found

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
