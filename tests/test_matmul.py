import json
import math
import os
import subprocess
import sys

import pytest

from sensitometer import matmul
from sensitometer.errors import WorkerError
from sensitometer.matmul import AS_INTEL, PROBE_SHAPES, STOCK, Probe, judge

ROUNDS = ((10.0, 20.0, 30.0, 40.0, 1.0),) * 3


def probe(path=STOCK, *, factor=1.0, error=1e-7, rates=ROUNDS):
    return Probe(path, tuple(tuple(factor * rate for rate in rows) for rows in rates), error)


# --- judging


@pytest.mark.parametrize(
    ("factor", "error", "path", "reason"),
    [
        (2.0, 1e-7, AS_INTEL, "2.00 times the rate of stock; off from float64 by 1.0e-07, stock by 1.0e-07"),
        (1.051, 1e-7, AS_INTEL, "1.05 times the rate of stock"),
        (1.049, 1e-7, STOCK, "mkl-as-intel is no faster: 1.05 times stock"),
        (1.0, 1e-7, STOCK, "mkl-as-intel is no faster: 1.00 times stock"),
        (0.5, 1e-7, STOCK, "mkl-as-intel is no faster: 0.50 times stock"),
        (2.0, 2.9e-7, AS_INTEL, "2.00 times the rate of stock; off from float64 by 2.9e-07"),
        (2.0, 3.1e-7, STOCK, "mkl-as-intel is off by 3.1e-07, stock by 1.0e-07"),
        (2.0, math.inf, STOCK, "mkl-as-intel is off by inf"),
        (2.0, math.nan, STOCK, "mkl-as-intel is off by nan"),
    ],
)
def test_path_must_be_faster_and_as_exact(factor, error, path, reason):
    probes = probe(), probe(AS_INTEL, factor=factor, error=error)
    choice = judge(list(probes))
    assert choice.path == path
    assert choice.reason.startswith(reason)
    assert choice.probes == probes
    assert judge(list(probes[::-1])).path == path


def test_without_another_path_it_is_stock():
    choice = judge([probe()])
    assert (choice.path, choice.reason, choice.probes) == (STOCK, "no other path applies to this machine", (probe(),))


def test_rates_are_compared_round_by_round_as_the_machine_may_be_busy():
    """The second path is twice as fast in every round, though the machine slowed down to a tenth on the way."""
    slowing = ((10.0,) * 4, (10.0,) * 4, (1.0,) * 4)
    assert judge([probe(rates=slowing), probe(AS_INTEL, factor=2.0, rates=slowing)]).reason.startswith("2.00 times")


def test_one_lucky_round_does_not_decide():
    lucky = ((1000.0,) * 5, *ROUNDS[1:])
    assert judge([probe(), probe(AS_INTEL, rates=lucky)]).path == STOCK


def test_peak_is_the_highest_rate_of_the_path_that_was_chosen():
    assert judge([probe(), probe(AS_INTEL, factor=2.0)]).peak == 80.0
    assert judge([probe(), probe(AS_INTEL, factor=0.5)]).peak == 40.0


def test_an_operation_takes_what_the_smallest_product_does():
    # 1,024 FLOP at 1 and 2 GFLOP/s.
    assert judge([probe()]).operation == pytest.approx(1.024e-6)
    assert judge([probe(), probe(AS_INTEL, factor=2.0)]).operation == pytest.approx(0.512e-6)


# --- choosing


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, no variable set, and probes that are counted instead of run."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_, **__: str(tmp_path))
    monkeypatch.delenv(matmul.VARIABLE, raising=False)
    return tmp_path


@pytest.fixture
def runs(monkeypatch):
    """Have `choose` see made-up probes, and note each time that it runs them."""
    noted = []
    monkeypatch.setattr(matmul, "_run_probes", lambda: noted.append(1) or [probe(), probe(AS_INTEL, factor=2.0)])
    return noted


def test_probes_run_once_and_are_kept(cache, runs):
    first = matmul.choose()
    assert first.path == AS_INTEL
    assert matmul.choose() == first
    assert len(runs) == 1
    assert matmul.choose(fresh=True) == first
    assert len(runs) == 2
    assert [path.name for path in cache.iterdir()] == ["matmul.json"]


def test_probes_of_another_processor_are_kept_beside(cache, runs, monkeypatch):
    matmul.choose()
    monkeypatch.setattr(matmul, "processor", lambda: "another")
    matmul.choose()
    matmul.choose()
    assert len(runs) == 2
    assert len(json.loads((cache / "matmul.json").read_text())) == 2


@pytest.mark.parametrize("path", [STOCK, AS_INTEL])
def test_variable_decides(cache, runs, monkeypatch, path):
    monkeypatch.setenv(matmul.VARIABLE, path)
    choice = matmul.choose()
    assert (choice.path, choice.reason) == (path, "SENSITOMETER_MATMUL says so")


@pytest.mark.parametrize("value", ["", "fast", "STOCK"])
def test_variable_that_names_no_path_is_refused(refused, cache, runs, monkeypatch, value):
    monkeypatch.setenv(matmul.VARIABLE, value)
    with refused(f"SENSITOMETER_MATMUL must be one of stock, mkl-as-intel; got '{value}'"):
        matmul.choose()
    assert not runs


def test_variable_that_names_a_path_that_does_not_apply_is_refused(refused, cache, monkeypatch):
    monkeypatch.setattr(matmul, "_run_probes", lambda: [probe()])
    monkeypatch.setenv(matmul.VARIABLE, AS_INTEL)
    with refused("SENSITOMETER_MATMUL is mkl-as-intel, which needs a C compiler"):
        matmul.choose()


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"{", b"[]", b"null", b"7"],
    ids=["empty", "not UTF-8", "cut", "a list", "null", "a number"],
)
def test_damaged_cache_file_makes_the_probes_run_again(cache, runs, content):
    (cache / "matmul.json").write_bytes(content)
    assert matmul.choose().path == AS_INTEL
    assert len(runs) == 1
    assert matmul.choose().path == AS_INTEL
    assert len(runs) == 1


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "nonsense",
        [],
        [{"path": "stock"}],
        [{"path": "mkl-as-intel", "rates": [[1.0]], "error": 0.0}],
        [{"path": "stock", "rates": [[1.0]], "error": 0.0}, {"path": "mkl-as-intel", "rates": [[1.0], [1.0]], "error": 0.0}],
        [{"path": "stock", "rates": [["fast"]], "error": 0.0}],
        [{"path": "stock", "rates": [[1.0, 2.0, 3.0, 4.0]], "error": 0.0}],
    ],
    ids=["null", "a text", "no probes", "no rates", "no stock", "rounds missing", "rates are texts", "of an earlier version"],
)
def test_damaged_entry_makes_the_probes_run_again(cache, runs, entry):
    matmul.choose()
    (cache / "matmul.json").write_text(json.dumps(dict.fromkeys(json.loads((cache / "matmul.json").read_text()), entry)))
    choice = matmul.choose()
    assert choice.path == AS_INTEL
    assert choice.peak == 80.0
    assert len(runs) == 2


# --- activating, in processes of their own


def python(code, **environment):
    changed = {**os.environ, **environment}
    changed = {name: value for name, value in changed.items() if value is not None}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=changed, timeout=120, check=False)


def test_stock_is_active_from_the_start():
    assert matmul.active() == STOCK
    matmul.activate(STOCK)
    assert matmul.active() == STOCK


def test_path_cannot_be_taken_once_torch_is_imported(refused):
    import torch  # noqa: F401

    with refused("mkl-as-intel can only be taken before torch is imported", error=WorkerError):
        matmul.activate(AS_INTEL)
    assert matmul.active() == STOCK


def test_unknown_path_is_refused(refused):
    with refused("the matrix-product path must be one of stock, mkl-as-intel; got 'openblas'"):
        matmul.activate("openblas")


def test_importing_the_module_does_not_import_torch():
    assert python("import sys, sensitometer.matmul; sys.exit('torch' in sys.modules)").returncode == 0


NO_COMPILER = """
from sensitometer import matmul
from sensitometer.errors import WorkerError
matmul.PROBE_ROUNDS = 1
choice = matmul.choose()
print(choice.path, len(choice.probes), choice.reason, sep="|")
try:
    matmul.activate(matmul.AS_INTEL)
except WorkerError as error:
    print(error)
print(matmul.active())
"""


def test_without_a_compiler_it_is_stock(tmp_path):
    answer = python(NO_COMPILER, XDG_CACHE_HOME=str(tmp_path), CC="/nonexistent", SENSITOMETER_MATMUL=None)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        "stock|1|no other path applies to this machine",
        "the matrix-product path mkl-as-intel needs a C compiler (cc) and Linux on x86-64",
        "stock",
    ]


@pytest.mark.parametrize("command", ["false", "", "/nonexistent", '"unbalanced'])
def test_compiler_that_fails_is_no_compiler(cache, monkeypatch, command):
    monkeypatch.setenv("CC", command)
    assert matmul._library() is None
    assert not list(cache.glob("*.so"))


@pytest.mark.parametrize(("system", "machine"), [("darwin", "arm64"), ("linux", "aarch64"), ("win32", "x86_64")])
def test_other_machines_have_the_stock_path_only(cache, monkeypatch, system, machine):
    monkeypatch.setattr(matmul.sys, "platform", system)
    monkeypatch.setattr(matmul.platform, "machine", lambda: machine)
    assert matmul._library() is None


def test_cache_that_cannot_be_written_is_no_traceback(tmp_path):
    (tmp_path / "file").touch()
    code = (
        "from sensitometer import matmul; from sensitometer.errors import SensitometerError\n"
        "matmul.PROBE_ROUNDS = 1\n"
        "try: matmul.choose()\nexcept SensitometerError as error: assert len(str(error).splitlines()) == 1\n"
    )
    answer = python(code, XDG_CACHE_HOME=str(tmp_path / "file"), SENSITOMETER_MATMUL=None)
    assert answer.returncode == 0, answer.stderr


ACTIVATE = """
import sys
from sensitometer import matmul
matmul.activate(matmul.AS_INTEL)
assert "torch" not in sys.modules
import torch
a = torch.randn(300, 200)
torch.testing.assert_close(a @ a.T, (a.double() @ a.T.double()).float(), rtol=1e-4, atol=1e-4)
print(matmul.active())
"""


def test_real_probes_choose_a_path_that_can_be_taken(cache, monkeypatch):
    """Both processes run: a few seconds."""
    monkeypatch.setattr(matmul, "PROBE_ROUNDS", 1)
    library = matmul._library()
    choice = matmul.choose()
    assert [p.path for p in choice.probes] == ([STOCK] if library is None else [STOCK, AS_INTEL])
    for measured in choice.probes:
        assert (len(measured.rates), {len(rates) for rates in measured.rates}) == (1, {len(PROBE_SHAPES)})
        assert all(0 < rate < 1e5 for rates in measured.rates for rate in rates)
        assert 1e-9 < measured.error < 1e-5
    assert choice == judge(list(choice.probes))
    if library is not None:
        library.parent.joinpath("sensitometer").symlink_to(".")  # where the other process looks
        answer = python(ACTIVATE, XDG_CACHE_HOME=str(library.parent))
        assert answer.stdout.strip() == AS_INTEL, answer.stderr


def test_probe_process_that_dies_is_reported(refused, cache, monkeypatch):
    monkeypatch.setattr(matmul.sys, "executable", "/bin/false")
    monkeypatch.setattr(matmul, "_library", lambda: None)
    with refused("the self-check of the matrix products ended with status 1", error=WorkerError):
        matmul.choose()
    assert list(cache.iterdir()) == []


def test_processor_has_a_name_of_one_line():
    assert matmul.processor()
    assert "\n" not in matmul.processor()


def test_worker_processes_have_one_thread_and_keep_their_memory():
    environment = matmul.worker_environment({"A": "b", "OMP_NUM_THREADS": "8"})
    assert environment.pop("A") == "b"
    assert {name for name, value in environment.items() if value == "1"} == {
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
    }
    assert {name for name, value in environment.items() if int(value) >= 2**25} == {
        "MALLOC_MMAP_THRESHOLD_",
        "MALLOC_TRIM_THRESHOLD_",
    }
    assert len(environment) == 5


def test_library_that_cannot_be_loaded_is_no_reason_to_stop(tmp_path):
    """A torn file in the cache folder, or one of another system: the stock path is taken, quietly."""
    (tmp_path / "sensitometer").mkdir()
    (tmp_path / "sensitometer" / "libsensitometer_mkl.so").write_bytes(b"garbage")
    code = "from sensitometer import matmul; matmul.PROBE_ROUNDS = 1; print(matmul.choose().path)"
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    del environment["SENSITOMETER_MATMUL"]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert (done.stdout, done.stderr) == ("stock\n", "")
