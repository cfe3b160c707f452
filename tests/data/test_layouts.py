"""Files of the known data sets where torchvision and Kaggle put them, and CIFAR as it is published for Python."""

import gzip
import io
import os
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from sensitometer.data import list_datasets, load_dataset, sources
from sensitometer.data.readers import read_pickled_cifar
from sensitometer.data.sources import SOURCES, DataFile, Split, idx_elsewhere, records_elsewhere
from sensitometer.errors import DataError


def with_elsewhere(mini, monkeypatch, elsewhere):
    """Give the files of a small data set the other places of the real one's."""
    parts = [Split(tuple(replace(file, elsewhere=elsewhere(file.name)) for file in part.files), part.points)
             for part in (mini.source.train, mini.source.test)]  # fmt: skip
    mini.source = replace(mini.source, train=parts[0], test=parts[1])
    monkeypatch.setitem(sources.SOURCES, mini.source.name, mini.source)


def same(mini, tmp_path):
    """Say whether what is below the root has the bits of the published layout."""
    ours = load_dataset(mini.source.name, root=mini.root)
    mini.root = tmp_path / "published"
    mini.write()
    theirs = load_dataset(mini.source.name, root=mini.root)
    for part in ("train", "test"):
        for field in ("x", "y", "raw"):
            assert torch.equal(getattr(getattr(ours, part), field), getattr(getattr(theirs, part), field))
    return True


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(
    "place",
    [
        "MNIST/raw/{}-idx{}-ubyte",
        "mnist/MNIST/raw/{}-idx{}-ubyte",
        "mnist/{}.idx{}-ubyte",
        "mnist/{0}-idx{1}-ubyte/{0}-idx{1}-ubyte",
        "mnist/{0}.idx{1}-ubyte/{0}.idx{1}-ubyte",
    ],
)
def test_mnist_where_torchvision_and_kaggle_put_it(place, packed, make_mini, monkeypatch, tmp_path):
    mini = make_mini("mnist")
    with_elsewhere(mini, monkeypatch, lambda name: idx_elsewhere(name, "MNIST"))
    for name, content in mini.contents.items():
        stem, _, axes = name.removesuffix("-ubyte.gz").rpartition("-idx")
        path = mini.root / (place.format(stem, axes) + (".gz" if packed else ""))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if packed else gzip.decompress(content))
    status = next(status for status in list_datasets(root=mini.root) if status.source.name == "mnist")
    assert status.missing == ()
    assert status.folder == mini.root / ("MNIST/raw" if place.startswith("MNIST") else "mnist")
    assert same(mini, tmp_path)


def python_2_pickle(batch):
    """Pickle a dictionary of bytes, lists and one array of bytes as Python 2 and its numpy did for CIFAR."""
    stream = io.BytesIO()

    def save_bytes(content):
        length = len(content)
        stream.write(b"U" + bytes([length]) if length < 256 else b"T" + length.to_bytes(4, "little"))
        stream.write(content)

    def save_array(array):
        stream.write(b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\x01btR(K\x01")
        stream.write(b"(" + b"".join(b"J" + length.to_bytes(4, "little") for length in array.shape) + b"t")
        stream.write(b"cnumpy\ndtype\n(U\x02u1K\0K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb\x89")
        save_bytes(array.tobytes())
        stream.write(b"tb")

    stream.write(b"\x80\x02}(")
    for key, value in batch.items():
        save_bytes(key)
        if isinstance(value, np.ndarray):
            save_array(value)
        elif isinstance(value, bytes):
            save_bytes(value)
        else:
            stream.write(b"](" + b"".join(b"K" + bytes([label]) for label in value) + b"e")
    stream.write(b"u.")
    return stream.getvalue()


def python_3_pickle(batch, protocol):
    return pickle.dumps({key.decode(): value for key, value in batch.items()}, protocol=protocol)


def batches(mini):
    """Yield the name of each file, and the batch that it is for Python."""
    names = [file.name for part in (mini.source.train, mini.source.test) for file in part.files]
    images = np.concatenate([mini.train[0], mini.test[0]])
    labels = np.concatenate([mini.train[1], mini.test[1]])
    fine = mini.source.label_bytes == 2
    for name, x, y in zip(names, np.split(images, 3), np.split(labels, 3), strict=True):
        batch = {b"batch_label": b"a batch", b"data": x.reshape(len(x), -1)}
        yield name, batch | ({b"coarse_labels": [7] * len(y), b"fine_labels": y.tolist()} if fine else {b"labels": y.tolist()})


MAKERS = {
    "Python 2": python_2_pickle,
    "protocol 2": lambda batch: python_3_pickle(batch, 2),
    "protocol 4": lambda batch: python_3_pickle(batch, 4),
}


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("place", ["python/{}", "{name}/python/{}", "{name}/{}"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_for_python_has_the_bits_of_the_binary_version(name, place, maker, make_mini, monkeypatch, tmp_path):
    mini = make_mini(name)
    with_elsewhere(mini, monkeypatch, lambda file: records_elsewhere(file, "python"))
    for file, batch in batches(mini):
        path = mini.root / place.format(file.removeprefix("bin/").removesuffix(".bin"), name=name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(maker(batch))
    assert same(mini, tmp_path)


@pytest.mark.parametrize("place", ["bin/{}", "cifar10/{}"])
def test_binary_cifar_elsewhere(place, make_mini, monkeypatch, tmp_path):
    mini = make_mini("cifar10")
    with_elsewhere(mini, monkeypatch, lambda file: records_elsewhere(file, "python"))
    for name, content in mini.contents.items():
        path = mini.root / place.format(name.removeprefix("bin/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert same(mini, tmp_path)


def test_the_published_layout_comes_first(cifar10, monkeypatch, tmp_path):
    with_elsewhere(cifar10, monkeypatch, lambda file: records_elsewhere(file, "python"))
    (cifar10.root / "python").mkdir()
    for name in cifar10.contents:
        (cifar10.root / "python" / name.removeprefix("bin/").removesuffix(".bin")).write_bytes(b"damaged")
    assert same(cifar10, tmp_path)


def test_the_places_of_the_real_data_sets():
    elsewhere = {name: source.test.files[0].elsewhere for name, source in SOURCES.items() if source.downloads}
    assert {"../MNIST/raw/t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"} <= set(elsewhere["mnist"])
    assert {"../FashionMNIST/raw/t10k-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte/t10k-images-idx3-ubyte"} <= set(
        elsewhere["fashion-mnist"]
    )
    assert {"../cifar-10-batches-py/test_batch", "cifar-10-batches-py/test_batch"} <= set(elsewhere["cifar10"])
    assert {"../cifar-100-python/test", "test", "../cifar-100-binary/test.bin"} <= set(elsewhere["cifar100"])
    # Under the root itself the files of MNIST and of Fashion-MNIST would have one name.
    root = [{place for place in elsewhere[name] if place.startswith("../")} for name in ("mnist", "fashion-mnist")]
    assert not root[0] & root[1]


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


X = np.arange(4 * 12, dtype=np.uint8).reshape(4, 12)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"data": X, "labels": [0, 1, 2]}, r"ValueError: labels holds 3 labels; expected 4"),
        ({"data": X, "labels": [0, 1, 2, 256]}, "OverflowError"),
        ({"data": X[:3], "labels": [0] * 4}, "ValueError: data holds 3 x 12 numbers of u1; expected 4 x 12 bytes by rows"),
        ({"data": X.astype(np.float32), "labels": [0] * 4}, "ValueError: data holds 4 x 12 numbers of f4"),
        ({"data": np.asfortranarray(X), "labels": [0] * 4}, "ValueError: data holds 4 x 12 numbers of u1; .* by rows"),
        ({"data": X}, "KeyError: 'labels'"),
        ({"data": [1, 2], "labels": [0] * 4}, "AttributeError"),
        ([1, 2], "AttributeError"),
        ({"data": X, "labels": np.float64(3)}, "UnpicklingError: it asks for numpy.*scalar, which it does not need"),
    ],
)
def test_another_pickle_is_refused(batch, message, tmp_path, refused):
    (tmp_path / "batch").write_bytes(pickle.dumps(batch, protocol=2))
    with refused(f"batch is no CIFAR file for Python: {message}", DataError):
        read_pickled_cifar(tmp_path / "batch", 4, (3, 2, 2), "labels")


def test_no_code_in_a_pickle_is_run(tmp_path, refused):
    for content in (Evil(tmp_path / "ran"), {"data": X, "labels": [0] * 4, "more": Evil(tmp_path / "ran")}):
        (tmp_path / "batch").write_bytes(pickle.dumps(content, protocol=2))
        with refused("it asks for posix.system, which it does not need", DataError):
            read_pickled_cifar(tmp_path / "batch", 4, (3, 2, 2), "labels")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"hello", pickle.dumps({"data": X, "labels": [0] * 4})[:-20], b"x" * 20_000])
def test_what_is_no_pickle_is_refused(content, tmp_path, refused):
    (tmp_path / "batch").write_bytes(content)
    with refused("batch (is no CIFAR file for Python|holds more than)", DataError):
        read_pickled_cifar(tmp_path / "batch", 4, (3, 2, 2), "labels")


def test_a_file_has_no_other_places_by_itself():
    assert DataFile("a", "labels", 1).elsewhere == ()
