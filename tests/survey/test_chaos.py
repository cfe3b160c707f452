"""Surveys that are killed at random moments, a hundred times, and gone on with until they are done."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import sensitometer as sm
from sensitometer.store import Store

from .test_run import REPEATABLE, uninterrupted  # noqa: F401  a fixture

pytestmark = pytest.mark.slow
RUNS = 100
# More than a survey may need, however unlucky.
MOST_RESUMED = 5


def children(pid):
    """The processes that a process has started, as far as they are still there."""
    with contextlib.suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def workers(pid):
    """Its workers among them."""
    found = []
    for child in children(pid):
        with contextlib.suppress(OSError):
            if b"survey.execution.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def rows(out):
    if not Store.exists(out):
        return 0
    with Store(out) as store:
        return sum(store.counts().values())


def frame_of(out):
    with Store(out) as store:
        return store.frame()


def wait_for_the_moment(chance, run, out):
    """Wait: for a moment of the whole run, or until so many networks are stored, and a little longer."""
    if chance.random() < 0.5:
        time.sleep(chance.uniform(0, 6))
    else:
        wanted = chance.randrange(64)
        while run.poll() is None and rows(out) < wanted:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.02))


@pytest.mark.parametrize("number", range(RUNS))
def test_a_survey_that_is_killed_has_every_row_once_and_the_same_numbers(number, small, tmp_path, uninterrupted):  # noqa: F811
    chance, out = random.Random(number), tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "sensitometer",
        "run",
        str(small),
        "--out",
        str(out),
        "--workers",
        str(chance.choice([1, 2])),
    ]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_for_the_moment(chance, run, out)
    victims = [run.pid] if number % 2 else workers(run.pid)
    with contextlib.suppress(ProcessLookupError):  # it was quicker
        os.kill(chance.choice(victims or [run.pid]), signal.SIGKILL)
    _, errors = run.communicate(timeout=120)
    assert "Traceback" not in errors
    stored = frame_of(out) if Store.exists(out) else pd.DataFrame({"id": [], "stored_at": []})
    for _ in range(MOST_RESUMED):
        if rows(out) == len(uninterrupted):
            break
        sm.run_survey(small, out).close()
    with Store(out) as store:
        frame = store.frame()
        assert [stack for stack in store.stacks() if stack.missing] == []
    pd.testing.assert_frame_equal(frame[REPEATABLE], uninterrupted[REPEATABLE], check_exact=True)
    # Rows stored before the accident were left alone.
    assert (frame.set_index("id").stored_at[stored.id].to_numpy() == stored.stored_at.to_numpy()).all()
    sm.run_survey(small, out).close()
    assert sorted(path.name for path in out.iterdir()) == ["run.lock", "spec.toml", "survey.sqlite"]
