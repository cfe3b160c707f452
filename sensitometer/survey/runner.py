"""The run of a survey: networks that are not stored yet are trained and stored, stack by stack. Imports neither torch nor ray."""

import contextlib
import importlib.util
import os
import platform
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from filelock import FileLock, Timeout

from ..configuration import Configuration
from ..data.locations import require_files
from ..data.sources import find_source
from ..device import check_device_name
from ..errors import InvalidInputError, StoreError, check_whole_number
from ..files import UNFINISHED, check_writable, read_bytes, remove, replacing
from ..store import ARRAYS, SAVED, SPECIFICATION, WEIGHTS, Store
from ..store.folder import FILE, LOCK, OWNER, check_folder
from ..store.schema import Stack
from .execution.executor import STACKS_PER_WORKER, Executor, Lost, Row
from .execution.local import LocalExecutor
from .salvage import find_damage
from .scheduling.division import Division, configurations, divide
from .scheduling.plan import SECONDS_BETWEEN_SAVES
from .scheduling.stacks import is_saved_state, saved_state
from .spec import Spec, load_spec, parse_spec
from .status import seconds_left

# How long a run tries to get the lock: whoever looks whether another has it holds it for a moment.
LOCK_SECONDS = 0.25
EXECUTORS = ("local", "ray")
# Bytes of the name of a process, at most.
LONGEST_NAME = 10_000
# How often a stack may lose the machine under it before that counts as an accident of its own.
INNOCENT = 3


class Reporter:
    """Told of the progress of a run; this one says nothing."""

    def start(self, networks: int, stored: int, wanted: int, left: float) -> None:
        """Begin: the networks of the survey, those stored, those that this run will train, and the seconds that it will take."""

    def stored(self, rows: Sequence[Mapping[str, Any]], left: float) -> None:
        """Count networks that were stored just now; the rest will take `left` seconds."""


def run_survey(
    spec: str | Path,
    out: str | Path,
    *,
    executor: str = "local",
    address: str | None = None,
    workers: int | None = None,
    device: str = "cpu",
    limit: int | None = None,
    reporter: Reporter | None = None,
) -> Store:
    """
    Train, measure and store the networks of a survey that are not stored yet.

    Networks are trained together in stacks, and each stack is stored in one transaction as soon as it is done. A run that is
    interrupted or killed loses nothing that was stored, and the next one goes on; the division into stacks is stored when a
    survey begins, so that networks that are trained again are trained alike.

    A stack whose worker ends, or that is too large for the memory, is trained again in halves. If one of these meets with an
    accident too, its networks are `failed`, with the reason.

    Parameters
    ----------
    spec
        A preset's name or a TOML file.
    out
        The survey's folder, made if needed. In a survey that is there already, only `sample.count` may grow.
    executor
        `local`: worker processes on this machine. `ray`: on the machines of a Ray cluster.
    address
        The address of the Ray cluster; None: that of `RAY_ADDRESS`, or one that is started on this machine.
    workers
        Number of stacks that are trained at a time; None: one per processor, or one per GPU.
    device
        `cpu`, or `cuda`, on which every worker has a GPU; with `local` also `cuda:INDEX`.
    limit
        Largest number of networks to store in this run, stack by stack in the survey's own order.
    reporter
        Told of the progress.

    Returns
    -------
    Store
        The survey's store, open.

    Raises
    ------
    InvalidInputError
        The specification or an argument is wrong.
    DataError
        A data set is missing or damaged.
    StoreError
        The folder holds a survey with another specification, or another run is writing to it, or it cannot be written.
    WorkerError
        Workers cannot be started.
    """
    workers = None if workers is None else check_whole_number("workers", workers)
    limit = None if limit is None else check_whole_number("limit", limit)
    check_device_name(device)
    checked, text = load_spec(spec)
    if checked.data.file is None:
        for name in checked.data.names:
            require_files(find_source(name))
    out = Path(out)
    with contextlib.ExitStack() as stack:
        store, grown = None, False
        if Store.exists(out):
            damage = find_damage(out / FILE, quick=True)
            if damage is not None:
                raise StoreError(
                    f"{out / FILE} is damaged ({damage}): 'sensitometer check {out} --repair' keeps what can be read"
                )
            store = stack.enter_context(Store(out))
            grown = _grown(store, checked)
            stack.enter_context(only_writer(out))
        else:
            _check_writable(out)
        machines = stack.enter_context(contextlib.closing(_executor(executor, address, workers, device)))
        division = divide(checked, store, device)
        waiting = len(division) + (len(store.stacks(missing=True)) if store else 0)
        if waiting:
            machines.start(setup(checked, out, device), waiting)
        if store is None:
            # Only now, when all is well: a run that is refused leaves nothing behind.
            stack.enter_context(only_writer(out))
            store = stack.enter_context(Store.create(out, text))
        if grown:
            store.write_specification(text)
        train_missing(checked, store, division, machines, limit, reporter or Reporter())
    return Store(out)


def _executor(name: str, address: str | None, workers: int | None, device: str) -> Executor:
    if name == "ray":
        if importlib.util.find_spec("ray") is None:
            raise InvalidInputError("the executor ray needs Ray: pip install 'sensitometer[ray]'")
        from .execution.ray import RayExecutor

        return RayExecutor(address, workers, device)
    if name != "local":
        raise InvalidInputError(f"executor must be one of {', '.join(EXECUTORS)}; got {name!r}")
    if address is not None:
        raise InvalidInputError(f"address is that of a Ray cluster, for the executor ray; got {address!r} for local")
    return LocalExecutor(workers, device)


def _grown(store: Store, spec: Spec) -> bool:
    """
    Return whether a survey is to have more networks than it has, or its data are elsewhere; StoreError if it is another survey.

    Data that are elsewhere have the same name and the same SHA-256.
    """
    there = parse_spec(store.specification, str(store.folder / SPECIFICATION))
    changed = False
    for section, ours in msgspec.structs.asdict(spec).items():
        theirs = getattr(there, section)
        if ours == theirs:
            continue
        names = ours.__struct_fields__ if ours is not None and theirs is not None else ()
        keys = [f"{section}.{name}" for name in names if getattr(ours, name) != getattr(theirs, name)] or [section]
        # Under another name the networks would be other configurations.
        moved = keys == ["data.file"] and ours.names == theirs.names
        if moved or (keys == ["sample.count"] and ours.count > theirs.count):
            changed = True
            continue
        raise StoreError(
            f"{store.folder} holds a survey with another specification ({', '.join(keys)}): choose another folder for this one; "
            f"only sample.count may grow"
        )
    return changed


def _check_writable(folder: Path) -> None:
    """Raise StoreError unless a survey can be made in a folder: before workers start, which takes seconds."""
    try:
        check_writable(folder)
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror or error}") from error


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Be the only process that writes to a folder, or raise StoreError with the name of the one that does."""
    check_folder(folder)
    lock, owner = FileLock(folder / LOCK, timeout=LOCK_SECONDS), folder / OWNER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(poll_interval=0.01)
        with replacing(owner) as unfinished:
            unfinished.write_text(f"{_writer()}, since {time.strftime('%Y-%m-%d %H:%M')},", encoding="utf-8")
    except Timeout:
        # It may be about to write its name, or to take it away.
        try:
            name = read_bytes(owner, LONGEST_NAME).decode("utf-8", "backslashreplace")
            name = name if name.isprintable() else ascii(name)
        except OSError:
            name = ""
        raise StoreError(f"{name or 'another run'} is writing to {folder}: wait for it, or choose another folder") from None
    except OSError as error:
        lock.release()
        raise StoreError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def being_written(folder: Path) -> bool:
    """Return whether another process writes to a folder now; a killed one leaves its name, but not the lock."""
    check_folder(folder)
    if not (folder / LOCK).exists():
        return False
    try:
        with FileLock(folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:  # whoever may not write here cannot tell, and repairs nothing
        return False


def _writer() -> str:
    return f"process {os.getpid()} on {platform.node()}"


def setup(spec: Spec, out: Path, device: str) -> dict[str, Any]:
    """Return the setup of a worker of a survey."""
    schedule = msgspec.structs.asdict(spec.training)
    del schedule["steps"]
    return {
        "device": device,
        "data": {name: getattr(spec.data, name) for name in ("names", "crop", "train_points", "normalise", "file", "sha256")},
        "schedule": schedule,
        "measures": msgspec.structs.asdict(spec.measure),
        "folder": str(out),
        "keep_weights": spec.survey.keep_weights,
        "save_seconds": SECONDS_BETWEEN_SAVES,
    }


def train_missing(
    spec: Spec, store: Store, division: Division, executor: Executor, limit: int | None, reporter: Reporter
) -> None:
    """Train the networks of a survey that are not stored, those included that `division` adds, on workers that have started."""
    store.enroll(division)
    counts = store.counts()
    run = _Run(spec, store, executor, limit)
    stored = sum(counts.values())
    reporter.start(len(spec), stored, run.wanted, run.left())
    if run.wanted:
        store.begin_run(_writer(), executor.workers)
        for folder, wanted in ((SAVED, True), (WEIGHTS, spec.survey.keep_weights), (ARRAYS, spec.measure.keeps_arrays)):
            if wanted:
                (store.folder / folder).mkdir(exist_ok=True)
        for rows in run.train():
            reporter.stored(rows, run.left())
    if run.wanted == len(spec) - stored:
        # All are stored. A run that was killed between its last row and its end has left these, too.
        _forget_states(store.folder / SAVED)


def _forget_states(folder: Path) -> None:
    """Remove the saved states of a survey that is done, and their folder, if nothing else is in it."""
    for path in folder.glob("*"):
        if is_saved_state(path.name.removesuffix(UNFINISHED)):
            remove(path)
    with contextlib.suppress(OSError):
        folder.rmdir()


@dataclass
class _Task:
    """A stack to train."""

    stack: Stack
    most: int  # networks that are to be stored
    configurations: list[Configuration] = field(default_factory=list)  # empty until a worker has them
    begun: float = 0.0


class _Run:
    """The stacks that a run trains, and how far it is."""

    def __init__(self, spec: Spec, store: Store, executor: Executor, limit: int | None) -> None:
        self.spec, self.store, self.executor = spec, store, executor
        tasks: list[_Task] = []
        self.wanted = 0
        for stack in store.stacks(missing=True):
            most = stack.missing if limit is None else min(stack.missing, limit - self.wanted)
            if most <= 0:
                break
            tasks.append(_Task(stack, most))
            self.wanted += most
        self.in_progress: dict[int, _Task] = {}
        self.innocent: Counter[int] = Counter()
        # The long ones first, so that the workers finish together.
        self.waiting = deque(sorted(tasks, key=lambda task: task.stack.seconds, reverse=True))
        self.predicted_waiting = sum(task.stack.seconds for task in tasks)
        self.predicted = self.measured = 0.0

    def left(self) -> float:
        """Return the seconds that the rest will take."""
        now = time.monotonic()
        begun = [(task.stack.seconds, now - task.begun) for task in self.in_progress.values()]
        return seconds_left(self.predicted, self.measured, self.predicted_waiting, begun, self.executor.workers)

    def train(self) -> Iterator[list[Row]]:
        """Train the stacks, store the rows of each, and yield them."""
        while self.waiting or self.in_progress:
            while self.waiting and len(self.in_progress) < STACKS_PER_WORKER * self.executor.workers:
                self._submit(self.waiting.popleft())
            number, answer = self.executor.answer()
            task = self.in_progress.pop(number)
            if isinstance(answer, Lost):
                rows, seconds = self._after_accident(task, answer), 0.0
                if not rows:
                    continue
            else:
                rows, seconds = answer.rows, answer.seconds
                self.predicted += task.stack.seconds
                self.measured += seconds
            if task.most < len(rows):
                missing = self.store.missing(number)
                rows = [row for row in rows if row["id"] in missing][: task.most]
            self.store.record(*rows, stack=number, measured=seconds)
            self._forget_state(task)
            yield rows

    def _submit(self, task: _Task) -> None:
        number = task.stack.number
        task.begun, task.configurations = time.monotonic(), configurations(self.spec, self.store.members(number))
        self.in_progress[number] = task
        self.predicted_waiting -= task.stack.seconds
        self.executor.submit(number, task.configurations)

    def _forget_state(self, task: _Task) -> None:
        saved_state(self.store.folder / SAVED, task.configurations).unlink(missing_ok=True)

    def _after_accident(self, task: _Task, lost: Lost) -> list[Row]:
        """Have a stack trained again, in halves or, if it is innocent, as it is; return rows if that has been done before."""
        number = task.stack.number
        self.innocent[number] += lost.innocent
        if lost.innocent and self.innocent[number] <= INNOCENT:
            self._again(task)
            return []
        if task.stack.accident is not None:
            before = "" if task.stack.accident == lost.reason else f", and before that in a larger stack: {task.stack.accident}"
            error = f"{lost.reason}{before or ', twice'}"
            outcome = {"state": "failed", "error": error, "version": version("sensitometer"), "host": platform.node()}
            return [{"id": network.id, **network.as_dict(), **outcome} for network in task.configurations]
        # The halves do not go on from it: it is of all networks together.
        self._forget_state(task)
        most = task.most
        for half in reversed(self.store.divide(task.stack, lost.reason)):
            self._again(_Task(half, min(most, half.missing)))
            most -= min(most, half.missing)
        return []

    def _again(self, task: _Task) -> None:
        if task.most:
            self.predicted_waiting += task.stack.seconds
            self.waiting.appendleft(task)
