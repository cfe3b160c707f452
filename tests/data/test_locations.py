import subprocess
import sys
from pathlib import Path

import platformdirs

from sensitometer.data.locations import data_root, fetch_command, list_datasets


def test_root_is_the_argument_then_the_variable_then_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    monkeypatch.setenv("SENSITOMETER_DATA", str(tmp_path / "variable"))
    assert data_root(tmp_path / "argument") == tmp_path / "argument"
    assert data_root() == tmp_path / "variable"
    monkeypatch.setenv("SENSITOMETER_DATA", "")
    assert data_root() == tmp_path / "cache" / "sensitometer" / "data"
    monkeypatch.delenv("SENSITOMETER_DATA")
    assert data_root() == tmp_path / "cache" / "sensitometer" / "data"


def test_root_is_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert data_root("data") == tmp_path / "data"
    assert data_root("~/data") == tmp_path / "home" / "data"


def test_fetch_command_names_a_root_that_is_not_the_default(tmp_path, monkeypatch, any_mini):
    name = any_mini.source.name
    monkeypatch.setenv("SENSITOMETER_DATA", str(tmp_path / "a"))
    assert fetch_command(any_mini.source, tmp_path / "a" / name) == f"sensitometer data fetch {name}"
    assert (
        fetch_command(any_mini.source, tmp_path / "b c" / name)
        == f"SENSITOMETER_DATA='{tmp_path}/b c' sensitometer data fetch {name}"
    )


def test_list_says_what_is_there_and_what_is_missing(mnist):
    digits, here, *others = list_datasets(root=mnist.root)
    assert (digits.source.name, digits.folder, digits.missing) == ("digits", None, ())
    assert (here.source.name, here.folder, here.missing) == ("mnist", mnist.folder, ())
    assert here.source == mnist.source
    assert all(other.missing for other in others) and len(others) == 3
    (mnist.folder / "t10k-labels-idx1-ubyte.gz").unlink()
    assert list_datasets(root=mnist.root)[1].missing == ("t10k-labels-idx1-ubyte.gz",)


def test_list_takes_its_root_from_the_variable(mnist, monkeypatch):
    monkeypatch.setenv("SENSITOMETER_DATA", str(mnist.root))
    assert list_datasets()[1].missing == ()


def test_listing_imports_nothing_heavy_and_reading_the_digits_no_scikit_learn():
    code = """
import sys
import sensitometer.data.sources, sensitometer.data as data, sensitometer.data.readers as readers
data.list_datasets()
readers.read_digits(1797, (1, 8, 8))
assert not {"torch", "sklearn", "ray"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
