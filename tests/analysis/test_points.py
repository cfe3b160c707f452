import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import DIGITS
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
from sensitometer.measures import point_values
from sensitometer.networks import MLP

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


def slow_bounds(n, m, loss):
    """Lower and upper of (5) and the approximation (7) at one loss, from 60 digits."""
    with localcontext(DIGITS):
        n, m, e = Decimal(n), Decimal(m), (-Decimal(loss)).exp()
        spread = e * (1 - e)
        near = m.sqrt() / (n - 1) * (1 - e) * (n * n * e * e + n - 2).sqrt()
        return [float(value) for value in ((n * m / (n - 1)).sqrt() * spread, (2 * m).sqrt() * spread, near)]


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_bounds_are_the_papers_at_every_size_of_loss(classes):
    losses = [1e-30, 1e-17, 1e-9, 1e-3, 0.1, math.log(2), math.log(classes), 5.0, 30.0]
    expected = np.array([slow_bounds(classes, 0.37, loss) for loss in losses]).T
    for function, values in zip((lower_bound, upper_bound, approximation), expected, strict=True):
        # Tensors are taken, too.
        for kind in (losses, torch.tensor(losses, dtype=torch.float64)):
            bound = function(kind, 0.37, classes)
            assert bound.dtype == np.float64
            np.testing.assert_allclose(bound, values, rtol=1e-12)


def test_two_classes_leave_nothing_between_the_bounds():
    """n = 2: both are sqrt(2 M) e^-l (1 - e^-l), and (7), the norm of both rows, is sqrt(2) times that of one."""
    losses = [0.1, 1.0, 4.0]
    np.testing.assert_allclose(lower_bound(losses, 3.0, 2), upper_bound(losses, 3.0, 2))
    np.testing.assert_allclose(approximation(losses, 3.0, 2), math.sqrt(2) * upper_bound(losses, 3.0, 2))


def test_bounds_hold_where_their_assumptions_do():
    """Rows of the logit Jacobian drawn alike and independently: a linear model of many inputs, at points of every loss."""
    stream = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 4000, generator=stream, dtype=torch.float64)
    x = 0.02 * torch.randn(200, 4000, generator=stream, dtype=torch.float64)
    values = point_values(MLP([weights], "relu"), x, torch.randint(5, (200,), generator=stream))
    norms = values.label_jacobian_norm, values.jacobian_norm, values.logit_jacobian_norm
    shares = bound_shares(values.cross_entropy, *norms, classes=5)
    assert shares.inside > 0.85
    assert shares.above > 0.95
    ratio = values.jacobian_norm.numpy() / approximation(values.cross_entropy, mean_square(values.logit_jacobian_norm, 5), 5)
    assert np.median(ratio) == pytest.approx(1, abs=0.1)


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
