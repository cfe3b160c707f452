"""Values at each point, against the formulas and autograd in float64."""

import pytest
import torch
from reference import cross_entropy as slow_cross_entropy
from reference import forward
from reference import half_square as slow_half_square
from reference import jacobian_norm as slow_norm
from torch import nn

from sensitometer.measures import point_values
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
        "class_logits": logits,
        "squared_error": None,
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


def test_logits_that_are_no_numbers_are_of_no_class():
    found = point_values(lambda x: x @ torch.full((6, 3), torch.nan), *make_points(2, 3))
    assert found.predicted.tolist() == [-1, -1]
    assert not found.correct.any()


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


def small_model(outputs, *last):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, outputs), *last).double()


def test_values_of_a_model_of_one_logit():
    """It is the logit of class 1 beside a logit of 0."""
    model, (x, y) = small_model(1), make_points(5, 2)
    found = point_values(model, x.double(), y, of="sigmoid")
    two = twins(lambda points: torch.cat([torch.zeros(len(points), 1), model(points)], 1), x, y)
    for name in ("label", "predicted", "confidence", "cross_entropy", "class_logits", "logit_jacobian_norm"):
        torch.testing.assert_close(getattr(found, name), two[name], rtol=1e-8, atol=1e-12)
    torch.testing.assert_close(
        found.jacobian_norm, slow_norm(lambda points: model(points).sigmoid(), x, "logits"), rtol=1e-8, atol=0
    )
    assert found.l2_loss is found.label_jacobian_norm is found.squared_error is None


@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3)])
def test_values_of_a_model_of_numbers(shape):
    model, (x, _) = small_model(shape[-1] if len(shape) > 1 else 1), make_points(5)
    targets = torch.linspace(-1, 1, 5).view(-1, 1).expand(5, model[-1].out_features).reshape(shape)
    found = point_values(model, x.double(), targets, of="outputs")
    torch.testing.assert_close(found.jacobian_norm, slow_norm(model, x, "logits"), rtol=1e-8, atol=0)
    squares = (model(x.double()) - targets.double().view(5, -1)).square().mean(1).detach()
    torch.testing.assert_close(found.squared_error, squares, rtol=1e-12, atol=0)
    assert found.label is found.predicted is found.correct is found.cross_entropy is None


def test_values_of_a_model_that_ends_in_a_softmax():
    model, (x, y) = small_model(4), make_points(5)
    found, expected = point_values(nn.Sequential(model, nn.Softmax(1)), x.double(), y, of="outputs"), twins(model, x, y)
    for name in ("predicted", "confidence", "cross_entropy", "jacobian_norm"):
        torch.testing.assert_close(getattr(found, name), expected[name], rtol=1e-8, atol=0)


@pytest.mark.parametrize("network", [False, True])
def test_points_without_labels_have_all_but_losses(network):
    model, (x, y) = make_network() if network else small_model(4), make_points(5)
    x = x if network else x.double()
    without, found = point_values(model, x), point_values(model, x, y)
    for name in ("predicted", "confidence", "jacobian_norm", "logit_jacobian_norm", "class_logits"):
        assert torch.equal(getattr(without, name), getattr(found, name))
    assert without.label is without.correct is without.cross_entropy is without.l2_loss is without.label_jacobian_norm is None


def test_labels_of_another_kind_are_refused(refused):
    x, y = make_points(5)
    with refused("y must be whole numbers for of='probabilities', the classes; got torch.float32"):
        point_values(small_model(4), x.double(), torch.zeros(5))
    with refused("y must be the floating-point targets of a regression for .*; got whole numbers: use of="):
        point_values(small_model(4), x.double(), y, of="outputs")
    with refused("takes the classes of one logit, 0 and 1, and the model gives 4"):
        point_values(small_model(4), x.double(), y, of="sigmoid")
    with refused(r"got torch.float32 \[4\]"):
        point_values(small_model(1), x.double(), torch.zeros(4), of="outputs")
