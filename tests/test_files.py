"""Files are whole, old or new, and on the disk."""

import errno
import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sensitometer.files import check_writable, locked, replacing


def test_a_file_is_replaced_at_the_end(tmp_path):
    file = tmp_path / "spec.toml"
    file.write_text("old")
    with replacing(file) as unfinished:
        unfinished.write_text("new")
        assert file.read_text() == "old" and unfinished.name == file.name
    assert file.read_text() == "new" and list(tmp_path.iterdir()) == [file]


def test_a_file_is_as_it_was_if_writing_fails(tmp_path):
    file = tmp_path / "spec.toml"
    file.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(file) as unfinished:
        unfinished.write_text("half of the n")
        raise ZeroDivisionError
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_the_content_is_on_the_disk_before_the_name_and_then_the_name(tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor):
        names = sorted(file.name for file in tmp_path.iterdir())
        synced.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), names))

    monkeypatch.setattr("sensitometer.files.os.fsync", fsync)
    with replacing(tmp_path / "a") as unfinished:
        unfinished.write_text("new")
    assert synced == [
        (str(tmp_path / "a.sensitometer-new" / "a"), ["a.sensitometer-new"]),
        (str(tmp_path), ["a", "a.sensitometer-new"]),
    ]


def test_what_a_killed_process_left_is_removed(tmp_path):
    (tmp_path / "a.sensitometer-new").mkdir()
    (tmp_path / "a.sensitometer-new" / "left").touch()
    with replacing(tmp_path / "a") as unfinished:
        unfinished.write_text("new")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_what_an_earlier_version_left_is_removed(tmp_path):
    (tmp_path / "a.sensitometer-new").write_text("half of the n")
    with replacing(tmp_path / "a") as unfinished:
        unfinished.write_text("new")
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


# --- locks


@pytest.fixture(params=["flock", "none"])
def lock(request, tmp_path, monkeypatch):
    """The file of a lock, on a file system with `flock`, and on one without."""

    def missing(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    if request.param == "none":
        monkeypatch.setattr(fcntl, "flock", missing)
    return tmp_path / "some.lock"


# Holds a lock; killed at once, or when its input ends.
HOLDER = """
import errno, fcntl, os, pathlib, sys
from sensitometer.files import locked

def missing(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")

if sys.argv[2] == "none":
    fcntl.flock = missing
with locked(pathlib.Path(sys.argv[1]), 1.0):
    print("locked", flush=True)
    sys.stdin.read()
    os._exit(9)
"""


def test_a_lock_is_waited_for_and_then_its_holder_is_named(lock, request):
    kind = request.node.callspec.params["lock"]
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, lock, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with holder:
        assert holder.stdout.readline() == b"locked\n"
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match=rf"process {holder.pid} on \S+ has held this lock for 0.1 s"), locked(lock, 0.1):
            pass
        assert time.monotonic() - begun < 5
    # It was killed, as it were: its name and its file are still there.
    assert lock.with_suffix(".owner").exists()
    with locked(lock, 5.0):
        pass
    assert not lock.with_suffix(".owner").exists()
    with locked(lock, 0.1):
        pass


def test_a_lock_that_cannot_be_made_is_an_error_of_the_system(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"Not a directory|File exists"), locked(tmp_path / "file" / "some.lock", 0.1):
        pass


# --- folders that can be written


def test_a_folder_that_can_be_made_is_writable_and_nothing_is_left(tmp_path):
    for folder in (tmp_path, tmp_path / "new", tmp_path / "new" / "newer"):
        check_writable(folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["a file", "below a file", "a link to nowhere", "no disk"])
def test_a_folder_that_cannot_be_made_is_not(tmp_path, kind):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    names = {"a file": tmp_path / "file", "below a file": tmp_path / "file" / "x", "a link to nowhere": tmp_path / "link"}
    with pytest.raises(OSError, match=r"Not a directory|No such file|denied"):
        check_writable(names.get(kind, Path("/proc/new/folder")))
