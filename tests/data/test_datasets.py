import math

import numpy as np
import pytest
import torch

from sensitometer.data import dataset_names, load_dataset
from sensitometer.data.transforms import to_sphere
from sensitometer.errors import DataError, InvalidInputError


def rows(tensor):
    return {row.tobytes() for row in tensor.numpy()}


def test_every_format_gives_points_on_the_sphere(any_mini):
    any_mini.write()
    dataset = load_dataset(any_mini.source.name, root=any_mini.root)
    assert (dataset.name, dataset.classes, dataset.image_shape) == (any_mini.source.name, 3, any_mini.source.image_shape)
    for points, (images, labels) in ((dataset.train, any_mini.train), (dataset.test, any_mini.test)):
        assert (points.x.dtype, points.y.dtype) == (torch.float32, torch.int64)
        np.testing.assert_array_equal(points.x.numpy(), to_sphere(images))
        np.testing.assert_array_equal(points.y.numpy(), labels)


def test_root_may_come_from_the_variable(mnist, monkeypatch):
    monkeypatch.setenv("SENSITOMETER_DATA", str(mnist.root))
    assert len(load_dataset("mnist").train.x) == 10


def test_missing_data_set_is_one_line(any_mini):
    with pytest.raises(DataError, match=rf"\A{any_mini.source.name} lacks [^\n]*\Z"):
        load_dataset(any_mini.source.name, root=any_mini.root)


def test_crop_comes_before_the_normalisation(cifar10):
    dataset = load_dataset("cifar10", root=cifar10.root, crop=2)
    assert dataset.image_shape == (3, 2, 2)
    np.testing.assert_array_equal(dataset.train.x.numpy(), to_sphere(cifar10.train[0][:, :, 1:3, 1:3]))
    np.testing.assert_array_equal(dataset.test.x.numpy(), to_sphere(cifar10.test[0][:, :, 1:3, 1:3]))


def test_digits():
    from sklearn.datasets import load_digits  # takes a second

    dataset = load_dataset("digits")
    assert (dataset.classes, dataset.image_shape) == (10, (1, 8, 8))
    assert dataset.train.x.shape == (1297, 64)
    assert dataset.test.x.shape == (500, 64)
    norms = torch.cat([dataset.train.x, dataset.test.x]).double().norm(dim=1)
    torch.testing.assert_close(norms, torch.full_like(norms, 8.0), rtol=1e-7, atol=0)
    # Every image is in one of the two sets, with its label.
    whole = to_sphere(load_digits().images.astype(np.uint8)[:, None])
    points = torch.cat([dataset.train.x, dataset.test.x]).numpy()
    labels = torch.cat([dataset.train.y, dataset.test.y]).numpy()
    assert sorted((x.tobytes(), y) for x, y in zip(points, labels, strict=True)) == sorted(
        (x.tobytes(), y) for x, y in zip(whole, load_digits().target, strict=True)
    )


def test_digits_are_split_once_and_for_all():
    dataset = load_dataset("digits")
    assert dataset.train.y[:12].tolist() == [0, 4, 0, 7, 5, 5, 5, 7, 9, 7, 0, 6]
    assert dataset.test.y[:12].tolist() == [6, 2, 0, 0, 9, 0, 3, 7, 5, 6, 0, 7]
    assert dataset.train.y.bincount().min() >= 120


def test_train_points_choose_a_balanced_nested_subset_in_order():
    whole = load_dataset("digits")
    small, large = load_dataset("digits", train_points=25), load_dataset("digits", train_points=200)
    assert small.train.y.bincount().tolist() == [3] * 5 + [2] * 5
    assert large.train.y.bincount().tolist() == [20] * 10
    assert rows(small.train.x) < rows(large.train.x) < rows(whole.train.x)
    assert torch.equal(small.test.x, whole.test.x)
    positions = [next(i for i, row in enumerate(whole.train.x) if torch.equal(row, x)) for x in small.train.x]
    assert positions == sorted(positions)


def test_as_many_points_as_there_are_is_the_whole_training_set():
    assert torch.equal(load_dataset("digits", train_points=1297).train.x, load_dataset("digits").train.x)


def test_all_norms_hold_after_a_crop():
    x = load_dataset("digits", crop=5).train.x.double()
    assert x.norm(dim=1).numpy() == pytest.approx(math.sqrt(25), rel=1e-6)


@pytest.mark.parametrize("crop", [0, -1, 9, 3.0, True, "4"])
def test_impossible_crop_is_refused(crop):
    with pytest.raises(InvalidInputError, match=rf"\Acrop for digits must be a whole number from 1 to 8; got {crop!r}\Z"):
        load_dataset("digits", crop=crop)


def test_crop_is_bounded_by_the_shorter_side(mnist):
    assert load_dataset("mnist", root=mnist.root, crop=5).image_shape == (1, 5, 5)
    with pytest.raises(InvalidInputError, match="from 1 to 5; got 6"):
        load_dataset("mnist", root=mnist.root, crop=6)


@pytest.mark.parametrize("points", [9, 1298, 0, 100.0, True])
def test_impossible_number_of_points_is_refused(points):
    with pytest.raises(
        InvalidInputError, match=rf"\Atrain_points for digits must be a whole number from 10 to 1297; got {points!r}\Z"
    ):
        load_dataset("digits", train_points=points)


def test_unknown_name_is_refused_with_the_names_there_are():
    with pytest.raises(InvalidInputError, match=", ".join(dataset_names())):
        load_dataset("imagenet")
