import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from sensitometer.analysis.points import (
    approximation,
    bound_shares,
    error_auroc,
    lower_bound,
    mean_square,
    precision_at_errors,
    rank_correlation_of_wrong,
    upper_bound,
)
from sensitometer.errors import InvalidInputError
from sensitometer.measures.bounds import JacobianBounds

# Few values, so that ties are many.
some_points = st.lists(st.tuples(st.sampled_from([0.0, 1e-40, 1.0, 2.0, 1e30]), st.booleans()), max_size=9)


def slow_auroc(points):
    pairs = [(a > b) + 0.5 * (a == b) for a, wrong in points for b, other in points if wrong and not other]
    return sum(pairs) / len(pairs) if pairs else math.nan


def slow_precision(points):
    """The mean over all orders of the points in which no norm comes before a higher one."""
    count = sum(wrong for _, wrong in points)
    firsts = [
        sum(wrong for _, wrong in order[:count]) / count
        for order in itertools.permutations(points)
        if count and all(a >= b for (a, _), (b, _) in itertools.pairwise(order))
    ]
    return sum(firsts) / len(firsts) if firsts else math.nan


def columns(points):
    return [norm for norm, _ in points], np.array([wrong for _, wrong in points], dtype=bool)


@given(some_points)
def test_auroc_is_the_share_of_pairs_in_order(points):
    assert error_auroc(*columns(points)) == pytest.approx(slow_auroc(points), nan_ok=True)


@given(some_points.map(lambda points: points[:6]))
def test_precision_is_the_mean_over_how_ties_may_fall(points):
    assert precision_at_errors(*columns(points)) == pytest.approx(slow_precision(points), nan_ok=True)


def test_what_needs_both_kinds_of_points_or_wrong_ones_is_undefined_without():
    norm, none, every = [1.0, 2.0], np.array([False, False]), np.array([True, True])
    assert math.isnan(error_auroc(norm, none)) and math.isnan(error_auroc(norm, every))
    assert math.isnan(precision_at_errors(norm, none)) and precision_at_errors(norm, every) == 1.0
    assert math.isnan(error_auroc([], np.array([], dtype=bool)))


def test_rank_correlation_is_of_wrong_points_alone():
    generator = np.random.default_rng(0)
    norm, loss = generator.integers(0, 20, (2, 60)).astype(float)
    wrong = np.arange(60) % 4 == 0
    expected = kendalltau(norm[wrong], loss[wrong]).statistic
    assert rank_correlation_of_wrong(norm, loss, wrong) == pytest.approx(expected)
    assert abs(expected - kendalltau(norm, loss).statistic) > 0.01


@pytest.mark.parametrize(("count", "defined"), [(9, False), (10, True)])
def test_rank_correlation_needs_ten_wrong_points(count, defined):
    values = np.arange(30.0)
    tau = rank_correlation_of_wrong(values, -values, values < count)
    assert tau == pytest.approx(-1.0 if defined else math.nan, nan_ok=True)


def test_rank_correlation_with_a_constant_is_undefined():
    assert math.isnan(rank_correlation_of_wrong(np.zeros(12), np.arange(12.0), np.ones(12, dtype=bool)))


@pytest.mark.parametrize(
    ("norm", "wrong", "message"),
    [
        ([1.0, 2.0], np.array([0, 1]), "wrong int64"),
        ([1.0, 2.0, 3.0], np.array([True, False]), r"got shapes \(3,\), \(2,\)"),
        ([1.0, math.nan], np.array([True, False]), "values must be finite"),
    ],
)
@pytest.mark.parametrize("function", [error_auroc, precision_at_errors])
def test_what_cannot_be_ranked_is_refused(function, norm, wrong, message):
    with pytest.raises(InvalidInputError, match=message):
        function(norm, wrong)


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_bounds_are_those_of_the_metrics(classes):
    generator = np.random.default_rng(classes)
    losses, M = np.concatenate([[0.0, 1e-300, 50.0, 800.0], 10 ** generator.uniform(-40, 1.5, 200)]), generator.lognormal()
    twin = JacobianBounds(classes, M)
    for function, other in ((lower_bound, twin.lower), (upper_bound, twin.upper), (approximation, twin.approximation)):
        found = function(losses, M, classes)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, other(torch.from_numpy(losses)).numpy(), rtol=1e-13)


def test_mean_square_is_of_the_squares():
    assert mean_square([1.0, 3.0], 10) == pytest.approx(0.5)
    # In float64, whatever the type of the norms.
    assert mean_square(np.full(2, 1e30, dtype=np.float32), 10) == pytest.approx(1e59)


def test_points_are_counted_by_the_side_of_the_bounds_on_which_they_are():
    """M = 1, n = 4, all losses log 2: lower sqrt(4/3)/4 = 0.289, upper sqrt(2)/4 = 0.354, (7) sqrt(6)/6 = 0.408."""
    shares = bound_shares(
        np.full(5, math.log(2)), [0.14, 0.29, 0.35, 0.36, 0.9], [0.20, 0.21, 0.4, 0.81, 0.82], np.full(5, 2.0), classes=4
    )
    assert shares._asdict() == {"inside": 0.4, "around": 0.6, "above": 0.6, "near": 0.6}


def test_a_point_without_loss_and_norm_lies_on_the_bounds():
    shares = bound_shares([0.0, 0.0, 1.0], [0.0, 1e-30, 9.0], [0.0, 1e-30, 1e-9], [1.0, 1.0, 1.0], classes=10)
    assert shares == pytest.approx((1 / 3, 1 / 3, 2 / 3, 1 / 3))
