"""Data of one's own in memory: arrays, tensors and loaders."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import sensitometer as sm
from sensitometer.data import Points

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8)
X = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))


def with_(value, point=3):
    x = X.clone()
    x[point, 2] = value
    return x


def test_pixels_become_0_to_1_in_the_order_channel_row_column():
    dataset = sm.Dataset.from_arrays(PIXELS, [0, 1, 2, 0, 1, 2], name="mine")
    assert (dataset.name, dataset.classes, dataset.shape, dataset.normalise) == ("mine", 3, (3, 8, 8), "none")
    assert torch.equal(dataset.test.x.view(-1, *dataset.shape), torch.from_numpy(PIXELS).float() / 255)
    assert dataset.test.y.tolist() == [0, 1, 2, 0, 1, 2]
    assert (len(dataset.train.x), len(dataset.train.y), dataset.image_shape) == (0, 0, (3, 8, 8))
    assert dataset.has_labels
    assert not dataset.is_regression


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floats_of_any_precision_become_float32(dtype):
    dataset = sm.Dataset.from_arrays(X.to(dtype).clone().requires_grad_())
    assert dataset.test.x.dtype == torch.float32
    assert torch.equal(dataset.test.x, X.to(dtype).float())
    assert dataset.test.y.tolist() == [-1] * 5
    assert not dataset.has_labels


def test_the_arrays_are_copied():
    x = X.clone()
    dataset = sm.Dataset.from_arrays(x)
    x.zero_()
    assert torch.equal(dataset.test.x, X)


@pytest.mark.parametrize(
    ("labels", "expected", "classes"),
    [
        (np.array([2, 0, 1, 0, 0], dtype=np.uint8), [2, 0, 1, 0, 0], 3),
        (torch.tensor([[1], [0], [1], [0], [4]]), [1, 0, 1, 0, 4], 5),
        ([True, False, False, True, True], [1, 0, 0, 1, 1], 2),
        (np.zeros(5, dtype=bool), [0] * 5, 2),
        (np.array([[True]] * 5), [1] * 5, 2),
    ],
)
def test_labels_may_be_whole_numbers_of_any_kind_booleans_and_one_column(labels, expected, classes):
    dataset = sm.Dataset.from_arrays(X, labels)
    assert (dataset.test.y.dtype, dataset.test.y.tolist(), dataset.classes) == (torch.int64, expected, classes)


def test_classes_are_counted_over_both_sets_or_given():
    assert sm.Dataset.from_arrays(X, [0, 1, 0, 1, 0], X, [0, 1, 2, 3, 0]).classes == 4
    assert sm.Dataset.from_arrays(X, [0, 1, 0, 1, 0], classes=10).classes == 10
    assert (sm.Dataset.from_arrays(X).classes, sm.Dataset.from_arrays(X, classes=7).classes) == (0, 7)


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 2)])
def test_floats_are_targets_of_a_regression_even_if_they_are_whole(shape):
    targets = torch.ones(shape, dtype=torch.float64)
    dataset = sm.Dataset.from_arrays(X, targets)
    assert dataset.is_regression
    assert (dataset.classes, dataset.test.y.dtype) == (0, torch.float32)
    assert dataset.test.y.shape == ((5, 2) if shape == (5, 2) else (5,))
    assert "regression" in repr(dataset)


def test_channels_that_come_last_are_moved_where_that_is_plain_and_said():
    last = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 3), dtype=np.uint8)
    dataset = sm.Dataset.from_arrays(last)
    assert dataset.shape == (3, 8, 6)
    image = dataset.test.x[2].view(3, 8, 6)
    assert all(
        image[c, h, w] == np.float32(last[2, h, w, c]) / np.float32(255) for c in range(3) for h in range(8) for w in range(6)
    )
    assert dataset.notes == ("x_test: pixels [4, 8, 6, 3] have their channels last, and are taken as images of 3 x 8 x 6",)
    grey = sm.Dataset.from_arrays(last[..., 0])
    assert (grey.shape, len(grey.notes)) == ((1, 8, 6), 1)
    # Here the first axis may be that of the channels, too.
    assert sm.Dataset.from_arrays(last[:, :3]).shape == (3, 6, 3)
    floats = sm.Dataset.from_arrays(last / 255)
    assert floats.shape == (8, 6, 3)
    assert "transpose" in floats.notes[0]


def test_pixels_that_come_as_floats_stay_as_they_are_and_it_is_said():
    dataset = sm.Dataset.from_arrays(PIXELS.astype(np.float64))
    assert torch.equal(dataset.test.x, torch.from_numpy(PIXELS).flatten(1).float())
    assert dataset.notes == (
        f"x_test: whole numbers up to {PIXELS.max()} are taken as they are; pixels as uint8 would become [0, 1]",
    )
    assert sm.Dataset.from_arrays(PIXELS / 255).notes == sm.Dataset.from_arrays(X).notes == ()


def test_points_that_are_no_images_have_no_image_shape(refused):
    for shape in ((4,), (7, 3), (2, 3, 4, 5)):
        dataset = sm.Dataset.from_arrays(torch.rand(3, *shape))
        assert dataset.shape == shape
        with refused(r"the points of data must be images \[channels, height, width\]"):
            _ = dataset.image_shape


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ([with_(float("nan"))], {}, r"x_test must hold finite numbers of float32; point 3 has nan \(1 such point\)"),
        ([X, None, with_(float("-inf"), 1)], {}, "x_train must hold finite numbers of float32; point 1 has -inf"),
        ([np.full((3, 2), 1e300)], {}, r"x_test must hold finite numbers of float32; point 0 has 1e\+300"),
        ([X, torch.arange(4)], {}, r"y_test must have a label per point, 5; got int64 \[4\]"),
        ([X, [0, 1, 2, 3, -1]], {}, "y_test must hold classes from 0; point 4 has -1; points without labels have none, not -1"),
        ([X, [0, 1, 2, 3, 7]], {"classes": 5}, "y_test must hold classes from 0 to 4; point 4 has 7"),
        ([X, None, X, [9] * 5], {"classes": 5}, "y_train must hold classes from 0 to 4; point 0 has 9"),
        ([X, list("abcde")], {}, "y_test must hold whole numbers, classes, or floats, targets; got <U1.*numpy.unique"),
        ([X, np.eye(5, dtype=int)], {}, r"y_test must be classes \[N\]; got int64 \[5, 5\]; for one-hot labels, y.argmax\(1\)"),
        ([X, torch.rand(5, 2, 2)], {}, r"y_test must be classes \[N\], or targets \[N\] or \[N, K\]; got float32 \[5, 2, 2\]"),
        ([X, with_(float("nan"))], {}, "y_test must hold finite numbers of float32; point 3 has"),
        ([X, torch.rand(5)], {"classes": 3}, r"y_test must hold whole numbers, as classes=3; got float32.*y.astype\('int64'\)"),
        (
            [X, torch.rand(5), X, torch.arange(5)],
            {},
            "y_train must be labels of the kind of y_test, 1 float per point; got classes",
        ),
        ([X, torch.rand(5, 2), X, torch.rand(5)], {}, "y_train must be .* 2 floats per point; got 1 float per point"),
        ([torch.arange(10)[:, None]], {}, "x_test must hold floats, or pixels as uint8; got int64 .* x.astype"),
        ([torch.rand(5)], {}, r"x_test must be points \[N, ...\]; got float32 \[5\]; for points of one number, x\[:, None\]"),
        ([torch.rand(0, 4)], {}, r"x_test must hold at least one point of one number; got float32 \[0, 4\]"),
        ([torch.rand(4, 0)], {}, "x_test must hold at least one point of one number"),
        (["hello"], {}, "x_test must hold floats, or pixels as uint8; got str"),
        ([None], {}, "x_test must hold floats, or pixels as uint8; got NoneType"),
        ([[[1.0, 2.0], [3.0]]], {}, "x_test must be a tensor or an array of numbers; got list"),
        ([X.to_sparse()], {}, "x_test must be a tensor or an array of numbers; got torch.float32"),
        ([X, None, torch.rand(5, 3)], {}, "x_train must hold points of 4, as x_test does; got 3"),
        ([X, None, np.zeros((5, 4), np.uint8)], {}, "x_train must be float32, as x_test is; got uint8"),
        ([X, None, None, [1]], {}, "x_train must be given where y_train is; got None"),
        ([X], {"classes": 0}, "classes must be a whole number of at least 1; got 0"),
        ([X], {"name": "two\nlines"}, r"name must be printable text, what the data are called; got 'two\\nlines'"),
        ([X], {"normalise": "half"}, "normalise must be sphere, none or MEAN/STD, such as .*; got 'half'"),
    ],
)
def test_arrays_that_cannot_be_meant_are_refused(arguments, options, message, refused):
    with refused(message):
        sm.Dataset.from_arrays(*arguments, **options)


@pytest.mark.parametrize("how", ["sphere", "none", "0.5/0.25", ".4,.5,.6/.1,.2,.3"])
def test_another_normalisation_starts_from_the_raw_numbers(how):
    dataset = sm.Dataset.from_arrays(PIXELS, normalise="0.1/0.3", x_train=PIXELS[:2])
    for data in (dataset.renormalised(how), dataset.renormalised("sphere").renormalised(how)):
        expected = sm.Dataset.from_arrays(PIXELS, normalise=how, x_train=PIXELS[:2])
        assert data.normalise == how
        assert torch.equal(data.test.x, expected.test.x)
        assert torch.equal(data.train.x, expected.train.x)


def test_raw_numbers_that_are_gone_are_missed(refused):
    points = Points(X, torch.zeros(5).long())
    plain = sm.Dataset("plain", points, points, 2, (4,))
    assert plain.renormalised("sphere").test.x.norm(dim=1).tolist() == pytest.approx([2.0] * 5)
    with refused("normalise must be sphere for gone, whose raw numbers were not kept; got 'none'"):
        sm.Dataset("gone", points, points, 2, (4,), "sphere").renormalised("none")
    with refused("normalise must be 0.5/0.5 for data, whose raw numbers were not kept; got 'none'"):
        sm.Dataset.from_arrays(PIXELS, normalise="0.5/0.5").without_raw().renormalised("none")


def test_a_loader_gives_what_its_arrays_give():
    y = torch.arange(10) % 3
    x = torch.rand(10, 3, 4, 4)
    expected = sm.Dataset.from_arrays(x, y, x[:7], y[:7])
    train = DataLoader(TensorDataset(x[:7], y[:7]), batch_size=3)
    for loader in (
        DataLoader(TensorDataset(x, y), batch_size=4),
        [(x[:1], y[:1]), (x[1:], y[1:])],
        [{"pixel_values": x, "labels": y}],
        ({"x": x[i : i + 5].numpy(), "y": y[i : i + 5].numpy()} for i in (0, 5)),
    ):
        dataset = sm.Dataset.from_loader(loader, train)
        for ours, theirs in ((dataset.test, expected.test), (dataset.train, expected.train)):
            assert torch.equal(ours.x, theirs.x)
            assert torch.equal(ours.y, theirs.y)
        assert dataset.shape == (3, 4, 4)
    assert not sm.Dataset.from_loader(DataLoader(TensorDataset(x), batch_size=4)).has_labels
    assert len(sm.Dataset.from_loader([x, x[:3]]).test.y) == 13


@pytest.mark.parametrize(
    ("loader", "message"),
    [
        (TensorDataset(X), r"the data set TensorDataset: wrap it, DataLoader\(dataset, batch_size=256\)"),
        (X, "loader must be a DataLoader, or another iterable of batches .*; got torch.float32 .* Dataset.from_arrays"),
        (5, "loader must be a DataLoader.*; got int"),
        ([], "loader must give at least one batch; it gave none"),
        ([{"input_ids": X}], "batch 0 of loader must hold points under one of pixel_values, x, .*; it holds input_ids"),
        ([(X, torch.arange(5)), X], "batch 1 of loader must have labels if and only if those before it have"),
        ([X, (X, torch.arange(5))], "batch 1 of loader must have labels if and only if those before it have"),
        ([X, X[:, :2]], "batch 1 of loader must hold points of 4, as those before it; got 2"),
        ([(X, X, X)], r"batch 0 of loader must be x or \(x, y\); got 3 parts"),
        ([("a", "b")], "batch 0 of loader must hold points as a tensor or an array; got str"),
        ([(X, torch.arange(4))], "batch 0 of loader must have a label per point; got 4 of 5 points"),
        ([X, with_(float("nan"), 0)], "x_test must hold finite numbers of float32; point 5 has nan"),
    ],
)
def test_loaders_of_something_else_are_refused(loader, message, refused):
    with refused(message):
        sm.Dataset.from_loader(loader)


def test_an_error_in_a_users_loader_is_the_users():
    def batches():
        yield X
        raise KeyError("theirs")

    with pytest.raises(KeyError, match="theirs"):
        sm.Dataset.from_loader(batches())


def test_training_refuses_data_it_cannot_train_on(refused):
    y = torch.arange(5) % 2
    for arguments, message in (
        ([X, y], "dataset must have training points; data has 0: give x_train and y_train, train_loader, or a folder train/"),
        ([X, y, X], "dataset must have labels to train on; training points of data have none"),
        ([X, None, X, y], "dataset must have labels to train on; test points of data have none"),
        (
            [X, X[:, 0], X, X[:, 0]],
            "dataset must have classes, whole numbers, to train on; the training points of data have floats",
        ),
    ):
        with refused(message):
            sm.train([sm.Configuration("data", 4, 2)], sm.Dataset.from_arrays(*arguments))


def test_tabular_data_are_trained_on(refused):
    x, y = torch.rand(20, 6), torch.arange(20) % 2
    dataset = sm.Dataset.from_arrays(x, y, x, y, name="table")
    configuration = sm.Configuration("table", 4, 2, batch_size=10, steps=3)
    (result,) = sm.train([configuration], dataset)
    assert result.row["jacobian_norm"] > 0
    with refused(r"transition_points must be 0 for points that are no images .*; those of table are 6"):
        sm.train([configuration], dataset, transition_points=1)
