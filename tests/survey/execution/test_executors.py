"""The contract of executors, with workers that train nothing."""

import contextlib
import sys
import time
from collections import Counter

import pytest

from sensitometer.configuration import Configuration
from sensitometer.errors import DataError, StoreError, WorkerError
from sensitometer.survey import run_survey
from sensitometer.survey.execution.executor import STACKS_PER_WORKER, Done, Lost
from sensitometer.survey.execution.local import LocalExecutor, gpu_names

from . import fake_worker
from .fake_worker import DIES, EXITS, NOISY, REFUSES, SLOW, TOO_LARGE

FAKE = (sys.executable, fake_worker.__file__)


def local(_, workers):
    return LocalExecutor(workers, "cpu", FAKE)


def on_ray(request, workers):
    request.getfixturevalue("connected")
    from sensitometer.survey.execution.ray import RayExecutor

    return RayExecutor(None, workers, "cpu", FAKE)


@pytest.fixture(params=[local, pytest.param(on_ray, marks=pytest.mark.ray)])
def executor(request):
    """Make executors of the fake workers, which end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda workers=2: stack.enter_context(contextlib.closing(request.param(request, workers)))


def started(executor, most=100, **setup):
    executor.start({"device": "cpu", **setup}, most)
    return executor


def stack(width=4, networks=2):
    return [Configuration("digits", width, 2, seed=seed) for seed in range(networks)]


def answers(executor, stacks):
    """Hand all stacks to an executor, as many at a time as a run does, and return the answers by number."""
    waiting, found = dict(enumerate(stacks)), {}
    while len(found) < len(stacks):
        while waiting and len(stacks) - len(waiting) - len(found) < STACKS_PER_WORKER * executor.workers:
            number = next(iter(waiting))
            executor.submit(number, waiting.pop(number))
        number, answer = executor.answer()
        assert number not in found
        found[number] = answer
    return found


def test_every_stack_is_answered_once_with_the_rows_of_its_networks(executor):
    stacks = [stack(width, networks) for width in range(1, 20) for networks in (1, 3)]
    found = answers(started(executor()), stacks)
    for number, configurations in enumerate(stacks):
        assert isinstance(found[number], Done)
        assert found[number].seconds == 0.5
        assert [row["id"] for row in found[number].rows] == [one.id for one in configurations]
        assert [row["width"] for row in found[number].rows] == [one.width for one in configurations]


def test_no_more_workers_are_started_than_there_are_stacks(executor):
    one = started(executor(4), most=1)
    assert one.workers == 1
    assert isinstance(answers(one, [stack()])[0], Done)


def test_stacks_are_trained_side_by_side(executor):
    two = started(executor())
    answers(two, [stack()] * 2)
    begun = time.monotonic()
    found = answers(two, [stack(SLOW)] * 4)
    assert time.monotonic() - begun < 4 * 0.3
    assert len({answer.rows[0]["host"] for answer in found.values()}) == 2


@pytest.mark.parametrize(
    ("width", "reason"),
    [
        (DIES, "a worker was ended by signal 9"),
        (EXITS, "a worker ended with status 3"),
        (TOO_LARGE, "MemoryError: no room for 2 networks"),
    ],
)
def test_a_stack_that_is_lost_says_why_and_the_others_are_trained(executor, width, reason):
    stacks = [stack(width) if number % 3 == 0 else stack() for number in range(12)]
    found = answers(started(executor()), stacks)
    for number, answer in found.items():
        assert answer == Lost(reason) if number % 3 == 0 else isinstance(answer, Done)


def test_what_stands_in_the_way_of_all_stacks_is_raised(executor, refused):
    one = started(executor())
    one.submit(0, stack(REFUSES))
    with refused("cannot write to nowhere", StoreError):
        one.answer()


def test_workers_that_cannot_set_themselves_up_say_why(executor, refused):
    with refused("mnist is not there", DataError):
        started(executor(), refuse="mnist is not there")


def test_a_worker_that_cannot_be_started_again_ends_the_run(executor, tmp_path, refused):
    one = started(executor(1), once=str(tmp_path / "started"))
    assert answers(one, [stack(DIES)])[0] == Lost("a worker was ended by signal 9")
    one.submit(1, stack())
    with refused("a worker ended with status 4 before it was ready", WorkerError):
        one.answer()


def test_a_worker_that_is_killed_before_it_is_ready_is_started_again(executor, tmp_path):
    (tmp_path / "deaths").write_text("12")
    one = started(executor(1), deaths=str(tmp_path / "deaths"))
    assert isinstance(answers(one, [stack()])[0], Done)


def test_workers_that_are_killed_again_and_again_before_they_are_ready_end_the_run(tmp_path, refused):
    (tmp_path / "deaths").write_text("123456")
    with (
        contextlib.closing(LocalExecutor(1, "cpu", FAKE)) as one,
        refused("a worker was ended by signal 9 before it was ready", WorkerError),
    ):
        started(one, deaths=str(tmp_path / "deaths"))


def test_a_worker_that_ends_at_once_is_told_of(refused):
    no_worker = contextlib.closing(LocalExecutor(1, "cpu", ("/bin/false",)))
    with no_worker as one, refused("a worker ended with status 1 before it was ready", WorkerError):
        started(one)


@pytest.mark.parametrize(("workers", "each"), [(None, 1), (1, 1), (4, 2)])
def test_every_worker_has_a_gpu(monkeypatch, workers, each):
    monkeypatch.setattr("sensitometer.survey.execution.local.gpu_names", lambda: ["GPU-a", "3"])
    with contextlib.closing(LocalExecutor(workers, "cuda", FAKE)) as one:
        started(one, device="cuda")
        assert one.workers == (workers or 2)
        found = answers(one, [stack(SLOW)] * 3 * one.workers)
    seen = Counter((answer.rows[0]["host"], answer.rows[0]["device"]) for answer in found.values())
    assert Counter(device for _, device in seen) == dict.fromkeys(["GPU-a", "3"][: one.workers], each)


@pytest.mark.parametrize(
    ("visible", "names"), [(None, ["0", "1"]), ("5,2", ["5", "2"]), ("GPU-a,GPU-b,GPU-c", ["GPU-a", "GPU-b"])]
)
def test_gpus_are_named_as_cuda_names_them(monkeypatch, visible, names):
    counts = "from sensitometer.children import pipes, send; send(pipes()[1], 2)"
    monkeypatch.setattr("sensitometer.children.command", lambda _: (sys.executable, "-c", counts))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_names() == names


def test_ray_that_is_not_installed_is_asked_for(monkeypatch, refused):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "sensitometer.survey.execution.ray", raising=False)
    with refused(r"the executor ray needs Ray: pip install 'sensitometer\[ray\]'"):
        run_survey("quick", "nowhere", executor="ray")


def test_what_a_library_prints_does_not_come_between(executor):
    assert isinstance(answers(started(executor()), [stack(NOISY)])[0], Done)


def test_closing_ends_stacks_in_their_midst_and_may_be_done_before_the_start(executor):
    executor().close()
    one = started(executor())
    for number in range(2):
        one.submit(number, stack(SLOW))
    begun = time.monotonic()
    one.close()
    one.close()
    assert time.monotonic() - begun < 5
