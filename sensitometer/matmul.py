"""
The matrix-product path: how torch's float32 products run on this processor, and a faster way where there is one.

torch's x86 builds multiply with Intel MKL, which takes a slower code path on processors that are not Intel's. MKL decides by its
function `mkl_serv_intel_cpu_true`; a library of that one function, loaded before torch, decides otherwise. On AMD processors with
full-width AVX-512 this doubles the rate of all products, on others it is worth 10%, on Intel's nothing.

Because the last bits of results change with it, it is used only where `choose` has seen, on this machine and this torch, that it
is faster and as close to float64; and its name is stored with every result. `SENSITOMETER_MATMUL=stock` turns it off.

`activate` must be called before torch is imported, so this module imports torch only in the processes that it starts.
"""

import contextlib
import ctypes
import importlib.metadata
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from statistics import median
from typing import Annotated

import msgspec

from .children import Child, NoMessageError, command, pipes, receive, send
from .errors import InvalidInputError, WorkerError
from .files import locked, replacing, user_cache

STOCK = "stock"
AS_INTEL = "mkl-as-intel"
PATHS = (STOCK, AS_INTEL)
VARIABLE = "SENSITOMETER_MATMUL"
FILE = "matmul.json"
NEEDS = "needs a C compiler (cc) and Linux on x86-64"

# One thread per process: two processes of one thread outrun one process of two, and degrade gently beside other work.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
# glibc gives freed blocks of this size, in bytes, back to the system, and page faults fetch them again: a third of the time.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**27)}

# Gains below this are noise.
WORTH_IT = 1.05
# Products of small networks: (batch of networks, fan_out, fan_in, points). The last takes only what calling torch does.
PROBE_SHAPES = ((1, 200, 200, 256), (1, 100, 784, 256), (8, 64, 64, 256), (1, 1024, 1024, 1024), (1, 8, 8, 8))
# The floating-point operations of each.
PROBE_OPERATIONS = tuple(2 * prod(shape) for shape in PROBE_SHAPES)
PROBE_ROUNDS = 9
# The rate at each shape; kept probes of other shapes are not read.
Rates = Annotated[tuple[float, ...], msgspec.Meta(min_length=len(PROBE_SHAPES), max_length=len(PROBE_SHAPES))]
# How long another process may take to compile the library; then this one does without.
LOCK_SECONDS = 30.0
# Products that one rate is measured over, at most.
MOST_REPEATS = 3000

_SOURCE = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"
_active = STOCK


@dataclass(frozen=True)
class Probe:
    """The performance of one path on this machine, one thread."""

    path: str  # `stock` or `mkl-as-intel`
    rates: tuple[Rates, ...]  # of each round at each of PROBE_SHAPES, in GFLOP/s; rounds of the paths alternate
    error: float  # the largest against float64, relative to the largest value of the product


@dataclass(frozen=True)
class Choice:
    """The path to use on this machine, why, and the probes that were measured."""

    path: str
    reason: str
    probes: tuple[Probe, ...]

    @property
    def peak(self) -> float:
        """The highest rate of the chosen path, in GFLOP/s: the roofline that plans and benchmarks are held against."""
        return max(map(max, self._rates))

    @property
    def operation(self) -> float:
        """The seconds of a call of torch: those of the smallest product, in the best of its rounds."""
        return PROBE_OPERATIONS[-1] / max(rates[-1] for rates in self._rates) / 1e9

    @property
    def _rates(self) -> tuple[Rates, ...]:
        return next(probe.rates for probe in self.probes if probe.path == self.path)


def active() -> str:
    """Return the path that this process uses."""
    return _active


def activate(path: str) -> None:
    """
    Make this process use `path`; it must be called before torch is imported.

    Raises
    ------
    InvalidInputError
        There is no such path.
    WorkerError
        torch is imported already, or the path is not to be had here.
    """
    global _active
    if path not in PATHS:
        raise InvalidInputError(f"the matrix-product path must be one of {', '.join(PATHS)}; got {path!r}")
    if path == _active:
        return
    if "torch" in sys.modules:
        raise WorkerError(f"the matrix-product path {path} can only be taken before torch is imported")
    library = _library()
    if library is None:
        raise WorkerError(f"the matrix-product path {path} {NEEDS}")
    try:
        ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise WorkerError(f"cannot load the matrix-product path {path}: {error}; delete {library}") from error
    _active = path


def choose(*, fresh: bool = False) -> Choice:
    """
    Return the path to use: the one that the user named, or the one that the probes have shown to be best.

    The probes are two processes, three seconds in all, run once per processor and torch and kept in the user's cache folder;
    `fresh` runs them again.

    Raises
    ------
    InvalidInputError
        The user named a path that does not exist, or does not apply to this machine.
    WorkerError
        The probe of the stock path failed.
    """
    named = os.environ.get(VARIABLE)
    if named is not None and named not in PATHS:
        raise InvalidInputError(f"{VARIABLE} must be one of {', '.join(PATHS)}; got {named!r}")
    key = f"{processor()}, torch {importlib.metadata.version('torch')}"
    try:
        known = msgspec.json.decode((cache_folder() / FILE).read_bytes(), type=dict[str, list[Probe]])
    except (OSError, msgspec.DecodeError):  # they were never run, or the file is damaged
        known = {}
    try:
        choice = None if fresh else judge(known[key])
    except (KeyError, ValueError):  # unknown, or incomplete
        choice = None
    if choice is None:
        known[key] = _run_probes()
        choice = judge(known[key])
        # Where it cannot be written they will be run again.
        with contextlib.suppress(OSError), replacing(cache_folder() / FILE) as unfinished:
            unfinished.write_bytes(msgspec.json.encode(known))
    if named is None:
        return choice
    if all(probe.path != named for probe in choice.probes):
        raise InvalidInputError(f"{VARIABLE} is {named}, which {NEEDS}")
    return Choice(named, f"{VARIABLE} says so", choice.probes)


def judge(probes: list[Probe]) -> Choice:
    """Choose the faster path if it is faster by more than noise, and about as close to float64 as the stock path is."""
    by_path = {probe.path: probe for probe in probes}
    stock, other = by_path[STOCK], by_path.get(AS_INTEL)
    if other is None:
        return Choice(STOCK, "no other path applies to this machine", (stock,))
    pairs = (pair for rounds in zip(other.rates, stock.rates, strict=True) for pair in zip(*rounds, strict=True))
    gain = median(new / old for new, old in pairs)
    if not other.error <= 3 * stock.error:  # nan, too
        path, reason = STOCK, f"{AS_INTEL} is off by {other.error:.1e}, {STOCK} by {stock.error:.1e}"
    elif gain < WORTH_IT:
        path, reason = STOCK, f"{AS_INTEL} is no faster: {gain:.2f} times {STOCK}"
    else:
        errors = f"off from float64 by {other.error:.1e}, {STOCK} by {stock.error:.1e}"
        path, reason = AS_INTEL, f"{gain:.2f} times the rate of {STOCK}; {errors}"
    return Choice(path, reason, (stock, other))


def _run_probes() -> list[Probe]:
    """Measure every path that applies, each in a process of its own, in alternation: the machine may be busy with other work."""
    rounds: dict[str, list[list[float]]] = {path: [] for path in (PATHS if _library() is not None else (STOCK,))}
    with contextlib.ExitStack() as stack:
        processes = {path: stack.enter_context(_start(path)) for path in rounds}
        for _ in range(PROBE_ROUNDS):
            for path in list(rounds):
                try:
                    rounds[path].append(_ask(processes[path]))
                except WorkerError:  # another path than torch's own does not apply here, whatever has ended its process
                    if path == STOCK:
                        raise
                    del rounds[path]
    return [Probe(path, tuple(tuple(rates) for _, *rates in answers), answers[0][0]) for path, answers in rounds.items()]


def _start(path: str) -> Child:
    return Child(command("matmul", path), worker_environment(os.environ), quiet=path != STOCK)


def _ask(child: Child) -> list[float]:
    """Have a probe process measure a round, and return the error and the rates that it answers."""
    child.tell(None)
    try:
        numbers: list[float] = child.answer()
    except (EOFError, NoMessageError) as error:
        raise WorkerError(f"the self-check of the matrix products {child.ending()}; what it printed is above") from error
    return numbers


def main() -> None:
    """Answer each request to this child process by the error against float64 and the GFLOP/s at each shape."""
    requests, answers = pipes()
    activate(sys.argv[2])
    import torch

    torch.set_num_threads(1)
    stream = torch.Generator().manual_seed(0)
    products, error = [], torch.zeros(())
    for networks, fan_out, fan_in, points in PROBE_SHAPES:
        a = torch.randn(networks, fan_out, fan_in, generator=stream)
        b = torch.randn(networks, fan_in, points, generator=stream)
        c, exact = torch.bmm(a, b), torch.bmm(a.double(), b.double())
        error = torch.maximum(error, (c - exact).abs().max() / exact.abs().max())  # nan, if there is one
        products.append((a, b, c))
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            receive(requests)
            answer = [float(error)]
            for (a, b, c), operations in zip(products, PROBE_OPERATIONS, strict=True):
                repeats = max(1, min(int(1e9 / operations), MOST_REPEATS))  # ten milliseconds at most
                # The thread's own time, which does not count what other processes take of the processor.
                start = time.thread_time()
                for _ in range(repeats):
                    torch.bmm(a, b, out=c)
                answer.append(repeats * operations / (time.thread_time() - start) / 1e9)
            send(answers, answer)


def worker_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of a worker process: one thread, and memory that is freed is kept."""
    return {**environment, **ONE_THREAD, **KEEP_MEMORY}


def _library() -> Path | None:
    """Return the compiled library, or None where the path does not apply or nothing can compile it."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    try:
        compiler = shlex.split(os.environ.get("CC", "cc"))
        file = cache_folder() / "libsensitometer_mkl.so"
        if file.exists():
            return file
        with locked(file.with_suffix(".lock"), LOCK_SECONDS), replacing(file) as built:
            command = [*compiler, "-shared", "-fPIC", "-O2", "-x", "c", "-", "-o", str(built)]
            subprocess.run(command, input=_SOURCE.encode(), capture_output=True, check=True)
    # No compiler, a variable that is no command, or no cache folder: `choose` says that the path does not apply.
    except (OSError, ValueError, subprocess.CalledProcessError):
        return None
    return file


def cache_folder() -> Path:
    """Return the folder where what was measured on this machine is kept, made if needed; OSError if there can be none."""
    folder = user_cache()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def processor() -> str:
    """Return the processor's name; where the system has no better one, its architecture."""
    try:
        first = Path("/proc/cpuinfo").read_text().partition("\n\n")[0]
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in first.splitlines())}
    return ", ".join(fields[name] for name in ("model name", "cpu family", "model", "stepping") if name in fields)
