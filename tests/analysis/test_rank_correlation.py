import math
import time
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import binom, kendalltau

from sensitometer.analysis import Correlation, kendall, kendall_contrast
from sensitometer.analysis.rank_correlation import BOOTSTRAP_SEED, FEWEST_JACKKNIFE_CLUSTERS, MOST_RESAMPLED_NETWORKS, kendall_tau
from sensitometer.errors import InvalidInputError


def tau_by_pairs(x, y):
    """Tau-b by its definition, one pair after the other."""
    difference = untied_x = untied_y = 0
    for i, j in combinations(range(len(x)), 2):
        a, b = np.sign(x[i] - x[j]), np.sign(y[i] - y[j])
        difference += a * b
        untied_x += a != 0
        untied_y += b != 0
    return difference / math.sqrt(untied_x * untied_y) if untied_x * untied_y else math.nan


def bootstrap_by_scipy(x, y, clusters):
    """The interval from resamples that are written out, network by network."""
    names = list(dict.fromkeys(clusters.tolist()))
    members = [np.flatnonzero(clusters == name) for name in names]
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    taus = []
    for _ in range(1000):
        chosen = np.concatenate([members[k] for k in generator.integers(len(names), size=len(names))])
        taus.append(kendalltau(x[chosen], y[chosen]).statistic)
    return np.nanquantile(taus, [0.025, 0.975])


def jackknife_by_pairs(x, y, clusters):
    """Tau-b plus and minus 1.96 standard errors from its derivative by each network's weight, with matrices over all pairs."""
    a, b = (np.sign(values[:, None] - values) for values in (x, y))
    parts = [signs.sum(1) for signs in (a * b, np.abs(a), np.abs(b))]
    difference, untied_x, untied_y = (part.sum() for part in parts)
    scale = math.sqrt(untied_x * untied_y)
    derivative = 2 * parts[0] / scale - difference / scale * (parts[1] / untied_x + parts[2] / untied_y)
    half = 1.959963984540054 * math.sqrt(sum(derivative[clusters == code].sum() ** 2 for code in set(clusters.tolist())))
    return difference / scale - half, difference / scale + half


def related(rho, clusters, each, seed):
    """Bivariate normal networks of correlation rho, half of whose variance their cluster shares; and their clusters."""
    generator = np.random.default_rng(seed)
    codes = np.repeat(np.arange(clusters), each)
    shared, single = (generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]], size=n) for n in (clusters, codes.size))
    x, y = ((shared[codes] + single) / math.sqrt(2)).T
    return x, y, codes


def sample(n, ties, seed=0):
    generator = np.random.default_rng(seed)
    x = generator.normal(size=n)
    y = x + generator.normal(size=n)
    return np.round(x, ties), np.round(y, ties)


@pytest.mark.parametrize("ties", [0, 1, 15], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("n", [2, 3, 7, 64, 65])
def test_tau_is_that_of_the_definition_and_of_scipy(n, ties):
    x, y = sample(n, ties, seed=n)
    expected = tau_by_pairs(x, y)
    assert kendall_tau(x, y) == pytest.approx(expected, abs=1e-14, nan_ok=True)
    assert kendalltau(x, y).statistic == pytest.approx(expected, abs=1e-14, nan_ok=True)


def test_tau_of_perfect_order_is_one_exactly():
    x = np.arange(1000.0)
    assert kendall_tau(x, x**3) == 1
    assert kendall_tau(x, -x) == -1


@pytest.mark.parametrize("ties", [0, 1, 15], ids=["many ties", "some ties", "no ties"])
def test_interval_is_that_of_written_out_resamples(ties):
    x, y = sample(60, ties)
    clusters = np.random.default_rng(1).choice(["a", "b", "c", "d", "e", "f", "g", "h"], size=60)
    interval = kendall(x, y, clusters)
    np.testing.assert_allclose((interval.low, interval.high), bootstrap_by_scipy(x, y, clusters), atol=1e-12)
    assert (interval.networks, interval.configurations) == (60, 8)
    assert interval.low < interval.tau < interval.high


def test_undefined_resamples_are_left_out():
    # A resample of one cluster only has no untied pair.
    x = y = np.array([0.0, 0.0, 1.0, 1.0, 2.0, 2.0])
    clusters = np.array([0, 0, 1, 1, 2, 2])
    interval = kendall(x, y, clusters)
    np.testing.assert_allclose((interval.low, interval.high), bootstrap_by_scipy(x, y, clusters), atol=1e-12)
    assert (interval.low, interval.high) == (1, 1)


def test_the_interval_does_not_depend_on_how_clusters_are_named():
    x, y = sample(40, 1)
    clusters = np.arange(40) // 4
    names = np.array([None, *"bcdefghij"], dtype=object)[clusters]
    assert kendall(x, y, clusters) == kendall(x, y, names) == kendall(x, y, clusters)


def test_clusters_widen_the_interval():
    # Ten copies of each network are no more evidence than one.
    x, y = sample(30, 15)
    alone = kendall(x, y, np.arange(30))
    copies = kendall(np.repeat(x, 10), np.repeat(y, 10), np.repeat(np.arange(30), 10))
    wrong = kendall(np.repeat(x, 10), np.repeat(y, 10), np.arange(300))
    assert copies.high - copies.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert wrong.high - wrong.low < 0.5 * (copies.high - copies.low)


@pytest.mark.parametrize(
    ("x", "y", "clusters", "tau"),
    [
        ([], [], [], math.nan),
        ([1.0], [1.0], [0], math.nan),
        ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [0, 1, 2], math.nan),
        ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [0, 1, 1], 1.0),
    ],
    ids=["none", "one", "constant", "two clusters"],
)
def test_undefined_is_nan_without_a_warning(x, y, clusters, tau):
    expected = Correlation(tau, math.nan, math.nan, len(x), len(set(clusters)))
    np.testing.assert_equal(tuple(kendall(x, y, clusters)), tuple(expected))


TIES = {
    "none": lambda x, y: (x, y),
    "in x": lambda x, y: (np.round(x), y),
    "in y": lambda x, y: (x, np.round(y)),
    "in both": lambda x, y: (np.round(x), np.round(y)),
}


@pytest.mark.parametrize("ties", TIES.values(), ids=TIES)
def test_the_interval_of_many_networks_is_that_of_the_influences(ties):
    x, y, clusters = related(0.5, 230, 9, seed=0)
    x, y = ties(x, y)
    interval = kendall(x, y, clusters)
    assert (interval.networks, interval.configurations) == (2070, 230)
    assert interval.tau == pytest.approx(kendalltau(x, y).statistic, abs=1e-12)
    np.testing.assert_allclose((interval.low, interval.high), jackknife_by_pairs(x, y, clusters), atol=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.6, -0.95])
@pytest.mark.parametrize("decimals", [0, 15], ids=["ties", "no ties"])
def test_with_hundreds_of_clusters_both_intervals_agree(rho, decimals):
    x, y, codes = related(rho, 300, 4, seed=1)
    x, y = np.round(x, decimals), np.round(y, decimals)
    by_resamples = kendall(x, y, codes)[1:3]
    # An end of 1,000 resamples is itself known to about 5% of the width.
    np.testing.assert_allclose(jackknife_by_pairs(x, y, codes), by_resamples, atol=0.08 * (by_resamples[1] - by_resamples[0]))


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_the_interval_of_many_networks_covers_the_true_tau(rho):
    true = 2 / math.pi * math.asin(rho)
    right = wrong = 0
    for seed in range(200):
        x, y, clusters = related(rho, 300, 7, seed)
        found, alone = kendall(x, y, clusters), kendall(x, y, np.arange(x.size))
        right += found.low <= true <= found.high
        wrong += alone.low <= true <= alone.high
    low, high = binom.interval(0.999, 200, 0.95)
    assert low <= right <= high
    # Networks of one configuration taken for independent ones: too narrow.
    assert wrong < low


def test_which_interval_is_taken():
    # The jackknife's is as wide below tau as above it, the bootstrap's is not.
    def even(networks, clusters):
        x, y = sample(networks, 15)
        interval = kendall(x, y, np.arange(networks) % clusters)
        return interval.high - interval.tau == pytest.approx(interval.tau - interval.low, rel=1e-9)

    assert not even(MOST_RESAMPLED_NETWORKS, FEWEST_JACKKNIFE_CLUSTERS)
    assert not even(MOST_RESAMPLED_NETWORKS + 1, FEWEST_JACKKNIFE_CLUSTERS - 1)
    assert even(MOST_RESAMPLED_NETWORKS + 1, FEWEST_JACKKNIFE_CLUSTERS)


def test_no_interval_of_many_networks_leaves_the_range_of_tau():
    x = np.arange(3000.0)
    found = kendall(x, x**3, np.arange(3000))
    assert (found.low, found.high) == (pytest.approx(1, abs=1e-12), 1)
    # One cluster alone is out of order: tau is as far from 1 as one standard error.
    y = x.copy()
    y[:10] = 3000
    for sign, end in ((1, "high"), (-1, "low")):
        found = kendall(x, sign * y, np.arange(3000) // 10)
        assert abs(found.tau) < 1 and getattr(found, end) == sign


def test_memory_and_time_do_not_grow_with_the_pairs():
    x, y = sample(100_000, 2)
    start = time.perf_counter()
    interval = kendall(x, y, np.arange(100_000))
    assert time.perf_counter() - start < 10
    assert interval.tau == pytest.approx(kendalltau(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0], [1.0, 2.0], [0]), "equally many numbers"),
        (([[1.0]], [[1.0]], [0]), "equally many numbers"),
        (([1.0, math.nan], [1.0, 2.0], [0, 1]), "finite"),
        (([1.0, 2.0], [1.0, math.inf], [0, 1]), "finite"),
        (([1.0, 2.0], [1.0, 2.0], [0]), "one label for each of the 2"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        kendall(*arguments)


@pytest.mark.parametrize(("networks", "clusters"), [(60, 8), (2400, 300)], ids=["bootstrap", "jackknife"])
def test_a_contrast_is_the_difference_of_two_on_the_same_resamples(networks, clusters):
    x, y = sample(networks, 1)
    yardstick = y + 0.3 * np.random.default_rng(2).normal(size=networks)
    codes = np.arange(networks) % clusters
    found = kendall_contrast(x, yardstick, y, codes, share=0.25)
    assert found.tau == pytest.approx(kendall_tau(x, y) - 0.25 * kendall_tau(yardstick, y))
    assert (found.networks, found.configurations) == (networks, clusters)
    generator, members = np.random.default_rng(BOOTSTRAP_SEED), [np.flatnonzero(codes == code) for code in range(clusters)]
    differences = []
    for _ in range(1000):
        chosen = np.concatenate([members[k] for k in generator.integers(clusters, size=clusters)])
        differences.append(kendall_tau(x[chosen], y[chosen]) - 0.25 * kendall_tau(yardstick[chosen], y[chosen]))
    expected = np.quantile(differences, [0.025, 0.975])
    # The jackknife against 1,000 resamples, whose ends are known to about 5% of the width.
    atol = 1e-12 if networks == 60 else 0.1 * (expected[1] - expected[0])
    np.testing.assert_allclose((found.low, found.high), expected, atol=atol)


def test_a_contrast_with_itself_has_no_width():
    x, y = sample(3000, 15)
    for codes in (np.arange(3000) // 300, np.arange(3000)):
        found = kendall_contrast(x, x, y, codes, share=1)
        np.testing.assert_allclose((found.tau, found.low, found.high), 0, atol=1e-12)


def test_an_undefined_contrast_is_nan_without_a_warning():
    for x, yardstick in (([1.0] * 4, [1.0, 2, 3, 4]), ([1.0, 2, 3, 4], [1.0] * 4), ([], [])):
        found = kendall_contrast(x, yardstick, [1.0, 2, 3, 4][: len(x)], range(len(x)))
        assert math.isnan(found.tau) and math.isnan(found.low) and math.isnan(found.high)
    with pytest.raises(InvalidInputError, match="equally many numbers"):
        kendall_contrast([1.0, 2.0], [1.0], [1.0, 2.0], [0, 1])
