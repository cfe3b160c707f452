"""Files are whole, old or new, and on the disk."""

from pathlib import Path

import pytest

from sensitometer.files import replacing


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
