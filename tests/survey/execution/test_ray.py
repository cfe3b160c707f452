"""Surveys on a Ray cluster: three nodes on this machine, which is told from three machines by nothing that Ray does."""

import contextlib
import logging
import os
import platform
import re
import signal
import socket
import tempfile
import time
from pathlib import Path

import pytest

import sensitometer as sm
from sensitometer.errors import DataError, StoreError, WorkerError
from sensitometer.store import Store
from sensitometer.survey.execution.executor import STACKS_PER_WORKER, Done, Lost
from sensitometer.survey.execution.local import WORKER
from sensitometer.survey.runner import Reporter, setup
from sensitometer.survey.spec import parse_spec

from ..conftest import NODE, SMALL
from ..test_run import command, same, wait_for_rows
from .fake_worker import SLOW
from .test_executors import FAKE, answers, stack

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def local_rows(tmp_path_factory):
    """The rows of the small survey, as the workers of this machine make them."""
    folder = tmp_path_factory.mktemp("local")
    (folder / "small.toml").write_text(SMALL)
    with sm.run_survey(folder / "small.toml", folder / "out", workers=3) as store:
        return store.frame()


@pytest.fixture
def on_ray(monkeypatch):
    """Make executors, which end with the test."""
    from sensitometer.survey.execution import ray as ray_executor

    monkeypatch.setattr(ray_executor, "LOOK_SECONDS", 1.0)
    with contextlib.ExitStack() as ends:

        def on_ray(cluster, workers=None, command=FAKE, device="cpu"):
            return ends.enter_context(contextlib.closing(ray_executor.RayExecutor(cluster.address, workers, device, command)))

        yield on_ray


@contextlib.contextmanager
def one_more(cluster, **options):
    """Add a node to the cluster, for a while."""
    node = cluster.add_node(**NODE | options)
    try:
        yield node
    finally:
        with contextlib.suppress(Exception):  # it may have been removed
            cluster.remove_node(node, allow_graceful=False)


class AtTheFirst(Reporter):
    """Does something when the first stack is stored."""

    def __init__(self, what):
        self.what = what

    def stored(self, rows, left):
        what, self.what = self.what, lambda: None
        what()


def test_a_survey_on_a_cluster_has_the_rows_of_one_on_this_machine_and_ray_says_nothing(cluster, small, tmp_path, local_rows):
    run = command("run", small, "--out", tmp_path / "out", "--executor", "ray", "--address", cluster.address)
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    with sm.open_survey(tmp_path / "out") as store:
        same(store.frame(), local_rows)
    assert output.startswith("64 networks in ")
    assert not re.search(r"\bray|node|actor", output + errors, re.IGNORECASE)


def test_a_node_that_dies_costs_nothing_but_time(cluster, small, tmp_path, local_rows):
    with one_more(cluster) as node:
        reporter = AtTheFirst(lambda: cluster.remove_node(node, allow_graceful=False))
        with sm.run_survey(small, tmp_path / "out", executor="ray", address=cluster.address, reporter=reporter) as store:
            frame = store.frame()
            assert all(one.accident is None for one in store.stacks())
    assert (frame.state != "failed").all()
    assert len(frame) == 64
    same(frame, local_rows)


def node_folder(asked):
    from sensitometer.survey.execution.ray import _folder

    return Path(tempfile.gettempdir(), _folder(asked))


def test_without_an_address_ray_is_started_here_and_weights_come_back(small, tmp_path):
    small.write_text(SMALL.replace('name = "small"', 'name = "small"\nkeep_weights = true').replace("[4, 12]", "[4]"))
    # In a process of its own: a Ray that was started in this one may ask for tokens, and this process would go on to do so.
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    run = command("run", small, "--out", tmp_path / "out", "--executor", "ray", "--workers", 2, env=environment)
    output, errors = run.communicate(timeout=120)
    assert run.returncode == 0, errors
    assert output.startswith("32 networks in ")
    with sm.open_survey(tmp_path / "out") as store:
        frame = store.frame()
    assert {file.name for file in (tmp_path / "out" / "weights").iterdir()} == {f"{id_}.safetensors" for id_ in frame.id}
    x = sm.load_dataset("digits", train_points=200).test.x[:50]
    for row in frame.iloc[::8].itertuples():
        network = sm.MLP.load(tmp_path / "out" / "weights" / f"{row.id}.safetensors")
        assert float(sm.jacobian_norm(network, x).mean()) == pytest.approx(row.jacobian_norm, rel=1e-5)
    assert not node_folder(setup(parse_spec(small.read_text(), "test"), tmp_path / "out", "cpu")).exists()


def test_weights_that_cannot_be_written_end_the_run(cluster, on_ray, tmp_path, refused):
    asked = {"device": "cpu", "folder": str(tmp_path)}
    weights = tmp_path / "weights"
    weights.mkdir()
    one = on_ray(cluster, workers=1)
    one.start(asked, 10)
    for number, width in enumerate((4, 5)):
        # As if the worker had written it.
        file = node_folder(asked) / "weights" / f"{stack(width)[0].id}.safetensors"
        file.write_bytes(b"weights")
        if number:
            (weights / file.name).mkdir()
            one.submit(number, stack(width))
            with refused(f"cannot write to {weights / file.name}: ", StoreError):
                one.answer()
        else:
            answers(one, [stack(width)])
            assert (weights / file.name).read_bytes() == b"weights"
        assert not file.exists()


def test_a_driver_that_is_killed_leaves_no_worker_behind_and_the_next_run_goes_on(cluster, small, tmp_path, local_rows):
    import ray

    out = tmp_path / "out"
    run = command("run", small, "--out", out, "--executor", "ray", "--address", cluster.address)
    wait_for_rows(run, out, 4)
    run.kill()
    run.communicate()
    assert 4 <= sum(Store(out).counts().values()) < 64
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
    try:
        eventually(lambda: ray.available_resources().get("CPU") == 3)
    finally:
        ray.shutdown()
    with sm.run_survey(small, out, executor="ray", address=cluster.address) as store:
        same(store.frame(), local_rows)


def eventually(holds, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_an_actor_that_is_killed_takes_its_stack_with_it_and_another_takes_its_place(cluster, on_ray):
    one = on_ray(cluster, workers=1)
    one.start({"device": "cpu"}, 10)
    worker = answers(one, [stack()])[0].rows[0]["host"]
    actor = re.search(r"^PPid:\s*(\d+)", Path(f"/proc/{worker}/status").read_text(), re.MULTILINE)
    one.submit(1, stack(SLOW))
    one.submit(2, stack())
    os.kill(int(actor[1]), signal.SIGKILL)
    assert one.answer() == (1, Lost(f"a worker's actor on {platform.node()} was killed"))
    number, answer = one.answer()
    assert number == 2
    assert answer.rows[0]["host"] != worker
    assert one.workers == 1


def test_nodes_that_join_are_used_and_stacks_of_those_that_die_are_innocent(cluster, on_ray):
    one = on_ray(cluster)
    one.start({"device": "cpu"}, 1000)
    assert one.workers == 3
    with one_more(cluster) as node:
        numbers, in_progress = iter(range(1000)), 0

        def until(holds):
            """Train stacks until this holds of an answer."""
            nonlocal in_progress
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                while in_progress < STACKS_PER_WORKER * one.workers:
                    one.submit(next(numbers), stack(SLOW))
                    in_progress += 1
                _, answer = one.answer()
                in_progress -= 1
                if holds(answer):
                    return answer
            raise AssertionError("it did not happen")

        until(lambda _: one.workers == 4)
        cluster.remove_node(node, allow_graceful=False)
        lost = until(lambda answer: isinstance(answer, Lost))
        assert lost == Lost(f"the machine {platform.node()} is gone", innocent=True)
        assert one.workers == 3
        assert isinstance(until(lambda _: True), Done)


def test_what_a_node_lacks_is_said_with_its_name(cluster, on_ray, tmp_path, refused, monkeypatch):
    spec = parse_spec(SMALL.replace('"digits"', '"mnist"'), "test")
    with refused(f"{platform.node()}: mnist lacks train-images-idx3-ubyte.gz", DataError):
        on_ray(cluster, command=WORKER).start(setup(spec, tmp_path / "out", "cpu"), 10)


@pytest.fixture
def other_version(tmp_path, monkeypatch):
    """A folder that another version of the package can be imported from."""
    # Ray puts the driver's working folder on the path of the actors.
    monkeypatch.chdir(tmp_path.parent)
    (tmp_path / "sensitometer" / "survey" / "execution").mkdir(parents=True)
    for module in ("__init__", "survey/__init__", "survey/execution/__init__", "survey/execution/ray"):
        (tmp_path / "sensitometer" / f"{module}.py").touch()
    return {"PYTHONPATH": str(tmp_path)}


def test_a_node_without_this_version_is_refused_at_the_start_and_left_alone_later(cluster, on_ray, other_version, refused):
    late = on_ray(cluster)
    late.start({"device": "cpu"}, 100)
    with one_more(cluster, env_vars=other_version):
        with pytest.warns(UserWarning, match=r"a worker on [\d.]+, which has joined, cannot be used: cannot load sensitometer"):
            answers(late, [stack(SLOW)] * 150)
        late.close()
        with refused(r"[\d.]+: cannot load sensitometer .* \(.*\): install the same version there", WorkerError):
            on_ray(cluster).start({"device": "cpu"}, 100)


@pytest.mark.parametrize("kind", ["nothing", "no Ray", "no address"])
def test_an_address_where_there_is_no_cluster_is_refused(kind, refused, monkeypatch):
    from sensitometer.survey.execution import ray as ray_executor

    monkeypatch.setattr(ray_executor, "CONNECT_SECONDS", 4.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        if kind == "nothing":
            server.close()
        address = "nonsense" if kind == "no address" else f"{host}:{port}"
        reason = "Invalid address format" if kind == "no address" else "no answer in 4 s"
        with refused(f"cannot connect to a Ray cluster at {address}: {reason}", WorkerError):
            ray_executor.RayExecutor(address, None, "cpu")


def test_a_cluster_without_gpus_and_a_gpu_by_number_are_refused(cluster, on_ray, refused):
    with refused("device cuda was asked for, but the Ray cluster at .* has no GPUs"):
        on_ray(cluster, device="cuda")
    with refused("device must be cpu or cuda on a Ray cluster, which chooses the GPUs; got 'cuda:1'"):
        on_ray(cluster, device="cuda:1")


def test_each_actor_is_given_a_gpu(cluster, on_ray):
    """With nodes that say that they have a GPU; the workers of these tests do not use it."""
    with one_more(cluster, num_cpus=0, num_gpus=2):
        two = on_ray(cluster, device="cuda")
        assert two.workers == 2
        two.start({"device": "cuda"}, 100)
        assert two.workers == 2
        found = answers(two, [stack(SLOW)] * 6)
        assert len({answer.rows[0]["host"] for answer in found.values()}) == 2


def test_a_cluster_whose_processors_are_all_in_use_is_waited_for_but_not_for_ever(cluster, on_ray, refused, monkeypatch):
    from sensitometer.survey.execution import ray as ray_executor

    on_ray(cluster).start({"device": "cpu"}, 100)
    monkeypatch.setattr(ray_executor, "PATIENCE_SECONDS", 3.0)
    with refused("the Ray cluster at .* has had no free CPU for 3 s", WorkerError):
        on_ray(cluster).start({"device": "cpu"}, 100)
