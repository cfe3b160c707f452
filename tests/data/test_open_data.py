"""Data named by one word, as on a command line; and their normalisation."""

import numpy as np
import pytest
import torch

from sensitometer.data import Dataset, load_dataset, usual_normalisations
from sensitometer.data.opening import open_data
from sensitometer.data.transforms import Normalisation

MODULE = """
import numpy as np, torch
from torch.utils.data import DataLoader, TensorDataset
from sensitometer import Dataset
x, y = torch.arange(15.0).view(5, 3), torch.arange(5) % 2
class Broken:
    def __len__(self): return 3
    def __getitem__(self, place): raise KeyError("no such\\npoint")
def tensor(): return x
def array(): return x.numpy()
def pair(): return x, y
def mapping(): return {"x": x, "y": y}
def four(): return {"x_test": x, "y_test": y, "x_train": x.numpy(), "y_train": y}
def loader(): return DataLoader(TensorDataset(x, y), batch_size=2)
def dataset(): return Dataset.from_arrays(x, y, name="theirs", normalise="1/2")
def other_names(): return {"a": x}
def none(): return None
def boom(): raise ValueError("first line\\nsecond")
def broken(): return DataLoader(Broken())
def nan(): return x * float("nan"), y
number = 3
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data_of_mine.py").write_text(MODULE)
    (tmp_path / "data_that_fails.py").write_text("raise OSError('no\\nconnection')")
    np.savez("mine.npz", x=np.zeros((4, 2, 3), dtype=np.uint8))
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


@pytest.mark.parametrize("function", ["tensor", "array", "pair", "mapping", "four", "loader", "dataset"])
def test_a_function_may_return_data_of_any_kind(here, function):
    dataset = open_data(f"data_of_mine:{function}", normalise="none")
    assert dataset.name == ("theirs" if function == "dataset" else function)
    assert torch.equal(dataset.test.x, torch.arange(15.0).view(5, 3))
    assert dataset.has_labels == (function not in ("tensor", "array"))
    assert len(dataset.train.y) == (5 if function == "four" else 0)


def test_what_is_normalised_by_default(here):
    assert open_data("digits").normalise == "sphere"
    assert torch.equal(open_data("digits", crop=4).test.x, load_dataset("digits", crop=4).test.x)
    assert open_data("digits", normalise="none").test.x.max() == 1
    assert open_data("mine.npz").normalise == open_data("data_of_mine:pair").normalise == "none"
    assert open_data("data_of_mine:dataset").normalise == "1/2"
    assert open_data("data_of_mine:dataset", normalise="sphere").normalise == "sphere"
    assert open_data("mine.npz", normalise="sphere").normalise == "sphere"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("data_of_mine:other_names", {}, r"data_of_mine:other_names\(\): the dictionary must hold x \(and y\).*; it holds a"),
        ("data_of_mine:none", {}, r"data_of_mine:none\(\) must return a Dataset, a tensor, .*; it returned NoneType"),
        ("data_of_mine:boom", {}, r"data_of_mine:boom\(\) failed: ValueError: first line second"),
        ("data_of_mine:broken", {}, r"data_of_mine:broken\(\) failed: KeyError: 'no such\\npoint'"),
        ("data_of_mine:nan", {}, r"data_of_mine:nan\(\): x_test must hold finite numbers of float32; point 0 has nan"),
        ("data_of_mine:number", {}, "data_of_mine:number must be a function that returns a Dataset, .*; it is int"),
        ("data_of_mine:missing", {}, "no factory data_of_mine:missing: "),
        ("no_such_module:data", {}, "no factory no_such_module:data: No module named"),
        ("data_that_fails:data", {}, "data_that_fails cannot be imported: OSError: no connection"),
        ("digits", {"size": 4}, "size goes with a folder of images alone; digits is none; use crop"),
        ("mine.npz", {"crop": 4}, "crop goes with a known data set .* alone; mine.npz is none"),
        (".", {"crop": 4}, "crop goes with a known data set .* alone; . is none; use size"),
        ("imagenet", {}, r"data must be a name \(digits, .*got 'imagenet', and there is no such file or folder"),
        ("notes.txt", {}, "FILE.npz, .*got 'notes.txt', which is another kind of file"),
        ("digits", {"normalise": ""}, "normalise must be sphere, none or MEAN/STD, such as .*; got ''"),
        ("digits", {"normalise": "half"}, "normalise must be sphere, none or MEAN/STD, such as .*; got 'half'"),
    ],
)
def test_what_is_no_data_is_one_line(here, text, options, message, refused):
    with refused(message):
        open_data(text, **options)


def slow(x, how, shape):
    """One number at a time."""
    mean, deviation = ([float(number) for number in part.split(",")] for part in how.split("/"))
    flat = np.empty((len(x), int(np.prod(shape))))
    for point, row in enumerate(x.reshape(len(x), -1)):
        for place, number in enumerate(row):
            channel = place * len(mean) // flat.shape[1]
            flat[point, place] = (number / (255 if x.dtype == np.uint8 else 1) - mean[channel]) / deviation[channel]
    return flat


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize(
    ("shape", "how"), [((3, 4, 5), "0.1,0.2,0.3/1,2,3"), ((3, 4, 5), "0.3/0.7"), ((4,), "1,2,3,4/4,3,2,1"), ((5, 2), "-3/1e-2")]
)
def test_means_and_deviations_are_the_slow_twins(shape, how, dtype):
    raw = np.random.default_rng(0).integers(0, 256, (7, *shape)).astype(dtype)
    x = Normalisation.parse(how).apply(raw, shape)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, slow(raw, how, shape), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_the_sphere_takes_floats_and_leaves_equal_ones_at_its_centre(dtype):
    raw = np.random.default_rng(0).integers(0, 256, (5, 12)).astype(dtype)
    raw[3] = 7
    x = Normalisation.parse("sphere").apply(raw / np.float32(3) if dtype == np.float32 else raw, (12,))
    assert np.linalg.norm(x.astype(np.float64), axis=1) == pytest.approx([12**0.5] * 3 + [0, 12**0.5], rel=1e-6)
    assert not x[3].any()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("0.5", "normalise must be sphere, none or MEAN/STD, such as .*; got '0.5'"),
        ("1/2/3", "such as .*; got '1/2/3'"),
        ("0.1/0", "with deviations above 0; got '0.1/0'"),
        ("0.1/-1", "with deviations above 0; got '0.1/-1'"),
        ("nan/1", "of finite numbers; got 'nan/1'"),
        ("0/inf", "of finite numbers; got '0/inf'"),
        ("1,2/1", "with as many means as deviations; got 2 and 1 in '1,2/1'"),
        ("1,2/1,1", "one per channel, 1 for points of 1 x 8 x 8; got 2"),
        ("1e30/1e-30", "normalise must keep the points finite; 1e30/1e-30 makes point 0 overflow float32"),
        (0.5, "such as .*; got 0.5"),
    ],
)
def test_what_is_no_normalisation_is_refused(how, message, refused):
    with refused(message):
        load_dataset("digits", normalise=how)


def test_lists_belong_to_channels(refused):
    with refused("normalise must be sphere, none or one MEAN/STD for points of 5 x 2; got 2 means"):
        Normalisation.parse("1,2/1,1").apply(np.zeros((3, 5, 2), np.float32), (5, 2))


def test_the_usual_normalisations_are_those_of_the_training_sets(cifar10):
    digits = load_dataset("digits", normalise="none")
    sphere, none, usual = usual_normalisations(digits)
    assert (sphere, none) == ("sphere", "none")
    numbers = [float(number) for number in usual.split("/")]
    assert numbers == pytest.approx([digits.train.x.mean().item(), digits.train.x.std().item()], abs=5e-5)
    colour = usual_normalisations(load_dataset("cifar10", root=cifar10.root))
    assert len(colour) == 4
    assert colour[3] == "0.485,0.456,0.406/0.229,0.224,0.225"
    assert usual_normalisations(Dataset.from_arrays(torch.rand(2, 3))) == []


def test_the_sphere_is_reached_from_any_other_normalisation(cifar10):
    for name, root in (("digits", None), ("cifar10", cifar10.root)):
        sphere, none = load_dataset(name, root=root), load_dataset(name, root=root, normalise="none")
        assert torch.equal(none.renormalised("sphere").test.x, sphere.test.x)
        assert torch.equal(sphere.renormalised("none").train.x, none.train.x)
        assert (none.test.x.min() >= 0, none.test.x.max() <= 1) == (True, True)
