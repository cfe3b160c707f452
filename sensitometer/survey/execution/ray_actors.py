"""The actors of a Ray cluster, with one worker process each. Imports no torch."""

import contextlib
import platform
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from ...configuration import Configuration
from ...errors import SensitometerError, WorkerError
from ...files import locked
from ...store import ARRAYS, SAVED, WEIGHTS
from ...store.arrays import SUFFIX
from ..scheduling.stacks import saved_state
from .executor import Answer
from .local import WORKER, WorkerHost, with_matmul_path

# How long the actors of a machine may take to choose their matrix-product path, one after another.
MEASURE_SECONDS = 600.0
FOLDERS = (SAVED, WEIGHTS, ARRAYS)


class Trained(NamedTuple):
    """An actor's answer for a stack, and the bytes of the files that it left, by their paths in the survey's folder."""

    answer: Answer
    files: dict[str, bytes]


class Host:
    """An actor: one worker process, with folders of the machine that it is on. Returns errors, as they are."""

    def about(self) -> dict[str, str]:
        """Return where this is, and the version of the package there."""
        node = ray.get_runtime_context().get_node_id()
        return {"node": node, "host": platform.node(), "version": version("sensitometer")}

    def prepare(self, setup: dict[str, Any], command: Sequence[str], folder: str) -> SensitometerError | None:
        """Start the worker and wait until it has set itself up; return what kept it from that."""
        self._here = here = Path(tempfile.gettempdir(), folder)
        try:
            for made in (here, *(here / name for name in FOLDERS)):
                made.mkdir(mode=0o700, exist_ok=True)
            # One after another: where the path was never chosen, that takes measurements, which others would disturb.
            with locked(here / "matmul.lock", MEASURE_SECONDS):
                setup = with_matmul_path({**setup, "folder": str(here)})
            self._worker = WorkerHost(setup, command or WORKER)
            self._worker.wait()
        except SensitometerError as error:
            return error
        except OSError as error:
            return WorkerError(f"cannot prepare {here}: {error.strerror or error}")
        return None

    def train(self, stack: Sequence[Configuration]) -> Trained | SensitometerError:
        """Have a stack trained; return the answer and its files, or the obstacle to all stacks."""
        try:
            answer = self._worker.train(stack)
            # Trained, or lost and then trained otherwise: nobody will go on from it.
            saved_state(self._here / SAVED, stack).unlink(missing_ok=True)
            files = {}
            for name in (f"{folder}/{network.id}{SUFFIX}" for folder in (WEIGHTS, ARRAYS) for network in stack):
                file = self._here / name
                if file.exists():
                    files[name] = file.read_bytes()
                    file.unlink()
        except SensitometerError as error:
            return error
        except OSError as error:
            return WorkerError(f"cannot read what was trained: {error.strerror or error}")
        return Trained(answer, files)

    def leave(self) -> None:
        """Remove the folders, but for states that a later run may go on from."""
        (self._here / "matmul.lock").unlink(missing_ok=True)
        for left in (*(self._here / name for name in FOLDERS), self._here):
            with contextlib.suppress(OSError):  # it is not empty, or another actor has removed it
                left.rmdir()


def end(actor: Any) -> None:
    """End an actor, even while it works, and its worker with it."""
    # It may have ended, and so may the connection to the cluster.
    with contextlib.suppress(RayError):
        ray.kill(actor)


def line(error: Exception) -> str:
    """Return the line of an error that says most: the last one of a traceback, and the first sentence of the others."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    last = lines[-1].strip()
    return last.partition(". ")[0] if isinstance(error, RayError) and not isinstance(error, RayTaskError) else last
