"""
The cost of a survey beyond the training: networks that train nothing, through all that a network goes through.

    pip install optuna ray -c constraints.txt
    python benchmarks/survey.py

Enumerate, divide into stacks, hand them to a worker, store their rows: Sensitometer with a worker process or with a Ray actor,
beside the same through Optuna (a study in SQLite, a trial a network) and through bare Ray (a task a network, its row stored in
SQLite). Without Optuna or Ray their lines are missing. What is made up in place of training is timed alone, and taken off.

Then the large survey, all of it stored: how long it takes to enumerate, to go on with, to look at and to draw. All on one core,
but for Ray, whose processes have all there are.
"""

import argparse
import contextlib
import dataclasses
import datetime
import importlib.util
import json
import math
import os
import platform
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

from interleaved import record

from sensitometer import matmul
from sensitometer.children import pipes, receive, send
from sensitometer.configuration import Configuration
from sensitometer.store import Store
from sensitometer.survey import load_spec
from sensitometer.survey.execution.executor import Executor
from sensitometer.survey.execution.local import LocalExecutor
from sensitometer.survey.runner import Reporter, train_missing
from sensitometer.survey.scheduling import division
from sensitometer.survey.spec import Spec, parse_spec

TITLE = "Surveys of networks that train nothing"
WORKER = (sys.executable, str(Path(__file__).resolve()), "--worker")
LOCAL, ACTOR, OPTUNA, TASKS = "Sensitometer, a worker process", "Sensitometer, a Ray actor", "Optuna, SQLite", "Ray, a task each"
NETWORKS = {LOCAL: 100_000, ACTOR: 100_000, OPTUNA: 1_000, TASKS: 10_000}
# In a stack: what narrow networks, which most of a large survey are, are trained in.
STACK = 64
ROUNDS = 3


def row(configuration: Configuration) -> dict[str, Any]:
    """Return what might have been measured of a network, from its id: half of all are fitted."""
    bits = int(configuration.id, 16)
    parts = [(bits >> shift & 0xFFFF) / 65536 for shift in (0, 16, 32, 48)]
    norm, loss, accuracy = math.exp(6 * parts[0] - 3), math.exp(-9 * parts[1]), 0.3 + 0.4 * parts[2]
    measured = {"train_accuracy": 1.0, "test_accuracy": accuracy, "gap": 1 - accuracy, "train_loss": loss, "test_loss": 1.3}
    return {
        "id": configuration.id,
        **configuration.as_dict(),
        "state": "fitted" if parts[3] < 0.5 else "unfitted",
        **measured,
        "jacobian_norm": norm,
        "logit_jacobian_norm": 9 * norm,
        "transitions": 99 * norm,
        "weights": configuration.width * 1000,
        "steps_done": 2**19,
        "seconds": 1.5,
        "version": "0",
        "torch": "0",
        "device": "cpu",
        "matmul_path": "stock",
        "host": "here",
    }


def work() -> None:
    """Answer as a worker does."""
    requests, answers = pipes()
    receive(requests)
    send(answers, {"rows": [], "seconds": 0.0})
    while True:
        rows = [row(Configuration(**one)) for one in receive(requests)["configurations"]]
        send(answers, {"rows": rows, "seconds": 1.0})


def survey_of(networks: int) -> tuple[Spec, str]:
    """Return the large survey, of so many networks."""
    spec, text = load_spec("large")
    assert spec.sample is not None
    text = text.replace(f"count = {spec.sample.count}", f"count = {networks}")
    return parse_spec(text, "large"), text


def run(spec: Spec, text: str, folder: Path, executor: Executor) -> float:
    """Take a survey from its specification to its last row, on a worker that has started; return the seconds."""
    kinds = {one.kind for one in spec.configurations()}
    alike = patch.object(division, "choose_stack_sizes", lambda *_: dict.fromkeys(kinds, STACK))
    with Store.create(folder, text) as store, alike:
        start = time.perf_counter()
        train_missing(parse_spec(text, "large"), store, division.divide(spec, store, "cpu"), executor, None, Reporter())
        return time.perf_counter() - start


def local(networks: int, folder: Path) -> float:
    """Return the seconds that a survey takes, its two processes on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        return surveyed(networks, folder, LocalExecutor(1, "cpu", WORKER))
    finally:
        os.sched_setaffinity(0, cores)


def actor(networks: int, folder: Path) -> float:
    """Return the seconds that a survey takes with an actor of a Ray cluster that is started for it."""
    from sensitometer.survey.execution.ray import RayExecutor

    return surveyed(networks, folder, RayExecutor(None, 1, "cpu", WORKER))


def surveyed(networks: int, folder: Path, executor: Executor) -> float:
    """Return the seconds that a survey takes, once the worker has started."""
    spec, text = survey_of(networks)
    with contextlib.closing(executor):
        executor.start({"device": "cpu"}, 1)
        seconds = run(spec, text, folder, executor)
    with Store(folder) as store:
        assert sum(store.counts().values()) == networks
    return seconds


def optuna(networks: int, folder: Path) -> float:
    """Return the seconds that a study takes: a trial a network, its settings enqueued, its numbers the trial's attributes."""
    import optuna as library
    from optuna.distributions import CategoricalDistribution

    library.logging.set_verbosity(library.logging.ERROR)
    spec, _ = survey_of(networks)
    start = time.perf_counter()
    folder.mkdir()
    study = library.create_study(storage=f"sqlite:///{folder / 'study.sqlite'}")
    wanted = [one.as_dict() for one in spec.configurations()]
    axes = {name: CategoricalDistribution(list({one[name]: None for one in wanted})) for name in wanted[0]}
    for one in wanted:
        study.enqueue_trial(one)
        trial = study.ask(axes)
        found = row(Configuration(**trial.params))
        trial.set_user_attr("measured", {name: value for name, value in found.items() if name not in axes})
        study.tell(trial, found["gap"])
    return time.perf_counter() - start


def tasks(networks: int, folder: Path) -> float:
    """Return the seconds that tasks take, one a network, and the storing of their rows, each in a transaction."""
    import ray as library

    library.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
    task = library.remote(row)
    spec, _ = survey_of(networks)
    library.get(task.remote(Configuration("digits", 4, 2)))
    start = time.perf_counter()
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(folder / "rows.sqlite")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("CREATE TABLE networks (id TEXT PRIMARY KEY, content TEXT)")
        waiting = [task.remote(one) for one in spec.configurations()]
        while waiting:
            done, waiting = library.wait(waiting, num_returns=min(100, len(waiting)))
            for found in library.get(done):
                with connection:
                    connection.execute("INSERT INTO networks VALUES (?, ?)", (found["id"], json.dumps(found)))
    seconds = time.perf_counter() - start
    library.shutdown()
    return seconds


def in_turns(folder: Path) -> dict[str, float]:
    """Return the milliseconds a network of each contender that is installed, the median of ROUNDS in turns."""
    there: dict[str, Callable[[int, Path], float]] = {LOCAL: local}
    if name_there("ray"):
        there |= {ACTOR: actor, TASKS: tasks}
    if name_there("optuna"):
        there[OPTUNA] = optuna
    found: dict[str, list[float]] = {name: [] for name in there}
    for turn in range(ROUNDS):
        for name, measure in there.items():
            found[name].append(1e3 * measure(NETWORKS[name], folder / f"{measure.__name__}-{turn}") / NETWORKS[name])
            print(name, f"{found[name][-1]:.3f} ms a network", file=sys.stderr)
    return {name: median(times) for name, times in found.items()}


@dataclasses.dataclass(frozen=True)
class Taken:
    """The cost of a process: seconds, and GB of memory."""

    seconds: float
    memory: float


def timed(*command: str) -> Taken:
    """Return what a program takes, on one core, the median of ROUNDS."""
    core = min(os.sched_getaffinity(0))
    code = (
        "import os, resource, subprocess, sys, time; os.sched_setaffinity(0, {int(sys.argv[1])}); start = time.perf_counter(); "
        "subprocess.run(sys.argv[2:], check=True, stdout=subprocess.DEVNULL); "
        "print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6)"
    )
    whole = [sys.executable, "-c", code, str(core), *command]
    answers = [subprocess.run(whole, capture_output=True, text=True, check=True).stdout.split() for _ in range(ROUNDS)]
    return Taken(*(median(float(answer[place]) for answer in answers) for place in (0, 1)))


# The commands on the large survey, each in a process of its own.
ENUMERATE = "from sensitometer.survey import load_spec; print(len({one.id for one in load_spec('large')[0].configurations()}))"
GO_ON = """
import sys
from sensitometer.store import Store
from sensitometer.survey import load_spec
from sensitometer.survey.scheduling.division import divide
from sensitometer.survey.runner import Reporter, train_missing

class FirstStack:
    workers = 1
    def submit(self, number, stack):
        sys.exit()

spec, _ = load_spec("large")
with Store(sys.argv[1]) as store:
    train_missing(spec, store, divide(spec, store, "cpu"), FirstStack(), None, Reporter())
"""


def large(folder: Path) -> dict[str, Taken]:
    """Return what is done with the large survey takes."""
    spec, text = survey_of(load_spec("large")[0].sample.count)  # type: ignore[union-attr]
    executor = LocalExecutor(1, "cpu", WORKER)
    with contextlib.closing(executor):
        executor.start({"device": "cpu"}, 1)
        run(spec, text, folder, executor)
    command = str(Path(sys.executable).with_name("sensitometer"))
    whole = {
        "enumerate": timed(sys.executable, "-c", ENUMERATE),
        "status": timed(command, "status", str(folder)),
        "figures 1 and 5, png": timed(command, "figures", str(folder), "--only", "1,5", "--format", "png"),
        "check": timed(command, "check", str(folder)),
        "export to Parquet": timed(command, "export", str(folder), str(folder / "all.parquet")),
    }
    with Store(folder) as store:
        # One of each stack is missing: what there is to go on with.
        store.forget([store.members(stack.number)[0].id for stack in store.stacks()])
    return {**whole, "go on, to the first stack": timed(sys.executable, "-c", GO_ON, str(folder))}


def report(costs: dict[str, float], work_: float, taken: dict[str, Taken]) -> str:
    """Lay the results out."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("sensitometer", "torch", "optuna", "ray") if name_there(name))
    ours = costs[LOCAL] - work_
    lines = [
        f"# {TITLE}",
        "",
        f"{datetime.date.today()}, {matmul.processor()}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}.",
        f"{versions}.",
        "",
        "| a network through | of | ms each | beyond the work | times |\n|---|---|---|---|---|\n"
        + "\n".join(
            f"| {name} | {NETWORKS[name]:,} | {cost:.3f} | {cost - work_:.3f} | {(cost - work_) / ours:.1f} |"
            for name, cost in costs.items()
        ),
        "",
        f"The large survey, {load_spec('large')[0].sample.count:,} networks stored:",  # type: ignore[union-attr]
        "",
        "| | seconds | GB |\n|---|---|---|\n"
        + "\n".join(f"| {name} | {one.seconds:.2f} | {one.memory:.2f} |" for name, one in taken.items()),
    ]
    return "\n".join(lines)


def work_alone() -> float:
    """Return the milliseconds a network of what is made up in place of training it."""
    wanted = [one.as_dict() for one in survey_of(NETWORKS[TASKS])[0].configurations()]
    start = time.perf_counter()
    for one in wanted:
        row(Configuration(**one))
    return 1e3 * (time.perf_counter() - start) / len(wanted)


def name_there(name: str) -> bool:
    """Return whether a package is installed."""
    return importlib.util.find_spec(name) is not None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and record if that was asked for."""
    parser = argparse.ArgumentParser(description=TITLE)
    parser.add_argument("--record", metavar="NAME", help="also write it to benchmarks/records/DATE-NAME.md")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("pipes", nargs="*", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.worker:
        work()
        return
    with tempfile.TemporaryDirectory() as temporary:
        text = report(in_turns(Path(temporary)), median(work_alone() for _ in range(ROUNDS)), large(Path(temporary) / "large"))
    print(text)
    if chosen.record:
        record(chosen.record, f"{text}\n", " ".join(sys.argv[1:]))


if __name__ == "__main__":
    main()
