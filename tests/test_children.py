"""Messages between processes, and children that nothing in the current folder or in their output disturbs."""

import io
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sensitometer.children import LENGTH, MAGIC, MOST, Child, NoMessageError, command, receive, send


def test_messages_come_back_as_they_were_sent_one_after_another():
    messages = [{"rows": [{"id": "ä", "loss": math.inf, "weights": 2**40, "error": None}]}, {}, {"seconds": 0.5}]
    stream = io.BytesIO()
    for message in messages:
        send(stream, message)
    stream.seek(0)
    assert [receive(stream) for _ in messages] == messages
    with pytest.raises(EOFError):
        receive(stream)


def test_what_is_no_number_comes_back():
    stream = io.BytesIO()
    send(stream, math.nan)
    stream.seek(0)
    assert math.isnan(receive(stream))


@pytest.mark.parametrize("cut", [0, 1, len(MAGIC), len(MAGIC) + 3, len(MAGIC) + LENGTH, -1])
def test_a_message_that_breaks_off_is_none(cut):
    stream = io.BytesIO()
    send(stream, "a message of some length")
    with pytest.raises(EOFError):
        receive(io.BytesIO(stream.getvalue()[:cut]))


@pytest.mark.parametrize(
    "content",
    [
        b"MKL_VERBOSE oneMKL 2024.2 Product build\n" * 9,
        MAGIC + (MOST + 1).to_bytes(LENGTH, "big") + b"x" * 99,
        MAGIC + (2).to_bytes(LENGTH, "big") + b"\xc1\xc1",
        b"\x00" * 99,
    ],
    ids=["printed text", "too long", "no MessagePack", "zeros"],
)
def test_what_is_no_message_is_refused(content):
    with pytest.raises(NoMessageError):
        receive(io.BytesIO(content))


def test_a_message_that_is_too_long_is_not_sent(monkeypatch):
    monkeypatch.setattr("sensitometer.children.MOST", 1000)
    stream = io.BytesIO()
    with pytest.raises(NoMessageError, match=r"a message of 2,003 bytes; expected at most 1,000"):
        send(stream, "x" * 2000)
    assert stream.getvalue() == b""


# --- processes

# Modules that the package imports, of Python's own and of others.
SHADOWED = ("random", "queue", "json", "msgspec", "click", "torch", "sensitometer", "sitecustomize")


@pytest.fixture
def hostile(tmp_path, monkeypatch):
    """A current folder with modules that leave a mark when they are imported."""
    for name in SHADOWED:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_children_import_nothing_from_the_current_folder(hostile):
    from sensitometer.survey.execution.local import WORKER

    with Child(WORKER, os.environ) as worker:
        worker.tell({"matmul_path": "nonsense"})
        assert "the matrix-product path must be one of" in worker.answer()["error"]
    with Child(command("device"), os.environ) as devices:
        assert devices.answer() == 0
    assert not (hostile / "ran").exists()


@pytest.fixture
def noise(tmp_path):
    """Variables with which a process prints before its program begins."""
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "sitecustomize.py").write_text("import os; print('hello ' * 99, flush=True); os.write(1, b'x')")
    path = os.pathsep.join([str(tmp_path / "noise"), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {"PYTHONPATH": path, "MKL_VERBOSE": "1"}


def test_what_is_printed_does_not_come_between(noise, capfd):
    with Child(command("device"), {**os.environ, **noise}) as devices:
        assert devices.answer() == 0
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("hello hello ")
    with Child(command("device"), {**os.environ, **noise}, quiet=True) as devices:
        assert devices.answer() == 0
    assert capfd.readouterr().err == ""


def test_the_self_check_takes_no_print_for_an_answer(noise, monkeypatch, tmp_path, capfd):
    from sensitometer import matmul

    for name, value in {**noise, "XDG_CACHE_HOME": str(tmp_path), "CC": "false"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("SENSITOMETER_MATMUL")
    monkeypatch.setattr(matmul, "PROBE_ROUNDS", 1)
    assert matmul.choose().path == matmul.STOCK
    assert "hello" in capfd.readouterr().err


def test_a_child_that_sends_nothing_in_time_or_ends_is_told_of(capfd):
    with Child((sys.executable, "-c", "import time; time.sleep(60)"), os.environ) as child:
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            child.answer(0.2)
        assert time.monotonic() - begun < 5
    assert child.ending() == "was ended by signal 9"
    with Child((sys.executable, "-c", "raise SystemExit(7)"), os.environ) as child:
        with pytest.raises(EOFError):
            child.answer()
        assert child.ending() == "ended with status 7"
        assert not child.was_killed


def test_a_program_that_is_not_there_leaves_no_pipe_open():
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        Child(("/nonexistent",), os.environ)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


STREAMS = """
import os
from sensitometer.children import open_standard_streams
open_standard_streams()
number = os.open("/dev/null", os.O_RDONLY)
raise SystemExit(number)
"""


def test_no_file_takes_the_number_of_a_closed_stream():
    closed = f"exec {sys.executable} -c '{STREAMS}' <&- >&- 2>&-"
    assert subprocess.run(closed, shell=True, check=False).returncode > 2
