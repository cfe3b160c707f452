"""Surveys as a whole: run, interrupted, killed, resumed, refused."""

import contextlib
import dataclasses
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open

import sensitometer as sm
from sensitometer.errors import DataError, StoreError
from sensitometer.store import Store
from sensitometer.store.schema import COLUMNS, RESULT_COLUMNS
from sensitometer.survey.execution.local import LocalExecutor
from sensitometer.survey.execution.worker import OutOfMemoryError, _Worker
from sensitometer.survey.runner import Reporter, being_written, only_writer, train_missing
from sensitometer.survey.scheduling import division
from sensitometer.survey.spec import parse_spec

from .conftest import SMALL
from .execution.fake_worker import DIES, EXITS, TOO_LARGE
from .execution.test_executors import FAKE

# The data of a worker.
DIGITS = {"names": ["digits"], "crop": None, "train_points": 200, "normalise": None, "file": None, "sha256": None}
# Two runs on one machine have the same bits in these.
REPEATABLE = ["id", *(name for name in RESULT_COLUMNS if name != "seconds")]


def command(*arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-m", "sensitometer", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options,
    )  # fmt: skip


def wait_for_rows(run, out, rows, timeout=180):
    """Wait until a command has stored so many networks."""
    deadline = time.monotonic() + timeout
    while not Store.exists(out) or sum(Store(out).counts().values()) < rows:
        assert run.poll() is None, f"the command has ended: {run.communicate()}"
        assert time.monotonic() < deadline, "no rows were stored"
        time.sleep(0.02)


def same(a, b):
    pd.testing.assert_frame_equal(a[REPEATABLE], b[REPEATABLE], check_exact=True)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The rows of the small survey, run without an accident."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "small.toml").write_text(SMALL)
    with sm.run_survey(folder / "small.toml", folder / "out", workers=2) as store:
        return store.frame()


@pytest.fixture
def started(monkeypatch):
    """The workers that this test starts, as they come."""
    processes = []
    popen = subprocess.Popen

    def remembering(*arguments, **options):
        process = popen(*arguments, **options)
        if "survey.execution.worker" in arguments[0]:
            processes.append(process)
        return process

    monkeypatch.setattr("sensitometer.children.subprocess.Popen", remembering)
    return processes


def test_every_network_is_there_once_and_measured(uninterrupted):
    wanted = [c.id for c in parse_spec(SMALL, "test").configurations()]
    assert sorted(wanted) == list(uninterrupted["id"])
    sound = uninterrupted[uninterrupted.state.isin(["fitted", "unfitted"])]
    assert len(sound) > 60
    # A narrow ReLU network may die, and its Jacobian is 0 then.
    alive = sound[sound.jacobian_norm > 0]
    assert len(alive) > 60
    assert (alive.logit_jacobian_norm > alive.jacobian_norm).all()
    np.testing.assert_allclose(sound.gap, sound.train_accuracy - sound.test_accuracy)
    assert ((sound.state == "fitted") == (sound.train_accuracy == 1)).all()
    assert sound.transitions.notna().all()
    assert (alive.transitions > 0).all()
    assert set(uninterrupted.matmul_path) == {"stock"}
    assert set(uninterrupted.torch) == {torch.__version__}
    assert uninterrupted.version.notna().all()
    assert uninterrupted.host.notna().all()


def test_the_same_networks_trained_in_this_process_have_the_same_rows(uninterrupted):
    spec = parse_spec(SMALL, "test")
    dataset = sm.load_dataset("digits", train_points=200)
    chosen = random.Random(1).sample(list(spec.configurations()), 12)
    schedule = sm.Schedule(decay_every_epochs=20, stop_at_accuracy=1.0)
    results = sm.train(chosen, dataset, schedule=schedule, jacobian_points=50)
    stored = uninterrupted.set_index("id")
    for configuration, result in zip(chosen, results, strict=True):
        assert result.row["id"] == configuration.id
        row = stored.loc[configuration.id]
        assert result.row["state"] == row.state
        assert result.row["weights"] == row.weights
        assert result.row["steps_done"] == row.steps_done
        for name in ("train_accuracy", "test_accuracy", "train_loss", "test_loss", "jacobian_norm", "logit_jacobian_norm"):
            assert result.row[name] == pytest.approx(row[name], rel=2e-3, abs=0.011), name
        norms = sm.jacobian_norm(result.network, dataset.test.x[:50])
        assert float(norms.double().mean()) == pytest.approx(result.row["jacobian_norm"], rel=1e-5)


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_ended_and_run_again_has_the_rows_of_an_uninterrupted_one(small, tmp_path, uninterrupted, signal_number):
    out = tmp_path / "out"
    run = command("run", small, "--out", out, "--workers", 1)
    wait_for_rows(run, out, 4)
    run.send_signal(signal_number)
    _, errors = run.communicate(timeout=60)
    if signal_number == signal.SIGINT:
        assert run.returncode == 130
        assert "interrupted" in errors
        assert "Traceback" not in errors
    stored = Store(out).frame()
    assert 4 <= len(stored) < 64
    with sm.run_survey(small, out, workers=1) as store:
        frame = store.frame()
    same(frame, uninterrupted)
    # Stored rows were left alone.
    kept = frame.set_index("id").loc[stored.id]
    assert (kept.stored_at.to_numpy() == stored.stored_at.to_numpy()).all()


def test_the_workers_of_a_run_that_was_killed_end_too(small, tmp_path):
    run = command("run", small, "--out", tmp_path / "out", "--workers", 2, start_new_session=True)
    wait_for_rows(run, tmp_path / "out", 1)
    run.kill()
    run.communicate(timeout=60)
    deadline = time.monotonic() + 60
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(run.pid, 0)  # raises once no process of the group is left
            time.sleep(0.1)


class AtFirst:
    """A reporter that does something when the first rows are stored."""

    def __init__(self, act):
        self.act = act

    def start(self, networks, stored, wanted, left):
        assert left > 0

    def stored(self, rows, left):
        act, self.act = self.act, lambda: None
        act()


def test_the_stack_of_a_worker_that_is_killed_is_trained_again_in_halves(small, tmp_path, uninterrupted, started):
    killing = AtFirst(lambda: started[-1].kill())
    with sm.run_survey(small, tmp_path / "out", workers=1, reporter=killing) as store:
        same(store.frame(), uninterrupted)
        divided = [stack for stack in store.stacks() if stack.accident]
        assert [stack.networks for stack in divided] == [4, 4]
        assert {stack.accident for stack in divided} == {"a worker was ended by signal 9"}
        assert sum(stack.networks for stack in store.stacks()) == 64
        assert {member.id for member in store.all_members()} == set(uninterrupted["id"])
    assert len(started) == 2


def run_with_fakes(text, out, limit=None, workers=2, size=8):
    """Run a survey with workers that train nothing."""
    spec = parse_spec(text, "test")
    with contextlib.closing(LocalExecutor(workers, "cpu", FAKE)) as executor, contextlib.ExitStack() as stack:
        store = stack.enter_context(Store(out) if Store.exists(out) else Store.create(out, text))
        kinds = {configuration.kind for configuration in spec.configurations()}
        stack.enter_context(patch.object(division, "choose_stack_sizes", lambda *_: dict.fromkeys(kinds, size)))
        stacks = division.divide(spec, store, "cpu")
        executor.start({"device": "cpu"}, 100)
        train_missing(spec, store, stacks, executor, limit, Reporter())
        return store.frame(), store.stacks()


def test_a_stack_that_meets_with_an_accident_again_and_again_is_failed_with_the_reason(tmp_path):
    text = SMALL.replace("[4, 12]", f"[4, {DIES}, {EXITS}]").replace("[2, 3]", "[2]").replace('["relu", "tanh"]', '["relu"]')
    frame, stacks = run_with_fakes(text, tmp_path / "out")
    assert len(frame) == 24
    for width, error in ((DIES, "a worker was ended by signal 9, twice"), (EXITS, "a worker ended with status 3, twice")):
        failed = frame[frame.width == width]
        assert set(failed.state) == {"failed"}
        assert set(failed.error) == {error}
        assert failed.host.notna().all()
    assert (frame[frame.width == 4].state == "unfitted").all()
    assert all(stack.missing == 0 for stack in stacks)


def test_a_stack_that_is_too_large_for_the_memory_is_halved_once(tmp_path):
    text = SMALL.replace("[4, 12]", f"[{TOO_LARGE}]").replace("[2, 3]", "[2]").replace('["relu", "tanh"]', '["relu"]')
    for size, state in ((2, "unfitted"), (4, "failed")):
        frame, _ = run_with_fakes(text, tmp_path / str(size), size=size)
        assert len(frame) == 8
        assert set(frame.state) == {state}
    error = "MemoryError: no room for 2 networks, and before that in a larger stack: MemoryError: no room for 4 networks"
    assert set(frame.error) == {error}


LONG = """
[survey]
name = "long"

[data]
name = "digits"

[space]
width = [8]
depth = [3]
optimizer = ["adam"]
learning_rate = [0.001]
augmentation = ["shift-flip"]
batch_size = [100]
seed = [1, 2]

[training]
steps = 2500

[measure]
jacobian = 50
"""


def test_a_run_that_is_killed_in_a_long_training_goes_on_from_its_saved_state(tmp_path, monkeypatch):
    (tmp_path / "long.toml").write_text(LONG)
    with sm.run_survey(tmp_path / "long.toml", tmp_path / "whole", workers=1) as store:
        whole = store.frame()
    out = tmp_path / "out"
    impatient = "import sys, sensitometer.survey.runner as r, sensitometer as sm; r.SECONDS_BETWEEN_SAVES = 0.2; "
    impatient += "sm.run_survey(*sys.argv[1:], workers=1)"
    run = subprocess.Popen([sys.executable, "-c", impatient, str(tmp_path / "long.toml"), str(out)])
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list((out / "saved").glob("*.safetensors")):
        time.sleep(0.01)
    run.kill()
    run.wait()
    (saved,) = [file for file in (out / "saved").iterdir() if file.is_file()]
    with safe_open(saved, framework="pt") as file:
        done = json.loads(file.metadata()["numbers"])["done"]
    assert 0 < done < 2500
    start = time.perf_counter()
    with sm.run_survey(tmp_path / "long.toml", out, workers=1) as store:
        same(store.frame(), whole)
        # The time before the accident counts, too.
        assert store.frame().seconds.sum() < time.perf_counter() - start + whole.seconds.sum()
    assert not (out / "saved").exists()


def test_an_accident_takes_the_saved_state_of_the_whole_stack_along(tmp_path, started, monkeypatch):
    monkeypatch.setattr("sensitometer.survey.runner.SECONDS_BETWEEN_SAVES", 0.2)
    (tmp_path / "long.toml").write_text(LONG)
    out = tmp_path / "out"
    killer = threading.Thread(target=kill_when_saved, args=(out, started))
    killer.start()
    with sm.run_survey(tmp_path / "long.toml", out, workers=1) as store:
        assert [stack.networks for stack in store.stacks()] == [1, 1]
        assert store.counts()["failed"] == 0
    killer.join()
    assert not (out / "saved").exists()


def kill_when_saved(out, started):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not list((out / "saved").glob("*.safetensors")):
        time.sleep(0.01)
    started[0].kill()


def test_a_run_that_an_exception_ends_leaves_no_workers_behind(small, tmp_path, started):
    def breaks():
        raise KeyError("broken")

    with pytest.raises(KeyError):
        sm.run_survey(small, tmp_path / "out", workers=2, reporter=AtFirst(breaks))
    time.sleep(0.5)
    assert len(started) == 2, "a worker was started after the end"
    assert all(process.poll() is not None for process in started)


def test_a_finished_survey_is_plain_sqlite_and_starts_no_workers(small, tmp_path, monkeypatch):
    text = SMALL.replace("steps = 120", "steps = 1").replace("[4, 12]", "[4]")
    small.write_text(text)
    sm.run_survey(small, tmp_path / "out", workers=1).close()
    monkeypatch.setattr("sensitometer.children.subprocess.Popen", None)
    with sm.run_survey(small, tmp_path / "out") as store:
        assert sum(store.counts().values()) == 32
    with contextlib.closing(sqlite3.connect(tmp_path / "out" / "survey.sqlite")) as connection:
        assert connection.execute("SELECT count(*) FROM networks WHERE state = 'unfitted'").fetchone() == (32,)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["run.lock", "spec.toml", "survey.sqlite"]


def test_limits_add_up_to_the_whole_survey(small, tmp_path, uninterrupted):
    wanted = {c.id for c in parse_spec(SMALL, "test").configurations()}
    stored = set()
    for limit, count in ((5, 5), (30, 35)):
        with sm.run_survey(small, tmp_path / "out", limit=limit, workers=1) as store:
            before, stored = stored, set(store.frame(["id"])["id"])
            assert len(stored) == count
            assert before < stored < wanted
            # Stack by stack: no more than one is trained whose networks are not all stored.
            assert sum(0 < stack.missing < stack.networks for stack in store.stacks()) <= 1
    with sm.run_survey(small, tmp_path / "out", limit=1000, workers=1) as store:
        same(store.frame(), uninterrupted)


def test_a_sample_may_grow(small, tmp_path, uninterrupted, refused):
    sampled = SMALL + "[sample]\ncount = {}\nseed = 3\n"
    out = tmp_path / "out"
    for count in (33, 64):
        small.write_text(sampled.format(count))
        with sm.run_survey(small, out, workers=1) as store:
            frame = store.frame()
            assert set(frame.id) == {one.id for one in parse_spec(store.specification, "test").configurations()}
            assert len(frame) == count
    small.write_text(sampled.format(33))
    with refused(r"another specification \(sample\.count\): .*; only sample\.count may grow", StoreError):
        sm.run_survey(small, out)
    small.write_text(sampled.format(64).replace("seed = 3", "seed = 4"))
    with refused(r"another specification \(sample\.seed\)", StoreError):
        sm.run_survey(small, out)
    # In other company, and so up to rounding.
    same_settings = ["id", "state", "steps_done", "weights"]
    pd.testing.assert_frame_equal(frame[same_settings], uninterrupted[same_settings])
    np.testing.assert_allclose(frame.jacobian_norm, uninterrupted.jacobian_norm, rtol=1e-3)


def test_another_specification_on_the_same_folder_is_refused_and_nothing_is_changed(small, tmp_path, refused):
    text = SMALL.replace("steps = 120", "steps = 0").replace("[4, 12]", "[4]")
    before, _ = run_with_fakes(text, tmp_path / "out")
    for old, new, key in [
        ("steps = 0", "steps = 1", "training.steps"),
        ("width = [4]", "width = [5]", "space.width"),
        ("[measure]", "[sample]\ncount = 3\n[measure]", "sample"),
    ]:
        small.write_text(text.replace(old, new))
        with refused(rf"out holds a survey with another specification \({key}\): choose another folder", StoreError):
            sm.run_survey(small, tmp_path / "out")
    pd.testing.assert_frame_equal(Store(tmp_path / "out").frame(), before)
    # The same one, otherwise written, is not.
    small.write_text("# a comment\n" + text)
    sm.run_survey(small, tmp_path / "out").close()


def test_a_second_run_on_the_same_folder_is_refused(tmp_path, refused):
    # Long enough to be in training while the second one tries.
    (tmp_path / "long.toml").write_text(LONG.replace("2500", "100_000"))
    run = command("run", tmp_path / "long.toml", "--out", tmp_path / "out", "--workers", 1)
    wait_for_rows(run, tmp_path / "out", 0)
    try:
        with refused(f"process {run.pid} on .*, since 2.*, is writing to .*out: wait for it, or choose another", StoreError):
            sm.run_survey(tmp_path / "long.toml", tmp_path / "out")
    finally:
        run.kill()
        run.communicate(timeout=60)


def test_two_runs_that_begin_together_on_a_new_folder_end_with_one_survey(small, tmp_path, uninterrupted):
    runs = [command("run", small, "--out", tmp_path / "out", "--workers", 1) for _ in range(2)]
    ends = [(run.communicate(timeout=120)[1], run.returncode) for run in runs]
    assert sorted(status for _, status in ends) == [0, 2]
    for errors, status in ends:
        assert not status or re.search("process .* is writing to|there is a survey in .* already", errors)
    with Store(tmp_path / "out") as store:
        same(store.frame(), uninterrupted)


def test_a_specification_of_somebody_else_is_not_replaced(small, tmp_path, refused):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "spec.toml").write_text("# precious")
    with refused(r"out has another spec\.toml, and no survey: choose another folder, or remove it", StoreError):
        sm.run_survey(small, tmp_path / "out", limit=1, workers=1)
    assert (tmp_path / "out" / "spec.toml").read_text() == "# precious"


def test_missing_data_are_named_before_anything_is_made(small, tmp_path, monkeypatch, refused):
    monkeypatch.setenv("SENSITOMETER_DATA", str(tmp_path / "nowhere"))
    small.write_text(SMALL.replace('"digits"', '"mnist"'))
    with refused("mnist lacks train-images-idx3-ubyte.gz.* in .*nowhere/mnist; run 'sensitometer data fetch mnist'", DataError):
        sm.run_survey(small, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_data_are_named_by_the_worker_that_reads_them(small, tmp_path, monkeypatch, refused):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    for kind in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (folder / f"{kind}-ubyte").write_bytes(b"rubbish")
    monkeypatch.setenv("SENSITOMETER_DATA", str(tmp_path / "data"))
    small.write_text(SMALL.replace('"digits"', '"mnist"'))
    with refused("train-images-idx3-ubyte", DataError):
        sm.run_survey(small, tmp_path / "out", workers=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be a whole number of at least 1; got 0"),
        ({"workers": "two"}, "workers must be a whole number of at least 1; got 'two'"),
        ({"limit": 1.5}, "limit must be a whole number of at least 1; got 1.5"),
        ({"device": None}, "device must be cpu or cuda; got None"),
        ({"device": "tpu"}, "device must be cpu or cuda; got 'tpu'"),
    ],
)
def test_bad_options_are_refused(small, tmp_path, options, message, refused):
    with refused(message):
        sm.run_survey(small, tmp_path / "out", **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused(small, tmp_path, refused):
    with refused("device cuda was asked for, but torch finds 0 CUDA devices here"):
        sm.run_survey(small, tmp_path / "out", device="cuda")
    assert not (tmp_path / "out").exists()


def test_an_exception_in_a_stack_is_stored_with_its_text(monkeypatch, tmp_path):
    worker = _Worker("cpu", DIGITS, {}, {}, str(tmp_path), False, 60.0)
    stack = [sm.Configuration("digits", 4, 2, seed=seed) for seed in (1, 2)]

    def fail(*_, **__):
        raise ValueError("no such number")

    monkeypatch.setattr("sensitometer.survey.job.train_and_measure.train_and_measure", fail)
    rows = worker.work(stack)
    assert [row["id"] for row in rows] == [one.id for one in stack]
    assert {row["state"] for row in rows} == {"failed"}
    assert {row["error"] for row in rows} == {"ValueError: no such number"}
    assert all("gap" not in row for row in rows)


def no_room_for_numbers(*_, **__):
    torch.empty(10**15)


def no_room_on_a_gpu(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nand much more")


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (no_room_for_numbers, "RuntimeError: .*can't allocate memory: you tried to allocate 4000000000000000 bytes.*"),
        (no_room_on_a_gpu, r"OutOfMemoryError: CUDA out of memory\. Tried to allocate 2\.00 GiB\."),
    ],
)
def test_a_stack_that_is_too_large_for_the_memory_is_lost_not_failed(monkeypatch, tmp_path, fail, message):
    worker = _Worker("cpu", DIGITS, {}, {}, str(tmp_path), False, 60.0)
    monkeypatch.setattr("sensitometer.survey.job.train_and_measure.train_and_measure", fail)
    with pytest.raises(OutOfMemoryError, match=rf"\A{message}\Z"):
        worker.work([sm.Configuration("digits", 4, 2)])


def test_weights_are_kept_and_where_they_cannot_be_written_the_run_ends_and_the_next_one_goes_on(small, tmp_path, refused):
    text = SMALL.replace('name = "small"', 'name = "small"\nkeep_weights = true').replace("[4, 12]", "[4]")
    small.write_text(text)
    configurations = list(parse_spec(text, "test").configurations())
    out = tmp_path / "out"
    sm.run_survey(small, out, limit=1, workers=1).close()
    in_the_way = out / "weights" / f"{configurations[-1].id}.safetensors"
    in_the_way.mkdir()
    with refused(f"cannot write the network to .*{in_the_way.name}", StoreError):
        sm.run_survey(small, out, workers=1)
    in_the_way.rmdir()
    with sm.run_survey(small, out, workers=1) as store:
        frame = store.frame()
    assert len(frame) == 32
    assert (frame.state != "failed").all()
    x = sm.load_dataset("digits", train_points=200).test.x[:50]
    for row in frame[frame.state != "diverged"].itertuples():
        network = sm.MLP.load(out / "weights" / f"{row.id}.safetensors")
        assert float(sm.jacobian_norm(network, x).mean()) == pytest.approx(row.jacobian_norm, rel=1e-5)


def test_a_network_that_diverges_is_stored_as_such_without_measures(small, tmp_path):
    small.write_text(SMALL.replace("[0.05, 0.1]", "[0.05, 1e30]").replace("[4, 12]", "[4]"))
    with sm.run_survey(small, tmp_path / "out", workers=1) as store:
        frame = store.frame()
    hot = frame.learning_rate == 1e30
    # Some ReLU networks die in their first step instead, and stay as they are.
    assert (frame.state[hot] == "diverged").sum() > 4
    assert (frame.state[~hot] != "diverged").all()
    diverged = frame[frame.state == "diverged"]
    assert diverged[["gap", "train_loss", "jacobian_norm", "test_accuracy", "transitions"]].isna().all(axis=None)
    assert frame[~hot][["jacobian_norm", "transitions"]].notna().all(axis=None)


def test_training_on_another_data_set_than_the_configuration_names_is_refused(refused):
    digits = sm.load_dataset("digits", train_points=50)
    other = sm.Configuration("mnist", 4, 2, batch_size=10, steps=0)
    with refused(f"the data set is digits; configuration {other.id} is for mnist"):
        sm.train([other], digits)


@pytest.mark.parametrize(
    ("configurations", "options", "message"),
    [
        (sm.Configuration("digits", 4, 2), {}, "configurations must be a list of Configuration; got Configuration"),
        (["quick"], {}, "configurations must be a list of Configuration; got 'quick' in it"),
        ([], {"jacobian_points": -1}, "jacobian_points must be a whole number of at least 0; got -1"),
        ([], {"transition_points": 1.5}, "transition_points must be a whole number of at least 0; got 1.5"),
        ([], {"transition_points": True}, "transition_points must be a whole number of at least 0; got True"),
        ([], {"transition_samples": 1}, "transition_samples must be a whole number of at least 2; got 1"),
        ([], {"device": torch.device("cpu")}, r"device must be cpu or cuda; got device\(type='cpu'\)"),
    ],
)
def test_what_is_no_training_is_refused(configurations, options, message, refused):
    with refused(message):
        sm.train(configurations, sm.load_dataset("digits", train_points=50), **options)


def test_what_is_no_data_set_is_refused(refused):
    with refused("dataset must be a Dataset, as load_dataset returns it; got 'digits'"):
        sm.train([sm.Configuration("digits", 4, 2)], "digits")


def test_a_row_has_every_column_whatever_was_measured():
    digits = sm.load_dataset("digits", train_points=50)
    hot = sm.Configuration("digits", 4, 2, activation="tanh", learning_rate=1e30, batch_size=10, steps=50)
    for result in sm.train([hot, dataclasses.replace(hot, learning_rate=0.01)], digits, jacobian_points=0):
        assert result.row.keys() == COLUMNS.keys() - {"stored_at"}
        assert result.row["jacobian_norm"] is None
        assert result.row["transitions"] is None
        assert (result.row["gap"] is None) == (result.row["state"] == "diverged")


def test_training_gives_the_process_its_threads_back():
    digits = sm.load_dataset("digits", train_points=50)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        sm.train([sm.Configuration("digits", 4, 2, batch_size=10, steps=0)], digits, jacobian_points=0)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_folder_that_cannot_be_written_is_refused_before_workers_start(small, tmp_path, started, refused):
    (tmp_path / "file").touch()
    for out, reason in ((tmp_path / "file" / "out", "Not a directory"), (Path("/proc/out"), "No such file or directory")):
        with refused(f"cannot write to {out}: {reason}", StoreError):
            sm.run_survey(small, out)
    assert not started


def test_whoever_looks_whether_a_run_writes_refuses_none(tmp_path):
    looking = True

    def look():
        while looking:
            being_written(tmp_path)

    readers = [threading.Thread(target=look) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for _ in range(100):
            with only_writer(tmp_path):
                pass
    finally:
        looking = False
        for reader in readers:
            reader.join()
