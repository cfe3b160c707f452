"""The losses against decimals at any scale of the logits, and their error signals against autograd."""

import inspect
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import LOSSES, MEAN_LOSSES

from sensitometer import configuration
from sensitometer.losses import loss


def values(name, logits, y):
    """The loss of each point, from logits `[N, C]` of one network."""
    return loss(name).values(logits.double().T.unsqueeze(0), y.view(1, 1, -1))[0]


def assert_exact(name, logits, y, rel=2e-10):
    # softplus takes x itself for log(1 + e^x) above 20: an error of up to 2e-9 / 20.
    found = values(name, logits, y)
    assert found.dtype == torch.float64
    expected = [LOSSES[name](logits[i : i + 1], y[i : i + 1]) for i in range(len(y))]
    assert found.tolist() == pytest.approx(expected, rel=rel, abs=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [1, 2, 3, 40])
@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 5.0])
def test_values_are_the_decimals(name, classes, size):
    stream = torch.Generator().manual_seed(classes)
    logits = size * torch.randn(5, classes, generator=stream, dtype=torch.float64)
    assert_exact(name, logits, torch.randint(classes, (5,), generator=stream))


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1e2, 1e4, 1e10, 1e38])
def test_values_of_huge_logits_are_the_decimals(name, size):
    stream = torch.Generator().manual_seed(1)
    logits = size * (2 * torch.rand(20, 4, generator=stream) - 1)
    logits[0], logits[1], logits[2] = size, -size, torch.tensor([size, size, -size, 0.0])
    y = logits.argmin(1)  # losses as large as they come
    assert values(name, logits, y).isfinite().all()
    assert_exact(name, logits, y)


@pytest.mark.parametrize("margin", [1.0, 19.0, 20.5, 36.0, 40.0, 100.0, 500.0, 700.0])
def test_tiny_cross_entropies_are_the_decimals(margin):
    logits = torch.tensor([[margin, 0.0, -1.0], [3.0, 3.0 - margin, 3.0 - margin]], dtype=torch.float64)
    assert_exact("cross-entropy", logits, torch.tensor([0, 0]), rel=1e-12)
    assert (values("cross-entropy", logits, torch.tensor([0, 0])) > 0).all()


@pytest.mark.parametrize("power", range(1, 16))
def test_tiny_half_squares_are_the_decimals(power):
    off = 10.0**-power
    logits = torch.tensor([[1 - off, 0.0, 0.0], [1 + off, off, -off], [1.0, 0.0, off**4]], dtype=torch.float64)
    assert_exact("l2", logits, torch.tensor([0, 0, 0]), rel=1e-12)


def test_a_perfect_fit_has_no_half_square():
    assert values("l2", torch.eye(3), torch.tensor([0, 1, 2])).tolist() == [0.0, 0.0, 0.0]


@settings(max_examples=50)
@given(
    name=st.sampled_from(list(LOSSES)),
    logits=st.lists(st.lists(st.floats(-(2.0**126), 2.0**126, width=32), min_size=3, max_size=3), min_size=1, max_size=3),
    label=st.integers(0, 2),
)
def test_values_of_any_logits_are_the_decimals(name, logits, label):
    assert_exact(name, torch.tensor(logits), torch.full((len(logits),), label))


@pytest.mark.parametrize("name", LOSSES)
def test_nan_spoils_one_point_and_no_other(name):
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    logits[2, 1] = math.nan
    assert values(name, logits, torch.tensor([0, 1, 2, 0, 1])).isnan().tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("name", LOSSES)
def test_values_leave_the_logits_alone_and_take_networks_by_their_own_labels(name):
    stream = torch.Generator().manual_seed(3)
    logits = torch.randn(4, 3, 7, generator=stream, dtype=torch.float64)
    y = torch.randint(3, (4, 1, 7), generator=stream)
    before = logits.clone()
    found = loss(name).values(logits, y)
    assert torch.equal(logits, before)
    assert found.shape == (4, 7)
    for network in range(4):
        alone = values(name, logits[network].T, y[network, 0])
        torch.testing.assert_close(found[network], alone, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [1, 2, 10])
@pytest.mark.parametrize("size", [1e-3, 1.0, 30.0, 1e3])
def test_error_signal_is_autograds(name, classes, size):
    stream = torch.Generator().manual_seed(4)
    logits = size * torch.randn(3, classes, 8, generator=stream, dtype=torch.float64)
    y = torch.randint(classes, (3, 8), generator=stream)
    out = torch.full_like(logits, math.nan)
    loss(name).outputs_(logits, out)
    signal = out.scatter_add(1, y.unsqueeze(1), torch.full_like(out[:, :1], -1.0))
    for network in range(3):
        f = logits[network].T.clone().requires_grad_()
        (expected,) = torch.autograd.grad(8 * MEAN_LOSSES[name](f, y[network]), f)
        torch.testing.assert_close(signal[network].T, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("name", LOSSES)
def test_error_signal_is_the_slope_of_the_values(name):
    stream = torch.Generator().manual_seed(5)
    logits = torch.randn(1, 4, 6, generator=stream, dtype=torch.float64)
    y = torch.randint(4, (1, 1, 6), generator=stream)
    out = torch.empty_like(logits)
    loss(name).outputs_(logits, out)
    out.scatter_add_(1, y, torch.full_like(out[:, :1], -1.0))
    for j in range(4):
        step = torch.zeros_like(logits)
        step[:, j] = 1e-5
        slope = (loss(name).values(logits + step, y) - loss(name).values(logits - step, y)) / 2e-5
        torch.testing.assert_close(slope, out[:, j], rtol=1e-7, atol=1e-9)


def test_names():
    assert set(configuration.LOSSES) == set(LOSSES) == set(MEAN_LOSSES)
    assert inspect.getdoc(loss)


@pytest.mark.parametrize("name", ["", "L2", "mse", None])
def test_unknown_name_is_refused(refused, name):
    with refused("loss must be one of cross-entropy, l2; got"):
        loss(name)
