"""Worker processes on this machine, behind the contract of an executor. Imports no torch."""

import itertools
import os
import queue
import threading
from collections.abc import Sequence
from typing import Any

from ... import children, errors, matmul
from ...children import Child, NoMessageError
from ...configuration import Configuration
from ...errors import InvalidInputError, SensitometerError, WorkerError
from ..scheduling.plan import default_workers
from .executor import Answer, Done, Lost

WORKER = children.command("survey.execution.worker")
# How often a worker that is ended by a signal before it is ready is started in all: by the system, for lack of memory.
STARTS = 3


class LocalExecutor:
    """
    Worker processes on this machine, one thread each, and one GPU each where that is the device; see `Executor`.

    `workers` is their number; None: one per processor that this process may use, or one per GPU. `command` is the program of a
    worker. Raises InvalidInputError if there is no GPU and the device is `cuda`.
    """

    def __init__(self, workers: int | None, device: str, command: Sequence[str] = WORKER) -> None:
        self._command = command
        self._gpus = gpu_names() if device == "cuda" else []
        self.workers = workers or len(self._gpus) or default_workers(device)
        self._hosts: list[WorkerHost] = []
        # None: there will be no more.
        self._waiting: queue.SimpleQueue[tuple[int, Sequence[Configuration]] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[int, Answer | Exception]] = queue.SimpleQueue()

    def start(self, setup: dict[str, Any], most: int) -> None:
        """See `Executor`."""
        self.workers = min(self.workers, most)
        setup = with_matmul_path(setup)
        # Side by side: starting one takes seconds.
        for gpu in itertools.islice(itertools.cycle(self._gpus or [None]), self.workers):
            self._hosts.append(WorkerHost(setup, self._command, gpu))
        for host in self._hosts:
            host.wait()
        for host in self._hosts:
            threading.Thread(target=self._feed, args=(host,), daemon=True).start()

    def submit(self, number: int, stack: Sequence[Configuration]) -> None:
        """See `Executor`."""
        self._waiting.put((number, stack))

    def answer(self) -> tuple[int, Answer]:
        """See `Executor`."""
        number, answer = self._answers.get()
        if isinstance(answer, Exception):
            raise answer
        return number, answer

    def _feed(self, host: "WorkerHost") -> None:
        """Hand one stack after another to a worker."""
        for number, stack in iter(self._waiting.get, None):
            try:
                self._answers.put((number, host.train(stack)))
            except Exception as error:  # noqa: BLE001  raised again where the answers are read
                self._answers.put((number, error))

    def close(self) -> None:
        """See `Executor`."""
        for host in self._hosts:
            self._waiting.put(None)
            host.close()


def with_matmul_path(setup: dict[str, Any]) -> dict[str, Any]:
    """Return the setup of workers on this machine: with its matrix-product path, which is measured if that was never done."""
    return {**setup, "matmul_path": matmul.choose().path if setup["device"] == "cpu" else matmul.STOCK}


def gpu_names() -> list[str]:
    """Return the GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; InvalidInputError if there is none."""
    # In a process of its own, which imports torch.
    with Child(children.command("device"), os.environ) as child:
        try:
            count = int(child.answer())
        except (EOFError, NoMessageError) as error:
            raise WorkerError(f"the process that counts the GPUs {child.ending()}; what it printed is above") from error
    if not count:
        raise InvalidInputError("device cuda was asked for, but torch finds 0 CUDA devices here")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return visible.split(",")[:count] if visible else [str(index) for index in range(count)]


class WorkerHost:
    """
    One worker process, and another one in its place when it has ended.

    `setup` is the first message that `execution.worker` takes, `command` the program, and `gpu` the GPU that it sees; None: those
    that this process sees.
    """

    def __init__(self, setup: dict[str, Any], command: Sequence[str] = WORKER, gpu: str | None = None) -> None:
        # The name of the folder need not be UTF-8.
        self._setup = {**setup, "folder": os.fsencode(setup["folder"])} if "folder" in setup else setup
        self._command = command
        self._environment = matmul.worker_environment(os.environ)
        if gpu is not None:
            self._environment["CUDA_VISIBLE_DEVICES"] = gpu
        self._closed = False
        self._lock = threading.Lock()
        self._child = self._start()

    def _start(self) -> Child:
        child = Child(self._command, self._environment)
        child.tell(self._setup)
        return child

    def wait(self) -> None:
        """Wait until the worker has set itself up, or raise what kept it from that; one that a signal ends is started again."""
        for start in range(1, STARTS + 1):
            answer = _answer(self._child)
            if not isinstance(answer, Lost):
                return
            if start == STARTS or not self._child.was_killed:
                raise WorkerError(f"{answer.reason} before it was ready")
            self._replace()

    def train(self, stack: Sequence[Configuration]) -> Answer:
        """Have a stack trained; a worker that has ended is replaced first."""
        if self._child.has_ended:
            self._replace()
            self.wait()
        self._child.tell({"configurations": [network.as_dict() for network in stack]})
        return _answer(self._child)

    def _replace(self) -> None:
        """Start another worker in the place of one that has ended; WorkerError if there shall be no other."""
        with self._lock:
            if self._closed:
                raise WorkerError("the workers were told to end")
            self._child.end()
            self._child = self._start()

    def close(self) -> None:
        """End the worker, even while it trains, and start no other."""
        with self._lock:
            self._closed = True
            self._child.end()


def _answer(child: Child) -> Answer:
    try:
        answer = child.answer()
    except EOFError:
        return Lost(f"a worker {child.ending()}")
    except NoMessageError as error:
        raise WorkerError(f"a worker answered what is none: {error}") from error
    if "error" in answer:
        kind: type[SensitometerError] = getattr(errors, answer["kind"])
        raise kind(answer["error"])
    return Lost(answer["lost"]) if "lost" in answer else Done(answer["rows"], answer["seconds"])
