"""The real data sets, where `$SENSITOMETER_DATA` holds them."""

import math
import os

import pytest
import torch

from sensitometer.data import list_datasets, load_dataset
from sensitometer.data.fetching import fetch_dataset

pytestmark = pytest.mark.real_data

FIRST_LABELS = {
    "mnist": ([5, 0, 4, 1, 9, 2, 1, 3, 1, 4], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]),
    "fashion-mnist": ([9, 0, 0, 3, 0, 2, 7, 2, 5, 5], [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]),
    "cifar10": ([6, 9, 9, 4, 1, 1, 2, 7, 8, 3], [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]),
}


@pytest.fixture(params=["mnist", "fashion-mnist", "cifar10", "cifar100"])
def name(request):
    if not os.environ.get("SENSITOMETER_DATA"):
        pytest.skip("SENSITOMETER_DATA is not set")
    status = next(status for status in list_datasets() if status.source.name == request.param)
    if status.missing:
        pytest.skip(f"{status.folder} does not hold {request.param}")
    return request.param


def test_points_and_labels(name):
    dataset = load_dataset(name)
    shape = (1, 28, 28) if "mnist" in name else (3, 32, 32)
    classes = 100 if name == "cifar100" else 10
    assert (dataset.image_shape, dataset.classes) == (shape, classes)
    for points, count in ((dataset.train, 50_000), (dataset.test, 10_000)):
        assert points.x.shape == (count, math.prod(shape))
        assert points.y.bincount().shape == (classes,)
        norms = points.x.norm(dim=1)
        torch.testing.assert_close(norms, torch.full_like(norms, math.sqrt(math.prod(shape))), rtol=1e-5, atol=0)
    if name in FIRST_LABELS:
        assert (dataset.train.y[:10].tolist(), dataset.test.y[:10].tolist()) == FIRST_LABELS[name]


def test_balanced_subset(name):
    dataset = load_dataset(name, crop=24, train_points=1000)
    assert dataset.image_shape[1:] == (24, 24)
    assert (dataset.train.y.bincount() == 1000 // dataset.classes).all()


def test_there_is_nothing_to_fetch(name):
    assert fetch_dataset(name).downloaded == ()
