import gzip
import importlib.util
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sensitometer.data.readers import read_cifar, read_digits, read_file, read_idx, read_split
from sensitometer.errors import DataError


def read_training_set(mini):
    return read_split(mini.source, mini.source.train, mini.folder)


def fails(expected):
    """The error's one line, which has to match the regular expression."""
    return pytest.raises(DataError, match=rf"\A[^\n]*{expected}[^\n]*\Z")


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3)), st.booleans())
def test_idx_round_trip(array, packed):
    content = np.array([0x0800 + array.ndim, *array.shape], dtype=">i4").tobytes() + array.tobytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.gz" if packed else "file")
        path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
        np.testing.assert_array_equal(read_idx(path, array.shape), array)


def test_every_format_gives_the_images_and_the_labels(any_mini):
    any_mini.write()
    for split, (images, labels) in ((any_mini.source.train, any_mini.train), (any_mini.source.test, any_mini.test)):
        read_images, read_labels = read_split(any_mini.source, split, any_mini.folder)
        assert read_images.dtype == read_labels.dtype == np.uint8
        np.testing.assert_array_equal(read_images, images)
        np.testing.assert_array_equal(read_labels, labels)


def test_cifar_record_is_labels_then_channels(tmp_path):
    (tmp_path / "file").write_bytes(bytes([9, 1, *range(12), 8, 0, *range(20, 32)]))
    images, labels = read_cifar(tmp_path / "file", 2, (3, 2, 2), 2)
    assert labels.tolist() == [1, 0]
    assert images[0].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]
    assert images[1, 2, 1, 0] == 30


def test_idx_files_may_be_unpacked(mnist):
    for name, content in mnist.contents.items():
        (mnist.folder / name).unlink()
        (mnist.folder / name.removesuffix(".gz")).write_bytes(gzip.decompress(content))
    np.testing.assert_array_equal(read_training_set(mnist)[0], mnist.train[0])


def test_idx_files_may_be_packed_by_another_gzip(mnist):
    for name, content in mnist.contents.items():
        (mnist.folder / name).write_bytes(gzip.compress(gzip.decompress(content), compresslevel=0))
    np.testing.assert_array_equal(read_training_set(mnist)[0], mnist.train[0])


def test_missing_files_are_all_named_with_both_remedies(mnist, monkeypatch):
    monkeypatch.setenv("SENSITOMETER_DATA", str(mnist.root))
    (mnist.folder / "train-labels-idx1-ubyte.gz").unlink()
    (mnist.folder / "t10k-labels-idx1-ubyte.gz").unlink()
    expected = (
        f"mnist lacks train-labels-idx1-ubyte.gz, t10k-labels-idx1-ubyte.gz in {mnist.folder}; "
        "run 'sensitometer data fetch mnist', or set $SENSITOMETER_DATA to a folder whose mnist/ holds the data set"
    )
    with fails(re.escape(expected)):
        read_training_set(mnist)


def packed(change):
    return lambda content: gzip.compress(change(gzip.decompress(content)), mtime=0)


DAMAGE = {
    "truncated gzip": ("train-images-idx3-ubyte.gz", lambda content: content[:-20], "is a gzip file that ends too early"),
    "not gzip": ("train-images-idx3-ubyte.gz", gzip.decompress, "is not a sound gzip file: Not a gzipped file"),
    "checksum of gzip": (
        "train-labels-idx1-ubyte.gz",
        lambda c: c[:-8] + bytes(4) + c[-4:],
        "is not a sound gzip file: CRC check failed",
    ),
    "stream of gzip": ("train-labels-idx1-ubyte.gz", lambda c: c[:10] + b"\xff" * 20, "is not a sound gzip file: Error -3"),
    "empty": ("train-labels-idx1-ubyte.gz", packed(lambda content: b""), "ends after 0 bytes, inside its header"),
    "header cut": ("train-images-idx3-ubyte.gz", packed(lambda content: content[:15]), "ends after 15 bytes, inside its header"),
    "magic": ("train-labels-idx1-ubyte.gz", packed(lambda c: b"\1" + c[1:]), "begins with 0x01000801; expected 0x00000801"),
    "count": (
        "train-labels-idx1-ubyte.gz",
        packed(lambda c: c[:4] + b"\0\0\0\x0b" + c[8:-1]),
        "says that it holds 11 bytes; expected 12",
    ),
    "shape": (
        "train-images-idx3-ubyte.gz",
        packed(lambda c: c[:8] + c[12:16] + c[8:12] + c[16:]),
        "says that it holds 12 x 5 x 6 bytes; expected 12 x 6 x 5",
    ),
    "trailing byte": ("train-labels-idx1-ubyte.gz", packed(lambda c: c + b"\0"), "holds more than the expected 20 bytes"),
    "byte short": ("train-labels-idx1-ubyte.gz", packed(lambda c: c[:-1]), "holds 19 bytes; expected 20"),
    "label": ("train-labels-idx1-ubyte.gz", packed(lambda c: c[:-1] + b"\3"), "holds the label 3; expected 0 to 2"),
    "class": (
        "train-labels-idx1-ubyte.gz",
        packed(lambda c: c[:8] + c[8:].replace(b"\1", b"\2")),
        "holds no point of class 1; expected each of the 3 classes",
    ),
}


@pytest.mark.parametrize(("name", "change", "expected"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_idx_file_is_refused(mnist, name, change, expected):
    path = mnist.folder / name
    path.write_bytes(change(mnist.contents[name]))
    with fails(f"{re.escape(str(path))} {expected}.*; run '.*sensitometer data fetch mnist' to replace it"):
        read_training_set(mnist)


SWAPPED = {
    "images and labels": (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        r"begins with 0x00000801 \(IDX labels\); expected",
    ),
    "labels and images": (
        "train-labels-idx1-ubyte.gz",
        "train-images-idx3-ubyte.gz",
        r"begins with 0x00000803 \(IDX images\); expected",
    ),
    "train and test": (
        "train-images-idx3-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "says that it holds 7 x 6 x 5 bytes; expected 12 x 6 x 5",
    ),
}


@pytest.mark.parametrize(("name", "other", "expected"), SWAPPED.values(), ids=SWAPPED)
def test_another_file_under_the_name_is_refused(mnist, name, other, expected):
    (mnist.folder / name).write_bytes(mnist.contents[other])
    with fails(expected):
        read_training_set(mnist)


CIFAR_DAMAGE = {
    "record short": (lambda content: content[:-49], "holds 245 bytes; expected 294"),
    "trailing byte": (lambda content: content + b"\0", "holds more than the expected 294 bytes"),
    "label": (lambda content: b"\x09" + content[1:], "holds the label 9; expected 0 to 2"),
    "class": (lambda content: content[:49] * 6, "holds no point of class 1; expected each of the 3 classes"),
}


@pytest.mark.parametrize(("change", "expected"), CIFAR_DAMAGE.values(), ids=CIFAR_DAMAGE)
def test_damaged_cifar_file_is_refused(cifar10, change, expected):
    path = cifar10.folder / "bin/train_2.bin"
    path.write_bytes(change(cifar10.contents["bin/train_2.bin"]))
    with fails(f"{re.escape(str(path))} {expected}; run '.*sensitometer data fetch cifar10' to replace it"):
        read_training_set(cifar10)


def test_folder_in_place_of_a_file_is_refused(cifar10):
    path = cifar10.folder / "bin/test.bin"
    path.unlink()
    path.mkdir()
    with fails("cifar10 lacks bin/test.bin in"):
        read_training_set(cifar10)
    with fails(f"{re.escape(str(path))} cannot be read: Is a directory"):
        read_file(cifar10.source, cifar10.source.test.files[0], cifar10.folder)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "not found"),
        (gzip.compress(b"1,2,3\n4,5,6\n", mtime=0), "it holds 2 x 3 numbers; expected 2 x 5"),
        (gzip.compress(b"1,2,3,4,x\n4,5,6,7,8\n", mtime=0), "could not convert"),
        (gzip.compress(b"1,2,3,4,5\n4,5,6,7,8\n", mtime=0)[:-9], "Compressed file ended"),
        (b"1,2,3,4,5\n4,5,6,7,8\n", "Not a gzipped file"),
    ],
)
def test_a_damaged_file_of_digits_is_refused(content, expected, tmp_path, monkeypatch):
    path = tmp_path / "datasets" / "data" / "digits.csv.gz"
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=[str(tmp_path)]))
    with fails(f"{re.escape(str(path))} cannot be read; install scikit-learn again: .*{expected}"):
        read_digits(2, (1, 2, 2))


def test_digits_without_scikit_learn_are_refused(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with fails("digits is part of scikit-learn, which is not installed; run 'pip install scikit-learn'"):
        read_digits(1797, (1, 8, 8))
