import math
import time
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import kendalltau

from sensitometer.analysis import Correlation, kendall
from sensitometer.analysis.rank_correlation import BOOTSTRAP_SEED, kendall_tau
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


def bootstrap_by_scipy(x, y, clusters, resamples, level):
    """The interval from resamples that are written out, network by network."""
    names = list(dict.fromkeys(clusters.tolist()))
    members = [np.flatnonzero(clusters == name) for name in names]
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    taus = []
    for _ in range(resamples):
        chosen = np.concatenate([members[k] for k in generator.integers(len(names), size=len(names))])
        taus.append(kendalltau(x[chosen], y[chosen]).statistic)
    return np.nanquantile(taus, [(1 - level) / 2, (1 + level) / 2])


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
@pytest.mark.parametrize("level", [0.95, 0.5])
def test_interval_is_that_of_written_out_resamples(ties, level):
    x, y = sample(60, ties)
    clusters = np.random.default_rng(1).choice(["a", "b", "c", "d", "e", "f", "g", "h"], size=60)
    found = kendall(x, y, clusters, resamples=70, level=level)
    np.testing.assert_allclose((found.low, found.high), bootstrap_by_scipy(x, y, clusters, 70, level), atol=1e-12)
    assert (found.networks, found.clusters) == (60, 8)
    assert found.low < found.tau < found.high


def test_undefined_resamples_are_left_out():
    # A resample of one cluster only has no untied pair.
    x = y = np.array([0.0, 0.0, 1.0, 1.0, 2.0, 2.0])
    clusters = np.array([0, 0, 1, 1, 2, 2])
    found = kendall(x, y, clusters, resamples=100)
    np.testing.assert_allclose((found.low, found.high), bootstrap_by_scipy(x, y, clusters, 100, 0.95), atol=1e-12)
    assert (found.low, found.high) == (1, 1)


def test_no_interval_when_every_resample_is_undefined():
    # The one resample holds the last two clusters only, where x is constant.
    found = kendall([1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0, 1, 2], resamples=1)
    assert found.tau == 1
    assert math.isnan(found.low) and math.isnan(found.high)


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
    found = kendall(x, y, clusters)
    expected = Correlation(tau, math.nan, math.nan, len(x), len(set(clusters)))
    np.testing.assert_equal(
        (found.tau, found.low, found.high, found.networks, found.clusters),
        (expected.tau, expected.low, expected.high, expected.networks, expected.clusters),
    )


def test_memory_and_time_do_not_grow_with_the_pairs():
    x, y = sample(20_000, 2)
    start = time.perf_counter()
    found = kendall(x, y, np.arange(20_000), resamples=10)
    assert time.perf_counter() - start < 10
    assert found.tau == pytest.approx(kendalltau(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1.0], [1.0, 2.0], [0]), {}, "equally many numbers"),
        (([[1.0]], [[1.0]], [0]), {}, "equally many numbers"),
        (([1.0, math.nan], [1.0, 2.0], [0, 1]), {}, "finite"),
        (([1.0, 2.0], [1.0, math.inf], [0, 1]), {}, "finite"),
        (([1.0, 2.0], [1.0, 2.0], [0]), {}, "one label for each of the 2"),
        (([1.0, 2.0], [1.0, 2.0], [0, 1]), {"resamples": 0}, "resamples must be at least 1; got 0"),
        (([1.0, 2.0], [1.0, 2.0], [0, 1]), {"level": 1}, "level must be between 0 and 1; got 1"),
        (([1.0, 2.0], [1.0, 2.0], [0, 1]), {"level": math.nan}, "level must be between 0 and 1; got nan"),
    ],
)
def test_bad_arguments_are_refused(arguments, options, message):
    with pytest.raises(InvalidInputError, match=message):
        kendall(*arguments, **options)
