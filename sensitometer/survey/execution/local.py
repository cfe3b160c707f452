"""Worker processes on this machine, behind the contract of an executor. Imports no torch."""

import contextlib
import itertools
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from ... import errors, matmul
from ...configuration import Configuration
from ...errors import InvalidInputError, SensitometerError, WorkerError
from ..scheduling.plan import default_workers
from .executor import Answer, Done, Lost
from .wire import receive, send

WORKER = (sys.executable, "-m", "sensitometer.survey.execution.worker")


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
    ask = [sys.executable, "-c", "import torch; print(torch.cuda.device_count())"]
    count = int(subprocess.run(ask, capture_output=True, text=True, check=True).stdout)
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
        self._setup, self._command = setup, command
        self._environment = matmul.worker_environment(os.environ)
        if gpu is not None:
            self._environment["CUDA_VISIBLE_DEVICES"] = gpu
        self._closed = False
        self._lock = threading.Lock()
        self._process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=self._environment)
        _tell(process, self._setup)
        return process

    def wait(self) -> None:
        """Wait until the worker has set itself up, or raise what kept it from that."""
        answer = _answer(self._process)
        if isinstance(answer, Lost):
            raise WorkerError(f"{answer.reason} before it was ready")

    def train(self, stack: Sequence[Configuration]) -> Answer:
        """Have a stack trained; a worker that has ended is replaced first."""
        with self._lock:
            if self._closed:
                raise WorkerError("the workers were told to end")
            ended = self._process.poll() is not None
            if ended:
                _end(self._process)
                self._process = self._start()
        if ended:
            self.wait()
        _tell(self._process, {"configurations": [network.as_dict() for network in stack]})
        return _answer(self._process)

    def close(self) -> None:
        """End the worker, even while it trains, and start no other."""
        with self._lock:
            self._closed = True
            _end(self._process)


def _tell(process: subprocess.Popen[bytes], message: dict[str, Any]) -> None:
    assert process.stdin is not None
    # `_answer` says how it ended.
    with contextlib.suppress(BrokenPipeError):
        send(process.stdin, message)


def _answer(process: subprocess.Popen[bytes]) -> Answer:
    assert process.stdout is not None
    try:
        answer = receive(process.stdout)
    except EOFError:
        status = process.wait()
        return Lost(f"a worker was ended by signal {-status}" if status < 0 else f"a worker ended with status {status}")
    if "error" in answer:
        kind: type[SensitometerError] = getattr(errors, answer["kind"])
        raise kind(answer["error"])
    return Lost(answer["lost"]) if "lost" in answer else Done(answer["rows"], answer["seconds"])


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, if it has not ended, and close its pipes."""
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        # Requests that the process did not live to read are still in the buffer.
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
