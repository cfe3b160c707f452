"""
Stacks trained on a Ray cluster: one actor per processor or GPU, each with one worker process. Imports no torch.

The driver, the process that runs the survey, hands each stack to a free actor and stores the results; nothing else writes to the
survey's folder. An actor hosts the same worker process as a local run, with folders of its machine: weights and arrays are sent
back with the rows, and the states of long trainings stay there.
"""

import contextlib
import hashlib
import json
import logging
import os
import platform
import re
import socket
import sys
import time
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayError, RayTaskError

from ...children import Child, NoMessageError, command, pipes, send
from ...configuration import Configuration
from ...errors import InvalidInputError, SensitometerError, StoreError, WorkerError, one_line
from ...files import replacing
from ..scheduling.plan import default_workers
from .executor import Answer, Lost
from .local import WORKER
from .ray_actors import Host, end, line

# How long a run waits for a processor when it has none.
PATIENCE_SECONDS = 60.0
# Seconds that a cluster has to answer when it is connected to.
CONNECT_SECONDS = 30.0
# How often it is asked for processors that have joined, and for others in the place of actors that were lost.
LOOK_SECONDS = 10.0
# How long after the last placement the run waits for actors that Ray has not placed: somebody else uses the processor.
PLACE_SECONDS = 10.0
# Actors that may die one after another while they set themselves up, before that ends a run that has no other.
EARLY_DEATHS = 3
# How long a machine has to answer when it is asked whether it is still there.
ALIVE_SECONDS = 5.0
# How long idle actors have to remove their folders.
LEAVE_SECONDS = 2.0


@dataclass(eq=False)
class _Place:
    """An actor, and how far it is."""

    actor: Any
    call: Any  # the last request; None: it is free
    node: str = ""  # the machine, as Ray calls it; empty until Ray has placed the actor
    host: str = ""  # the machine, as people call it
    ready: bool = False  # whether its worker has set itself up
    number: int | None = None  # the stack that it trains


class RayExecutor:
    """
    Worker processes on the machines of a Ray cluster, each hosted by an actor of one processor, or of one GPU; see `Executor`.

    A program that is connected to a cluster already stays so, and its cluster is used.

    Parameters
    ----------
    address
        The cluster: `HOST:PORT`, or `auto` for the one that this machine is part of. None: that of `RAY_ADDRESS`; without it
        one that is started on this machine, and ends with this executor.
    workers
        Number of workers; None: one per processor of the cluster, or one per GPU.
    command
        The program of a worker; by default that of the machine it is started on.

    Raises
    ------
    InvalidInputError
        The device is neither, or no machine of the cluster has it.
    WorkerError
        There is no such cluster, or Ray cannot be started.
    """

    def __init__(self, address: str | None, workers: int | None, device: str, command: Sequence[str] = WORKER) -> None:
        if device not in ("cpu", "cuda"):
            raise InvalidInputError(f"device must be cpu or cuda on a Ray cluster, which chooses the GPUs; got {device!r}")
        self._asked, self._device, self._unit = workers, device, "GPU" if device == "cuda" else "CPU"
        # The path of this machine's Python need not be that of others.
        self._command = () if command == WORKER else command
        self._places: list[_Place] = []
        self._waiting: deque[tuple[int, Sequence[Configuration]]] = deque()
        self._most = self._refused = self._early_deaths = 0
        self._started = False
        self._mine = not ray.is_initialized()
        if self._mine:
            self._address = _connect(address, workers)
        else:
            self._address = ray.get_runtime_context().gcs_address
        if device == "cuda" and not self._capacity():
            self.close()
            raise InvalidInputError(f"device cuda was asked for, but the Ray cluster at {self._address} has no GPUs")
        self._looked = self._placed = self._alone = time.monotonic()

    @property
    def workers(self) -> int:
        """See `Executor`."""
        return max(1, sum(place.ready for place in self._places) if self._started else self._wanted())

    def _capacity(self) -> int:
        """Return the number of processors or GPUs of the machines that are there now, whoever uses them."""
        return int(ray.cluster_resources().get(self._unit, 0))

    def _wanted(self) -> int:
        """Return the number of actors that there should be now."""
        limits = filter(None, (self._asked, self._most))
        return max(0, min([self._capacity() - self._refused, *limits]))

    def start(self, setup: dict[str, Any], most: int) -> None:
        """
        See `Executor`.

        Waits for the actors that Ray places, but not for those whose processor somebody else uses: these join when it is free.
        """
        self._setup, self._folder, self._most = setup, _folder(setup), most
        self._placed = self._alone = time.monotonic()
        self._grow()
        while self._starting():
            self._next(1.0)
        self._started = True

    def _starting(self) -> bool:
        """Return whether there are actors to be waited for before the first stack is handed out."""
        setting_up = any(place.host and not place.ready for place in self._places)
        asked_for = any(not place.host for place in self._places)
        late = time.monotonic() - self._placed > PLACE_SECONDS
        return setting_up or not any(place.ready for place in self._places) or (asked_for and not late)

    def _grow(self) -> None:
        """Ask Ray for as many actors as there should be."""
        self._looked = time.monotonic()
        needs = {"num_cpus": 1} if self._unit == "CPU" else {"num_cpus": 0, "num_gpus": 1}
        # Ray repeats nothing by itself: the run decides what becomes of a stack that was lost.
        host = ray.remote(Host).options(**needs, scheduling_strategy="SPREAD", max_restarts=0, max_task_retries=0)
        for _ in range(self._wanted() - len(self._places)):
            actor = host.remote()
            self._places.append(_Place(actor, actor.about.remote()))

    def submit(self, number: int, stack: Sequence[Configuration]) -> None:
        """See `Executor`."""
        self._waiting.append((number, stack))
        self._hand_out()

    def _hand_out(self) -> None:
        """Give stacks that wait to actors that are free."""
        for place in self._places:
            if self._waiting and place.ready and place.call is None:
                place.number, stack = self._waiting.popleft()
                place.call = place.actor.train.remote(stack)

    def answer(self) -> tuple[int, Answer]:
        """See `Executor`."""
        while (answer := self._next(LOOK_SECONDS)) is None:
            pass
        return answer

    def _next(self, seconds: float) -> tuple[int, Answer] | None:
        """Wait so many `seconds` for an actor to answer, and go on with it; return the answer of a stack, if it was one."""
        if time.monotonic() - self._looked > LOOK_SECONDS:
            self._grow()
        calls = {place.call: place for place in self._places if place.call is not None}
        if calls:
            done, _ = ray.wait(list(calls), num_returns=1, timeout=seconds)
        else:
            done = []
            time.sleep(1.0)
        answer = self._advance(calls[done[0]]) if done else None
        self._check_patience()
        return answer

    def _check_patience(self) -> None:
        """Raise WorkerError if no actor has been placed for too long."""
        now = time.monotonic()
        if any(place.host for place in self._places):
            self._alone = now
        elif now - self._alone > PATIENCE_SECONDS:
            raise WorkerError(
                f"the Ray cluster at {self._address} has had no free {self._unit} for {PATIENCE_SECONDS:.0f} s: "
                f"see 'ray status' for who uses it, or whether its machines are still there"
            )

    def _advance(self, place: _Place) -> tuple[int, Answer] | None:
        """Take the answer of an actor and give it the next request; return the answer of a stack, if it was one."""
        call, place.call = place.call, None
        try:
            result = ray.get(call)
        except RayTaskError as error:
            raise WorkerError(f"{place.host}: {line(error)}") from error
        except RayError as error:
            return self._after_loss(place, error)
        if not place.host:
            self._placed = time.monotonic()
            place.node, place.host = result["node"], result["host"]
            there, here = result["version"], version("sensitometer")
            if there != here:
                self._refuse(place, WorkerError(f"has sensitometer {there}, and this machine {here}: install the same version"))
            else:
                place.call = place.actor.prepare.remote(self._setup, self._command, self._folder)
            return None
        if not place.ready:
            if isinstance(result, SensitometerError):
                self._refuse(place, result)
            else:
                place.ready = True
                self._early_deaths = 0
                self._hand_out()
            return None
        number, place.number = place.number, None
        assert number is not None
        if isinstance(result, SensitometerError):
            raise type(result)(f"{place.host}: {result}")
        # Before anything is written: the actor need not wait for that.
        self._hand_out()
        for name, content in result.files.items():
            path = Path(self._setup["folder"], name)
            try:
                with replacing(path) as unfinished:
                    unfinished.write_bytes(content)
            except OSError as error:
                raise StoreError(f"cannot write to {path}: {error.strerror or error}") from error
        return number, result.answer

    def _refuse(self, place: _Place, error: SensitometerError) -> None:
        """Do without an actor that cannot set itself up: at the start that is an error, later it is said and the run goes on."""
        self._remove(place)
        if not self._started:
            raise type(error)(f"{place.host}: {error}")
        self._refused += 1
        warnings.warn(f"a worker on {place.host}, which has joined, cannot be used: {error}", stacklevel=2)

    def _remove(self, place: _Place) -> None:
        self._places.remove(place)
        end(place.actor)

    def _after_loss(self, place: _Place, error: Exception) -> tuple[int, Answer] | None:
        """Return the answer for the stack of an actor that has died or cannot be reached; another will take its place."""
        if "creation task" in str(error):
            # In which nothing is done but to import this module.
            address = re.search(r"ip=([\w.:]+)", str(error))
            place.host = address[1] if address else "a machine"
            here = version("sensitometer")
            self._refuse(place, WorkerError(f"cannot load sensitometer {here} ({line(error)}): install the same version there"))
            return None
        self._remove(place)
        if not place.ready:
            self._early_deaths += 1
            if self._early_deaths >= EARLY_DEATHS and not any(other.ready for other in self._places):
                raise WorkerError(f"the actors on the Ray cluster at {self._address} die before they are ready: {line(error)}")
        if place.number is None:
            return None
        # Its processor is free for another, if it is still there.
        self._grow()
        if _gone(place.node):
            lost = Lost(f"the machine {place.host} is gone", innocent=True)
        elif isinstance(error, ActorUnavailableError):
            lost = Lost(f"the connection to {place.host} broke", innocent=True)
        elif isinstance(error, OutOfMemoryError):
            lost = Lost(f"Ray ended a worker because the memory of {place.host} ran low")
        else:
            lost = Lost(f"a worker's actor on {place.host} was killed")
        return place.number, lost

    def close(self) -> None:
        """See `Executor`."""
        ready = [place for place in self._places if place.ready]
        if ready and not self._waiting and all(place.number is None for place in ready):
            with contextlib.suppress(RayError):
                ray.wait([place.actor.leave.remote() for place in ready], num_returns=len(ready), timeout=LEAVE_SECONDS)
        for place in list(self._places):
            self._remove(place)
        if self._mine:
            self._mine = False
            ray.shutdown()


def _connect(address: str | None, workers: int | None) -> str:
    """Connect this process to a Ray cluster, or start one on this machine; return the address. WorkerError if that fails."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    options: dict[str, Any] = {}
    if address == "local":
        attempt, trouble = "start Ray on this machine", ""
        options = {"num_cpus": workers or default_workers(), "include_dashboard": False}
    else:
        attempt, trouble = f"connect to a Ray cluster at {address}", _trouble(address)
    if trouble:
        raise WorkerError(f"cannot {attempt}: {trouble}")
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except Exception as error:
        raise WorkerError(f"cannot {attempt}: {line(error)}") from error
    # Ray's messages about a machine or process that died go to standard output, whatever the level, and have no public switch.
    # The run says what became of the stacks.
    ray._private.worker._worker_logs_enabled = False
    return str(ray.get_runtime_context().gcs_address)


def _trouble(address: str) -> str:
    """Return the reason why nobody can connect to the cluster at this address; empty if there is none."""
    # In a process of its own: against an address at which nothing answers as Ray does, `ray.init` waits without end and is not
    # quiet.
    with Child(command("survey.execution.ray", address), os.environ, quiet=True) as trial:
        try:
            return str(trial.answer(CONNECT_SECONDS))
        except TimeoutError:
            return f"no answer in {CONNECT_SECONDS:.0f} s"
        except (EOFError, NoMessageError):
            return f"the process that tried to {trial.ending()}"


def main() -> None:
    """Answer, in a child process, why nobody can connect to the cluster at the address; nothing if one can."""
    _, answers = pipes()
    try:
        ray.init(address=sys.argv[2], log_to_driver=False, logging_level="CRITICAL")
    except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
        send(answers, one_line(error))
    else:
        send(answers, "")


def _folder(setup: dict[str, Any]) -> str:
    """
    Return the name of a survey's folder on the machines of the cluster: the same for the same survey in the same folder.

    Another survey has another one: an earlier survey in the driver's folder may have left states of networks of the same ids.
    """
    folder = str(Path(setup.get("folder", "")).absolute())
    text = json.dumps([platform.node(), version("sensitometer"), {**setup, "folder": folder}], sort_keys=True)
    return f"sensitometer-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _gone(node: str) -> bool:
    """
    Return whether a machine is no longer there.

    Ray takes half a minute to decide that; that nobody answers at the port of its Ray process tells at once.
    """
    alive = [machine for machine in ray.nodes() if machine["NodeID"] == node and machine["Alive"]]
    try:
        for machine in alive:
            socket.create_connection((machine["NodeManagerAddress"], machine["NodeManagerPort"]), ALIVE_SECONDS).close()
    except OSError:
        return True
    return not alive
