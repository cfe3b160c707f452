"""Values at each point and the bounds of appendix A.3, against the formulas and autograd in float64."""

import math
from decimal import Decimal, localcontext

import pytest
import torch
from reference import DIGITS, forward
from reference import cross_entropy as slow_cross_entropy
from reference import half_square as slow_half_square
from reference import jacobian_norm as slow_norm
from torch import nn

from sensitometer.measures.bounds import JacobianBounds, PointValues, jacobian_bounds, point_values
from sensitometer.networks import MLP, MLPStack, initial_weights, layer_shapes


def make_network(activation="relu", classes=4, scale=1.0):
    return MLP(initial_weights(layer_shapes(6, 9, 3, classes), activation, scale, 3), activation)


def make_points(count, classes=4):
    stream = torch.Generator().manual_seed(6)
    return torch.randn(count, 6, generator=stream), torch.randint(classes, (count,), generator=stream)


def twins(model, x, y):
    """Each value from its definition, a point at a time."""
    logits = model(x.double()).detach()
    probabilities = logits.softmax(1)
    return {
        "label": y,
        "predicted": torch.tensor([row.index(max(row)) for row in logits.tolist()]),
        "confidence": torch.tensor([max(row) for row in probabilities.tolist()], dtype=torch.float64),
        "cross_entropy": torch.tensor(
            [slow_cross_entropy(logits[i : i + 1], y[i : i + 1]) for i in range(len(y))], dtype=torch.float64
        ),
        "l2_loss": torch.tensor([slow_half_square(logits[i : i + 1], y[i : i + 1]) for i in range(len(y))], dtype=torch.float64),
        "jacobian_norm": slow_norm(model, x),
        "label_jacobian_norm": slow_norm(model, x, target=y),
        "logit_jacobian_norm": slow_norm(model, x, "logits"),
    }


def assert_values(found, expected, rtol):
    assert vars(found).keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(getattr(found, name), value, rtol=rtol, atol=0, msg=lambda text, name=name: f"{name}: {text}")
    assert found.correct.tolist() == [a == b for a, b in zip(found.predicted.tolist(), found.label.tolist(), strict=True)]


@pytest.mark.parametrize("activation", ["relu", "tanh", "hardsigmoid"])
def test_values_of_a_network(activation):
    network, (x, y) = make_network(activation), make_points(12)
    expected = twins(lambda points: forward(network.weights, activation, points), x, y)
    assert_values(point_values(network, x, y, chunk_size=5), expected, rtol=1e-4)


def test_values_of_a_module():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 4)).double()
    x, y = make_points(300)
    found = point_values(model, x.double(), y.to(torch.uint8))
    assert not found.cross_entropy.requires_grad
    assert_values(found, twins(model, x, y), rtol=1e-8)


@pytest.mark.parametrize("chunk_size", [1, 4, None])
def test_images_and_models_that_work_in_place_are_taken(chunk_size):
    torch.manual_seed(1)
    layers = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(12, 4)
    model = nn.Sequential(nn.Hardtanh(inplace=True), *layers).double().eval()
    x, y = torch.randn(6, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    before = x.clone()
    with torch.no_grad():
        found = point_values(model, x, y, chunk_size=chunk_size)
    assert torch.equal(x, before)
    plain = nn.Sequential(nn.Hardtanh(), *layers[:2], nn.ReLU(), *layers[3:])
    assert_values(found, twins(plain, x, y), rtol=1e-8)


@pytest.mark.parametrize("generic", [False, True])
def test_points_fitted_far_below_rounding_keep_their_digits(generic):
    network = make_network(scale=1.0)
    sharp = MLP([*network.weights[:-1], 100 * network.weights[-1]], "relu")
    x, _ = make_points(30)
    y = sharp(x).argmax(1)
    if generic:
        exact = MLP([weight.double() for weight in sharp.weights], "relu")
        found = point_values(lambda points: exact(points), x.double(), y)
    else:
        found = point_values(sharp, x, y)
    assert found.cross_entropy.min() < 1e-20
    assert (found.cross_entropy > 0).all()
    assert found.correct.all()
    assert_values(found, twins(lambda points: forward(sharp.weights, "relu", points), x, y), rtol=1e-3)
    bounds = jacobian_bounds(found, 4)
    for bound in (bounds.lower, bounds.upper, bounds.approximation):
        assert (bound(found.cross_entropy) > 0).all()


def test_logits_that_are_no_numbers_are_of_no_class():
    found = point_values(lambda x: x @ torch.full((6, 3), torch.nan), *make_points(2, 3))
    assert found.predicted.tolist() == [-1, -1]
    assert not found.correct.any()


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
    bounds = JacobianBounds(classes, 0.37)
    found = torch.stack([bound(torch.tensor(losses)) for bound in (bounds.lower, bounds.upper, bounds.approximation)], 1)
    expected = [slow_bounds(classes, 0.37, loss) for loss in torch.tensor(losses).tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_two_classes_leave_nothing_between_the_bounds():
    """n = 2: both are sqrt(2 M) e^-l (1 - e^-l), and (7), the norm of both rows, is sqrt(2) times that of one."""
    bounds, losses = JacobianBounds(2, 3.0), torch.tensor([0.1, 1.0, 4.0])
    torch.testing.assert_close(bounds.lower(losses), bounds.upper(losses))
    torch.testing.assert_close(bounds.approximation(losses), math.sqrt(2) * bounds.upper(losses))


def test_the_mean_square_is_of_the_logit_norms():
    network, (x, y) = make_network(), make_points(9)
    values = point_values(network, x, y)
    expected = sum(float(norm) ** 2 for norm in slow_norm(lambda p: forward(network.weights, "relu", p), x, "logits")) / 9 / 4
    assert jacobian_bounds(values, 4).mean_square == pytest.approx(expected, rel=1e-4)


def test_points_are_counted_by_the_side_of_the_bounds_on_which_they_are():
    """M = 1, n = 4, all losses log 2: lower sqrt(4/3)/4 = 0.289, upper sqrt(2)/4 = 0.354, (7) sqrt(6)/6 = 0.408."""
    five = torch.full((5,), math.log(2), dtype=torch.float64)
    values = PointValues(
        *(torch.zeros(5, dtype=torch.int64), torch.zeros(5, dtype=torch.int64), five, five, five),
        jacobian_norm=torch.tensor([0.28, 0.29, 0.408248290463863, 0.9, 0.95], dtype=torch.float64),
        label_jacobian_norm=torch.tensor([0.28, 0.29, 0.35, 0.36, 0.9], dtype=torch.float64),
        logit_jacobian_norm=torch.full((5,), 2.0, dtype=torch.float64),
    )
    found = jacobian_bounds(values, 4).compare(values)
    assert (found.inside, found.above) == (0.4, 0.8)
    assert found.ratio == pytest.approx(1.0)


def test_bounds_hold_where_their_assumptions_do():
    """Rows of the logit Jacobian drawn alike and independently: a linear model of many inputs, at points of every loss."""
    stream = torch.Generator().manual_seed(0)
    weights = torch.randn(5, 4000, generator=stream, dtype=torch.float64)
    x = 0.02 * torch.randn(200, 4000, generator=stream, dtype=torch.float64)
    y = torch.randint(5, (200,), generator=stream)
    values = point_values(MLP([weights], "relu"), x, y)
    found = jacobian_bounds(values, 5).compare(values)
    assert found.inside > 0.85
    assert found.above > 0.95
    assert found.ratio == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("classes", [1, 0, 2.5, True])
def test_classes_must_be_two_at_least(refused, classes):
    values = point_values(make_network(), *make_points(3))
    with refused("classes must be a whole number of at least 2"):
        jacobian_bounds(values, classes)


def test_a_stack_and_bad_labels_are_refused(refused):
    network, (x, y) = make_network(), make_points(3)
    with refused("model must be one network; got an MLPStack"):
        point_values(MLPStack([weight.unsqueeze(0) for weight in network.weights], "relu"), x, y)
    for model in (network, lambda points: network(points)):
        for labels, expected in (
            (y + 3, "y must hold classes 0 to 3"),
            (y[:2], r"y must be a tensor of classes \[3\]"),
        ):
            with refused(expected):
                point_values(model, x, labels)
        with refused(r"x must be a floating-point tensor of points \[N, ...\]"):
            point_values(model, x[:0], y[:0])
        with refused("x must be finite; some points are not"):
            point_values(model, torch.cat([x[:2], torch.full((1, 6), torch.nan)]), y)
        with refused("chunk_size must be a whole number of at least 1"):
            point_values(model, x, y, chunk_size=0)
    with refused(r"y must hold classes 0 to 3; got -?\d to 4"):
        point_values(lambda points: network(points), x, torch.tensor([0, 1, 4]))
