"""Runs a survey: enumerate, divide into stacks, train what is not stored yet, store. Imports no torch."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import msgspec
from filelock import FileLock, Timeout

from .. import matmul
from ..configuration import Configuration
from ..data.locations import data_root, require_files
from ..data.sources import find_source
from ..device import check_device_name
from ..errors import InvalidInputError, StoreError, WorkerError
from ..store import SPECIFICATION, Store
from .executors import LocalExecutor
from .plan import choose_stack_sizes, default_workers
from .spec import Spec, load_spec, parse_spec
from .stacks import StackSize, make_stacks, saved_state

WEIGHTS = "weights"
SAVED = "saved"
SECONDS_BETWEEN_SAVES = 180.0


class Reporter(Protocol):
    """What a run tells while it runs."""

    def start(self, networks: int, stored: int, wanted: int, seconds: float) -> None:
        """Begin: so many networks in all, so many of them stored, so many to be trained now, in so much time at most."""

    def stored(self, row: Mapping[str, Any], seconds: float) -> None:
        """One more network is stored, its share of the time that was given to `start`."""


class Silent:
    """A reporter that says nothing."""

    def start(self, networks: int, stored: int, wanted: int, seconds: float) -> None:
        """Say nothing."""

    def stored(self, row: Mapping[str, Any], seconds: float) -> None:
        """Say nothing."""


def run_survey(
    spec: str | Path,
    out: str | Path,
    *,
    workers: int | None = None,
    device: str = "cpu",
    limit: int | None = None,
    reporter: Reporter | None = None,
) -> Store:
    """
    Train, measure and store the networks of a survey that are not stored yet.

    Each network is stored in one transaction as soon as its stack is done. A run that is interrupted or killed loses nothing that
    was stored, and the next one goes on; stacks are divided alike every time, so that what is trained again is trained alike.

    Parameters
    ----------
    spec
        A preset's name or a TOML file.
    out
        The survey's folder; made if it is not there.
    workers
        Worker processes; None: one a processor, or one on a CUDA device.
    device
        `cpu`, or a CUDA device.
    limit
        Store at most so many more networks, in the survey's own order.
    reporter
        Told of the progress; None: nobody is.

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
        Workers ended before they had answered; all other networks are stored.
    """
    for name, value in (("workers", workers), ("limit", limit)):
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InvalidInputError(f"{name} must be a whole number of at least 1; got {value!r}")
    check_device_name(device)
    checked, text = load_spec(spec)
    for name in checked.data.names:
        require_files(find_source(name), data_root() / name)
    out = Path(out)
    with contextlib.ExitStack() as stack:
        store = None
        if Store.exists(out):
            store = stack.enter_context(_open(out, checked))
            stack.enter_context(_only_writer(out))
        run = _Run(checked, out, store, workers or default_workers(device), device, limit)
        executor = stack.enter_context(contextlib.closing(LocalExecutor(run.workers, run.setup())))
        if store is None:
            # Only now, when all is well: a run that is refused leaves nothing behind.
            store = stack.enter_context(Store.create(out, text))
            stack.enter_context(_only_writer(out))
        run.go(store, executor, reporter or Silent())
    return Store(out)


def _open(out: Path, spec: Spec) -> Store:
    """Open the survey in `out`, or raise StoreError if it is another one."""
    store = Store(out)
    there = parse_spec(store.specification, str(out / SPECIFICATION))
    for section, ours in msgspec.structs.asdict(spec).items():
        theirs = getattr(there, section)
        if ours != theirs:
            names = ours.__struct_fields__ if ours is not None and theirs is not None else ()
            keys = [f"{section}.{name}" for name in names if getattr(ours, name) != getattr(theirs, name)] or [section]
            raise StoreError(
                f"{out} holds a survey with another specification ({', '.join(keys)}): choose another folder for this one"
            )
    return store


@contextlib.contextmanager
def _only_writer(out: Path) -> Iterator[None]:
    try:
        with FileLock(out / "run.lock", timeout=0):
            yield
    except Timeout:
        raise StoreError(f"another run is writing to {out}: wait for it, or choose another folder") from None


class _Run:
    """What one call of `run_survey` has to train, and the training of it."""

    def __init__(self, spec: Spec, out: Path, store: Store | None, workers: int, device: str, limit: int | None) -> None:
        self.spec = spec
        self.out = out
        self.device = device
        configurations = list(spec.configurations())
        stored = store.ids() if store else set()
        self.total = len(configurations)
        self.stored = sum(c.id in stored for c in configurations)
        self.wanted = set(islice((c.id for c in configurations if c.id not in stored), limit))
        self.sizes = {kind: StackSize(*size) for kind, size in store.stack_sizes().items()} if store else {}
        unknown = [c for c in configurations if c.kind not in self.sizes] if self.wanted else []
        self.chosen = choose_stack_sizes(spec, unknown, workers, device) if unknown else {}
        self.sizes |= self.chosen
        # Divided as if nothing were stored: a stack that was interrupted is trained whole again, to the same bits.
        divided = make_stacks(configurations, {kind: size.networks for kind, size in self.sizes.items()}) if self.wanted else []
        stacks = [stack for stack in divided if any(c.id in self.wanted for c in stack)]
        # The long ones first, so that the workers finish together.
        self.stacks = sorted(stacks, key=self._seconds, reverse=True)
        self.workers = min(workers, len(stacks))

    def _seconds(self, stack: Sequence[Configuration]) -> float:
        """Return the predicted time of a stack."""
        return self.sizes[stack[0].kind].seconds * len(stack)

    def go(self, store: Store, executor: LocalExecutor, reporter: Reporter) -> None:
        seconds = sum(self._seconds(stack) for stack in self.stacks)
        reporter.start(self.total, self.stored, len(self.wanted), seconds / max(1, self.workers))
        if not self.stacks:
            if self.stored == self.total:
                # A run that was killed between its last row and its end has left these.
                shutil.rmtree(self.out / SAVED, ignore_errors=True)
            return
        store.record_stack_sizes(self.chosen)
        store.begin_run()
        (self.out / SAVED).mkdir(exist_ok=True)
        if self.spec.survey.keep_weights:
            (self.out / WEIGHTS).mkdir(exist_ok=True)
        lost: list[str] = []
        for stack, answer in executor.run(self.stacks):
            if isinstance(answer, WorkerError):
                lost.append(str(answer))
                continue
            for row in answer:
                if row["id"] in self.wanted:
                    store.record(row)
                    reporter.stored(row, self.sizes[stack[0].kind].seconds / self.workers)
            saved_state(self.out / SAVED, stack).unlink(missing_ok=True)
        if not any(state.is_file() for state in (self.out / SAVED).iterdir()):
            shutil.rmtree(self.out / SAVED)
        if lost:
            raise WorkerError(
                f"{len(lost)} of {len(self.stacks)} stacks were not trained, {lost[0]}; the rest is stored: run again"
            )

    def setup(self) -> dict[str, Any]:
        """Return what a worker is set up with."""
        spec = self.spec
        return {
            "matmul_path": matmul.choose().path if self.stacks and self.device == "cpu" else matmul.STOCK,
            "device": self.device,
            "data": {"names": spec.data.names, "crop": spec.data.crop, "train_points": spec.data.train_points},
            "schedule": {
                "decay_every_epochs": spec.training.decay_every_epochs,
                "stop_at_accuracy": spec.training.stop_at_accuracy,
                "checkpoint_steps": spec.training.checkpoint_steps,
            },
            "measures": {
                "jacobian_points": None if spec.measure.jacobian == "all" else spec.measure.jacobian,
                "transition_points": None if spec.measure.transitions == "all" else spec.measure.transitions,
                "transition_samples": spec.measure.transition_samples,
            },
            "weights_folder": str(self.out / WEIGHTS) if spec.survey.keep_weights else None,
            "saved_folder": str(self.out / SAVED),
            "save_seconds": SECONDS_BETWEEN_SAVES,
        }
