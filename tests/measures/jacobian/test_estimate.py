"""The estimate by random projections against the exact norm and its formulas."""

import math

import pytest
import torch
from reference import jacobian_norm as slow_norm
from reference import jacobians
from torch import nn

from sensitometer.measures import jacobian_norm
from sensitometer.measures.jacobian.estimate import jacobian_norm_estimate
from sensitometer.networks import MLP, MLPStack, initial_weights, layer_shapes

KINDS = ("probabilities", "logits")


def seeded(seed=1):
    return torch.Generator().manual_seed(seed)


def network(*shape, activation="tanh", dtype=torch.float64):
    return MLP([weight.to(dtype) for weight in initial_weights(layer_shapes(*shape), activation, 2.0, 5)], activation)


def points(count, inputs):
    return torch.randn(count, inputs, generator=seeded(7), dtype=torch.float64)


@pytest.mark.parametrize("of", KINDS)
def test_one_projection_after_the_other(of):
    """The squares of J^T v with the same signs, from whole Jacobians."""
    model, x, K = network(6, 8, 3, 10), points(5, 6), 9
    found = jacobian_norm_estimate(model, x, of=of, projections=K, generator=seeded())
    signs = 2.0 * torch.randint(2, (5, K, 10), generator=seeded()) - 1
    squares = torch.einsum("nkc,ncd->nkd", signs.double(), jacobians(model, x, of)).square().sum(2)
    norm = squares.mean(1).sqrt()
    torch.testing.assert_close(found.norm, norm, rtol=1e-10, atol=0)
    deviation = (squares - squares.mean(1, keepdim=True)).square().sum(1).div(K - 1).sqrt()
    torch.testing.assert_close(found.standard_error, deviation / math.sqrt(K) / (2 * norm), rtol=1e-8, atol=1e-12)
    assert found.projections == K


@pytest.mark.parametrize("of", KINDS)
def test_estimates_are_within_their_standard_errors(of):
    model, x = network(8, 16, 3, 120), points(400, 8)
    found = jacobian_norm_estimate(model, x, of=of, projections=100, generator=seeded())
    exact = jacobian_norm(model, x, of=of)
    z = (found.norm - exact) / found.standard_error
    # 400 draws of about N(0, 1): their mean has a standard deviation of 0.05, their spread one of 0.035.
    assert abs(float(z.mean())) < 0.25
    assert 0.85 < float(z.std()) < 1.2
    assert float((z.abs() < 2).double().mean()) > 0.9
    relative = found.standard_error / exact
    assert float(relative.max()) < 1.5 / math.sqrt(2 * 100)


def test_squares_are_unbiased_and_the_root_is_as_small_as_said():
    model, x = network(4, 6, 2, 10), points(1, 4)
    many = x.expand(20000, -1)
    found = jacobian_norm_estimate(model, many, of="logits", projections=8, generator=seeded())
    exact = float(slow_norm(model, x, "logits")[0])
    squares = found.norm.square()
    error = float(squares.std()) / math.sqrt(len(squares))
    assert abs(float(squares.mean()) - exact**2) < 4 * error
    J = jacobians(model, x, "logits")[0]
    gram = J @ J.T
    variance = 2 * float(gram.square().sum() - gram.diag().square().sum()) / 8
    assert float(squares.var()) == pytest.approx(variance, rel=0.05)
    bias = float(found.norm.mean()) - exact
    assert bias == pytest.approx(-variance / (8 * exact**3), rel=0.25)
    assert bias < -4 * float(found.norm.std()) / math.sqrt(len(squares)), "no bias to speak of: the test shows nothing"


@pytest.mark.parametrize("of", ["probabilities", "logits", "sigmoid", "outputs"])
def test_norms_are_exact_where_that_takes_no_more_passes(of):
    model, x = network(5, 4, 2, 8), points(3, 5)
    state = torch.get_rng_state()
    found = jacobian_norm_estimate(model, x, of=of, projections=8)
    torch.testing.assert_close(found.norm, jacobian_norm(model, x, of=of), rtol=1e-10, atol=0)
    assert (found.standard_error.tolist(), found.projections) == ([0.0] * 3, 0)
    assert torch.equal(torch.get_rng_state(), state)


def test_estimates_of_sigmoids_are_within_their_standard_errors():
    model, x = network(8, 16, 3, 120), points(100, 8)
    found = jacobian_norm_estimate(model, x, of="sigmoid", projections=100, generator=seeded())
    exact = slow_norm(lambda points: model(points).sigmoid(), x, "logits")
    assert ((found.norm - exact) / found.standard_error).abs().max() < 5
    assert (found.standard_error < 0.15 * exact).all()


@pytest.mark.parametrize("factor", [30.0, 300.0])
def test_saturated_probabilities_keep_their_digits(factor):
    model, x = network(5, 16, 3, 401), points(20, 5)
    sharp = MLP([*model.weights[:-1], factor * model.weights[-1]], "tanh")
    exact = jacobian_norm(sharp, x)
    assert exact.min() < 1e-8
    found = jacobian_norm_estimate(sharp, x, projections=400, generator=seeded())
    assert ((found.norm - exact) / found.standard_error.clamp(min=1e-9 * exact)).abs().max() < 5
    assert (found.standard_error < 0.1 * exact).all()
    # In float32 the rows of the softmax's Jacobian underflow unless they are scaled.
    single = MLP([weight.float() for weight in sharp.weights], "tanh")
    small = jacobian_norm_estimate(single, x.float(), projections=400, generator=seeded())
    kept = exact > 1e-30
    torch.testing.assert_close(small.norm[kept].double(), found.norm[kept], rtol=2e-2, atol=0)


@pytest.mark.parametrize("chunk_size", [1, 3, 7, 100])
def test_chunks_do_not_show(chunk_size):
    model, x = network(6, 8, 3, 20), points(7, 6)
    whole = jacobian_norm_estimate(model, x, generator=seeded())
    found = jacobian_norm_estimate(model, x, generator=seeded(), chunk_size=chunk_size)
    torch.testing.assert_close(found.norm, whole.norm)
    torch.testing.assert_close(found.standard_error, whole.standard_error)


def test_modules_that_work_in_place_on_images_are_taken_and_left_as_they_were():
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.ReLU(inplace=True), nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(True), nn.Flatten(), nn.Linear(48, 201)
    )
    model.eval()
    x = torch.randn(6, 1, 6, 6)
    before = x.clone()
    found = jacobian_norm_estimate(model, x, of="logits", projections=200, generator=seeded())
    assert (found.norm.dtype, found.norm.requires_grad) == (torch.float32, False)
    assert torch.equal(x, before)
    assert all(parameter.grad is None for parameter in model.parameters())
    exact = slow_norm(nn.Sequential(nn.ReLU(), *model[1:3], nn.ReLU(), *model[4:]).double(), x, "logits")
    assert ((found.norm - exact) / found.standard_error).abs().max() < 4


def test_it_works_where_gradients_are_switched_off():
    model, x = network(6, 8, 3, 20), points(3, 6)
    for of in KINDS:
        expected = jacobian_norm_estimate(model, x, of=of, generator=seeded()).norm
        for off in (torch.no_grad, torch.inference_mode):
            with off():
                # A clone, so that the points are of that mode, too.
                assert torch.equal(jacobian_norm_estimate(model, x.clone(), of=of, generator=seeded()).norm, expected)


NETWORK = MLP([torch.ones(4, 5), torch.ones(3, 4)], "relu")
STACK = MLPStack([torch.ones(2, 4, 5), torch.ones(2, 3, 4)], "relu")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"of": "logit"}, "of must be one of probabilities, logits, sigmoid, outputs; got 'logit'"),
        ({"projections": 7}, "projections must be a whole number of at least 8; got 7"),
        ({"projections": None}, "projections must be a whole number of at least 8; got None"),
        ({"projections": 2.5}, "projections must be a whole number of at least 8; got 2.5"),
        ({"chunk_size": 0}, "chunk_size must be a whole number of at least 1; got 0"),
        ({"generator": 3}, "generator must be a torch.Generator or None; got int"),
        ({"x": torch.tensor([[0.0] * 5, [torch.nan] * 5])}, "x must be finite; some points are not"),
        ({"x": torch.zeros(5)}, r"x must be a floating-point tensor of points \[N, ...\], at least one"),
        ({"x": torch.zeros(7, 4)}, r"model does not take torch.float32 points \[7, 4\]"),
        ({"model": STACK}, "model must be one network; got an MLPStack: measure its networks one by one"),
        ({"model": lambda x: torch.ones(len(x), 3)}, "the model's outputs do not depend on its input through autograd"),
        (
            {"model": lambda x: nn.functional.linear(x.detach(), nn.Parameter(torch.ones(3, 5)))},
            "the model's outputs do not depend on its input through autograd",
        ),
        ({"model": lambda x: x[:, 40]}, r"model does not take torch.float32 points \[7, 5\]: index 40 is out of bounds"),
        ({"model": None}, "model must be an MLP, an MLPStack, a module or another callable; got NoneType"),
        ({"model": nn.Sequential(nn.Linear(5, 3), nn.Dropout())}, "its layer '1' is in training mode"),
    ],
)
def test_bad_argument_is_refused(refused, arguments, expected):
    with refused(expected):
        jacobian_norm_estimate(**{"model": NETWORK, "x": torch.zeros(7, 5), **arguments})
