import hashlib
import math

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from sensitometer.data.transforms import balanced_subset, centre_crop, hash_order, to_sphere


def slow_to_sphere(image):
    """One image at a time, one pixel at a time."""
    pixels = [float(pixel) for channel in image for row in channel for pixel in row]
    mean = math.fsum(pixels) / len(pixels)
    variance = math.fsum((pixel - mean) ** 2 for pixel in pixels) / len(pixels)
    return [(pixel - mean) / math.sqrt(variance) if variance else 0.0 for pixel in pixels]


@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=4, max_dims=4, max_side=6)))
def test_sphere_is_the_slow_twins(images):
    points = to_sphere(images)
    assert points.dtype == np.float32
    np.testing.assert_allclose(points, [slow_to_sphere(image) for image in images], rtol=2e-7, atol=1e-12)


def test_points_lie_on_the_sphere_whatever_chunk_they_are_in():
    images = np.random.default_rng(0).integers(0, 256, (1000, 3, 8, 8), dtype=np.uint8)
    points = to_sphere(images).astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), math.sqrt(192), rtol=1e-7)
    np.testing.assert_allclose(points.mean(axis=1), 0, atol=1e-7)
    np.testing.assert_array_equal(to_sphere(images[777:778])[0], points[777])


@pytest.mark.parametrize("value", [0, 1, 7, 255])
def test_image_of_equal_pixels_becomes_the_centre(value):
    points = to_sphere(np.full((2, 3, 5, 7), value, dtype=np.uint8))
    np.testing.assert_array_equal(points, np.zeros((2, 105), dtype=np.float32))


def test_one_pixel_apart_is_on_the_sphere_already():
    images = np.full((1, 3, 32, 32), 200, dtype=np.uint8)
    images[0, 1, 2, 3] = 201
    assert np.linalg.norm(to_sphere(images).astype(np.float64)) == pytest.approx(math.sqrt(3072), rel=1e-6)


def test_points_run_over_channel_row_column():
    images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(1, 2, 3, 4)
    assert (np.diff(to_sphere(images)[0]) > 0).all()


@pytest.mark.parametrize(("crop", "top", "left"), [(7, 0, 0), (6, 0, 1), (5, 1, 1), (4, 1, 2), (1, 3, 3)])
def test_crop_is_central_and_drops_the_odd_one_at_the_bottom_and_the_right(crop, top, left):
    images = np.arange(2 * 7 * 8, dtype=np.uint8).reshape(1, 2, 7, 8)
    expected = [
        [[channel * 56 + row * 8 + column for column in range(left, left + crop)] for row in range(top, top + crop)]
        for channel in range(2)
    ]
    assert centre_crop(images, crop)[0].tolist() == expected


def test_hash_order_is_fixed():
    # From the shell: for i in 0 1 2 3 4 5 6 7 8 9; do echo "$(printf %s $i | sha256sum) $i"; done | sort
    assert hash_order(10).tolist() == [9, 8, 4, 3, 0, 1, 7, 2, 6, 5]
    assert hash_order(0).tolist() == []


def test_hash_order_is_a_permutation_and_grows_by_insertion():
    order = hash_order(500)
    assert sorted(order) == list(range(500))
    assert [i for i in order if i < 100] == hash_order(100).tolist()
    assert order[0] == min(range(500), key=lambda i: hashlib.sha256(b"%d" % i).hexdigest())


labels_and_count = st.lists(st.integers(0, 3), min_size=1, max_size=60).flatmap(
    lambda labels: st.tuples(st.just(np.array(labels, dtype=np.uint8)), st.integers(0, len(labels)))
)


@given(labels_and_count)
def test_subset_is_balanced_nested_and_ascending(case):
    labels, points = case
    chosen = balanced_subset(labels, points, 4)
    assert len(chosen) == points
    assert (np.diff(chosen) > 0).all()
    assert set(chosen) <= set(balanced_subset(labels, min(points + 1, len(labels)), 4))
    taken, there = np.bincount(labels[chosen], minlength=4), np.bincount(labels, minlength=4)
    for label in range(4):
        # A class is behind the fullest by more than one only when it is used up.
        assert taken[label] >= taken.max() - 1 or taken[label] == there[label]


def test_subset_goes_through_each_class_in_hash_order():
    labels = np.array([0, 1] * 50, dtype=np.uint8)
    order = hash_order(100).tolist()
    expected = [i for i in order if i % 2 == 0][:3] + [i for i in order if i % 2 == 1][:2]
    assert balanced_subset(labels, 5, 2).tolist() == sorted(expected)
