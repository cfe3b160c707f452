import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from sensitometer.analysis.means import contrast, dip, mean_interval


def of_scipy(means):
    """The mean and Student's interval as scipy's test has them."""
    interval = ttest_1samp(means, 0).confidence_interval(0.95)
    return np.mean(means), interval.low, interval.high


# --- mean_interval


def test_each_value_is_a_cluster_of_its_own():
    values = [0.3, -1.2, 4.5, 0.0, 2.25]
    found = mean_interval(values)
    assert found[:3] == pytest.approx(of_scipy(values))
    assert (found.values, found.clusters) == (5, 5)
    assert found == mean_interval(values, [7, 3, 0, 5, 1])


def test_clusters_are_averaged_first():
    # Means 2, -1, 5 and 0, of three, one, two and one value, not side by side.
    values, clusters = [1, 5, -1, 2, 3, 0, 5], [4, 8, 9, 4, 4, 2, 8]
    found = mean_interval(values, clusters)
    assert found[:3] == pytest.approx(of_scipy([2, -1, 5, 0]))
    assert (found.mean, found.values, found.clusters) == (1.5, 7, 4)


def test_nan_is_left_out_and_so_is_a_cluster_of_nothing_else():
    values, clusters = [1, math.nan, 3, math.nan, math.nan, 8], [0, 0, 0, 1, 1, 2]
    assert mean_interval(values, clusters) == mean_interval([1, 3, 8], [0, 0, 2])
    assert mean_interval(values, clusters)[3:] == (3, 2)
    assert mean_interval([2, math.nan, 4]) == mean_interval([2, 4])


@pytest.mark.parametrize(("values", "clusters"), [([3.0], None), ([3.0, math.nan], None), ([2.0, 4.0], [5, 5])])
def test_one_cluster_has_a_mean_and_no_interval(values, clusters):
    found = mean_interval(values, clusters)
    assert found.mean == 3
    assert math.isnan(found.low) and math.isnan(found.high)
    assert (found.values, found.clusters) == (len(values) - np.isnan(values).sum(), 1)


@pytest.mark.parametrize(("values", "clusters"), [([], None), ([], []), ([math.nan, math.nan], None), ([math.nan], [0])])
def test_nothing_has_no_mean(values, clusters):
    found = mean_interval(values, clusters)
    assert all(map(math.isnan, found[:3]))
    assert found[3:] == (0, 0)


def test_values_that_are_all_the_same_are_certain():
    assert mean_interval([0.25] * 4)[:3] == (0.25, 0.25, 0.25)


def test_lengths_that_differ_are_refused(refused):
    with refused(r"values and clusters must be of one length; got \[3\] and \[2\]"):
        mean_interval([1, 2, 3], [0, 1])


@pytest.mark.parametrize("clusters", [4, 12])
def test_the_interval_covers_the_mean_as_often_as_it_says(clusters):
    noise = np.random.default_rng(clusters)
    runs, sizes = 2000, np.arange(clusters) % 3 + 1
    codes = np.repeat(np.arange(clusters), sizes)
    covered = 0
    for _ in range(runs):
        # Seeds of a configuration are alike: taken as independent, they would make the interval too short.
        values = 0.7 + noise.normal(size=clusters)[codes] + 0.2 * noise.normal(size=len(codes))
        found = mean_interval(values, codes)
        covered += found.low < 0.7 < found.high
    # Three standard errors of a share of 0.95 over so many runs.
    assert covered / runs == pytest.approx(0.95, abs=3 * math.sqrt(0.95 * 0.05 / runs))


# --- contrast


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [(1, 0, 1), (0, 1, -1), (0, 0, 0), (2, 1, 1 / 3), (1, 2, -1 / 3), (3, 3, 0), (3e-300, 1e-300, 0.5), (1e-320, 0, 1)],
)
def test_contrasts(a, b, expected):
    assert contrast(float(a), float(b)) == pytest.approx(expected)


@pytest.mark.parametrize(("a", "b"), [(math.nan, 1), (1, math.nan), (0, math.nan), (math.inf, 1), (1, math.inf), (math.inf,) * 2])
def test_the_contrast_of_what_is_not_finite_is_undefined(a, b):
    assert math.isnan(contrast(float(a), float(b)))


SIZES = st.floats(0, 1e300)


@given(SIZES, SIZES)
def test_a_contrast_is_at_most_1_and_turns_with_its_numbers(a, b):
    assert -1 <= contrast(a, b) <= 1
    assert contrast(a, b) == -contrast(b, a)


# --- dip


def levels(bins, near_points, near_middles, elsewhere):
    """A profile that has these values within 0.2 of the points, within 0.2 of the middles between, and everywhere else."""
    profile = np.empty(bins)
    for index in range(bins):
        angle = (index + 0.5) * 2 * math.pi / bins
        points, middles = (
            min(abs(math.remainder(angle - place * math.pi / 3, 2 * math.pi)) for place in places)
            for places in ((1, 3, 5), (0, 2, 4))
        )
        profile[index] = near_points if points < 0.2 else near_middles if middles < 0.2 else elsewhere
    return profile


@pytest.mark.parametrize("bins", [16, 17, 96, 129])
def test_a_dip_is_of_what_is_near_the_points_and_near_the_middles(bins):
    assert dip(levels(bins, 1.0, 3.0, 1e6)) == pytest.approx(0.5)
    assert dip(levels(bins, 3.0, 1.0, 0.0)) == pytest.approx(-0.5)
    assert dip(levels(bins, 0.0, 2.0, 1.0)) == 1
    assert dip(np.full(bins, 7.0)) == dip(np.zeros(bins)) == 0


@pytest.mark.parametrize("bins", [96, 129])
def test_a_dip_is_of_means(bins):
    # A wave of three periods, lowest at the points: its mean over 0.2 radians each way is that of the cosine.
    angle = (np.arange(bins) + 0.5) * 2 * math.pi / bins
    mean = math.sin(0.6) / 0.6
    assert dip(5 + 2 * np.cos(3 * angle)) == pytest.approx(2 * mean / 5, rel=0.02)
    # And one of one period, of which the three points have the same mean as the middles.
    assert dip(5 + 2 * np.cos(angle)) == pytest.approx(0, abs=1e-12)


def test_a_single_point_counts_for_a_third():
    angle = (np.arange(96) + 0.5) * 2 * math.pi / 96
    assert dip(np.where(np.abs(angle - math.pi) < 0.2, 0.0, 1.0)) == pytest.approx(contrast(1, 2 / 3))


@pytest.mark.parametrize("bins", [0, 1, 2, 3, 15])
def test_too_few_bins_are_refused(bins, refused):
    with refused(f"a profile must have at least 16 bins; got {bins}"):
        dip(np.ones(bins))


@pytest.mark.parametrize("bins", range(16, 40))
def test_no_bins_are_empty_from_16_on(bins):
    assert dip(np.ones(bins)) == 0
