"""
A worker process: answers one job after another, over the pipes of `children`.

The first message sets it up (`matmul_path` and the arguments of `_Worker`); every later one is a stack (`configurations`). An
answer is `{"rows": [...], "seconds": ...}`; or `{"lost": reason}` for a stack that is too large for the memory; or
`{"error": message, "kind": class name}` for an obstacle to the whole survey. The process ends when the pipe of jobs does.
"""

import contextlib
import os
import sys
import threading
import time
import warnings
from pathlib import Path
from queue import SimpleQueue
from typing import IO, TYPE_CHECKING, Any

from ... import matmul
from ...children import NoMessageError, pipes, receive, send
from ...configuration import Configuration
from ...errors import SensitometerError, printable
from ...store import ARRAYS, SAVED, WEIGHTS
from ...store.arrays import SUFFIX, write_arrays
from ..scheduling.stacks import saved_state

if TYPE_CHECKING:
    from ...data import Dataset


def main() -> None:
    """Answer jobs until their pipe ends."""
    requests, answers = pipes()
    warnings.showwarning = _print_warning
    jobs: SimpleQueue[dict[str, Any]] = SimpleQueue()
    threading.Thread(target=_read, args=(requests, jobs), daemon=True).start()
    worker: _Worker | None = None
    while True:
        job = jobs.get()
        try:
            if worker is None:
                _prepare(job.pop("matmul_path"))
                worker = _Worker(**job)
                answer: dict[str, Any] = {"rows": [], "seconds": 0.0}
            else:
                begun = time.monotonic()
                rows = worker.work([Configuration(**fields) for fields in job["configurations"]])
                answer = {"rows": rows, "seconds": time.monotonic() - begun}
        except OutOfMemoryError as error:
            answer = {"lost": _sendable(error)}
        except SensitometerError as error:
            answer = {"error": _sendable(error), "kind": type(error).__name__}
        try:
            send(answers, answer)
        except (TypeError, NoMessageError) as error:  # of no stack alone: all would fail
            send(answers, {"error": f"a worker cannot send what it measured: {error}", "kind": "WorkerError"})
        except BrokenPipeError:  # the parent has been killed; the pipe of jobs ends, too
            os._exit(0)


def _print_warning(message: Warning | str, *_: object, **__: object) -> None:
    sys.stderr.write(f"sensitometer: warning: {printable(str(message))}\n")


def _read(requests: IO[bytes], jobs: "SimpleQueue[dict[str, Any]]") -> None:
    with contextlib.suppress(EOFError):
        while True:
            jobs.put(receive(requests))
    # At once, even within a training: nobody waits for its result.
    os._exit(0)


def _sendable(error: Exception) -> str:
    """Return the message of an error; a name in it that is no UTF-8 is escaped."""
    return str(error).encode(errors="backslashreplace").decode()


def _prepare(matmul_path: str) -> None:
    """Set this process up for matrix products, before anything else imports torch."""
    matmul.activate(matmul_path)
    import torch

    torch.set_num_threads(1)
    # Vanishing gradients become denormal numbers, on which a processor is a hundred times slower.
    torch.set_flush_denormal(True)


class OutOfMemoryError(Exception):
    """A stack is too large for the memory; the message says what torch or Python said."""


class _Worker:
    """The data sets and settings of a survey, and the training of one stack after another."""

    def __init__(
        self,
        device: str,
        data: dict[str, Any],
        schedule: dict[str, Any],
        measures: dict[str, Any],
        folder: str | bytes,
        keep_weights: bool,
        save_seconds: float,
    ) -> None:
        from ...device import check_device
        from ...training import Schedule
        from ..job import Measures

        check_device(device)
        names, options = data["names"], {key: value for key, value in data.items() if key != "names"}
        # Each worker has its own copy; of the raw numbers none is needed.
        self.datasets = {name: _load(name, **options).without_raw() for name in names}
        self.schedule = Schedule(**schedule)
        self.measures = Measures(**measures)
        self.device = device
        self.folder, self.keep_weights = Path(os.fsdecode(folder)), keep_weights
        self.save_seconds = save_seconds

    def work(self, stack: list[Configuration]) -> list[dict[str, Any]]:
        """
        Train and measure one stack and return its rows; those of a stack that an exception ended are `failed`.

        Raises OutOfMemoryError if it is too large.
        """
        from ...training import Saver
        from ..job.train_and_measure import provenance, train_and_measure

        saver = Saver(saved_state(self.folder / SAVED, stack), self.save_seconds)
        try:
            dataset, measures = self.datasets[stack[0].dataset], self.measures
            results = train_and_measure(
                stack, dataset, schedule=self.schedule, measures=measures, saver=saver, device=self.device
            )
        except Exception as error:  # noqa: BLE001  whatever it is, it is stored, and the survey goes on
            text = f"{type(error).__name__}: {_sendable(error)}"
            if _out_of_memory(error):
                # The first line says it; those of a GPU's allocator fill a page.
                raise OutOfMemoryError(text.partition("\n")[0]) from None
            outcome = {"state": "failed", "error": text, **provenance(self.device)}
            return [{"id": network.id, **network.as_dict(), **outcome} for network in stack]
        # Before the rows: a network that is stored has its files.
        for result in results:
            name = f"{result.row['id']}{SUFFIX}"
            if self.keep_weights:
                result.network.save(self.folder / WEIGHTS / name)
            if result.arrays:
                write_arrays(self.folder / ARRAYS / name, result.arrays)
        return [result.row for result in results]


def _load(
    name: str, crop: int | None, train_points: int | None, normalise: str | None, file: str | None, sha256: str | None
) -> "Dataset":
    """Load a data set of a survey: a known one, or one of a file, which must be the one that the survey began with."""
    from ...data import load_dataset
    from ...data.identified import load_identified

    if file is None:
        return load_dataset(name, crop=crop, train_points=train_points, normalise="sphere" if normalise is None else normalise)
    return load_identified(
        Path(file),
        name=name,
        sha256=sha256 or "",
        train_points=train_points,
        normalise="none" if normalise is None else normalise,
    )


def _out_of_memory(error: Exception) -> bool:
    """Return whether there was no memory left, and then give a GPU back what the stack has left behind."""
    import torch

    # On a CPU torch raises a RuntimeError that says so.
    no_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    if no_memory and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return no_memory
