"""Where stacks are trained: worker processes on this machine. Imports no torch."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from .. import errors, matmul
from ..configuration import Configuration
from ..errors import SensitometerError, WorkerError

Stack = Sequence[Configuration]
Row = dict[str, Any]
Answer = list[Row] | WorkerError


class LocalExecutor:
    """
    Single-threaded worker processes on this machine, each training one stack at a time.

    Parameters
    ----------
    workers
        How many.
    setup
        What `sensitometer.survey.worker` takes as its first line.

    Raises
    ------
    SensitometerError
        What kept the workers from setting themselves up: a missing data set, a device that is not there.
    """

    def __init__(self, workers: int, setup: dict[str, Any]) -> None:
        self._setup = setup
        self._closed = False
        self._restarting = threading.Lock()
        # Side by side: starting one takes seconds.
        self._workers = [_Worker() for _ in range(workers)]
        try:
            for worker in self._workers:
                worker.tell(setup)
            for worker in self._workers:
                worker.answer()
        except BaseException:
            self.close()
            raise

    def run(self, stacks: Sequence[Stack]) -> Iterator[tuple[Stack, Answer]]:
        """Train the stacks, the first ones first; yield each with its rows when it is done, or with why its worker ended."""
        waiting = deque(stacks)
        done: queue.SimpleQueue[tuple[Stack, Answer | Exception]] = queue.SimpleQueue()
        for place in range(len(self._workers)):
            threading.Thread(target=self._feed, args=(place, waiting, done), daemon=True).start()
        for _ in stacks:
            stack, answer = done.get()
            if isinstance(answer, Exception) and not isinstance(answer, WorkerError):
                raise answer
            yield stack, answer

    def _feed(self, place: int, waiting: "deque[Stack]", done: "queue.SimpleQueue[tuple[Stack, Answer | Exception]]") -> None:
        """Hand stacks to one worker until none is left; start another in place of one that ended."""
        while True:
            try:
                stack = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                if self._workers[place].ended():
                    self._restart(place)
                self._workers[place].tell({"configurations": [one.as_dict() for one in stack]})
                done.put((stack, self._workers[place].answer()))
            except Exception as error:  # noqa: BLE001  raised again where the answers are read
                done.put((stack, error))

    def _restart(self, place: int) -> None:
        with self._restarting:
            if self._closed:
                raise WorkerError("the workers were told to end")
            self._workers[place].kill()
            self._workers[place] = _Worker()
        self._workers[place].tell(self._setup)
        self._workers[place].answer()

    def close(self) -> None:
        """End the workers, in the midst of their stacks, and start no other."""
        with self._restarting:
            self._closed = True
            for worker in self._workers:
                worker.kill()


class _Worker:
    """One worker process, told and answering in lines of JSON."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sensitometer.survey.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=matmul.worker_environment(os.environ),
        )

    def tell(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        try:
            print(json.dumps(message), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._how_it_ended() from None

    def answer(self) -> list[Row]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._how_it_ended()
        answer = json.loads(line)
        if "error" in answer:
            kind: type[SensitometerError] = getattr(errors, answer["kind"])
            raise kind(answer["error"])
        rows: list[Row] = answer["rows"]
        return rows

    def ended(self) -> bool:
        return self._process.poll() is not None

    def kill(self) -> None:
        """End the process, if it has not ended, and close its pipes."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            # What the process did not live to read is still in the buffer.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _how_it_ended(self) -> WorkerError:
        status = self._process.wait()
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return WorkerError(f"a worker {how}")
