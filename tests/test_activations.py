import math

import pytest
import torch
from reference import ACTIVATIONS, BOUNDARIES, GAINS, activate, slope

from sensitometer.activations import activation
from sensitometer.configuration import ACTIVATIONS as NAMES


def pre_activations(name, dtype=torch.float64):
    """Random points, points at the boundaries and just beside them, points far away."""
    boundaries = torch.tensor(BOUNDARIES[name], dtype=torch.float64)
    steps = torch.tensor([-1e-3, 0.0, 1e-3], dtype=torch.float64)
    random = 4 * torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    far = torch.tensor([-1e4, -100.0, 100.0, 1e4], dtype=torch.float64)
    return torch.cat([random, (boundaries.unsqueeze(1) + steps).flatten(), far]).to(dtype)


def test_the_five_are_the_papers():
    assert NAMES == ACTIVATIONS


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_function_is_the_definition(name, dtype):
    z = pre_activations(name, dtype)
    torch.testing.assert_close(activation(name).apply_(z.clone()), activate(name, z))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_is_the_derivative_and_0_at_a_boundary(name):
    z = pre_activations(name)
    torch.testing.assert_close(activation(name).slope(activation(name).apply_(z.clone())), slope(name, z))
    if name != "tanh":
        at_boundary = activation(name).apply_(torch.tensor(BOUNDARIES[name]))
        assert activation(name).slope(at_boundary).tolist() == [0.0] * len(BOUNDARIES[name])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_boundaries_are_where_the_slope_jumps(name):
    boundaries = activation(name).boundaries
    assert boundaries == BOUNDARIES[name]
    if name == "tanh":
        assert float(slope(name, torch.tensor(boundaries))) == 1.0  # the steepest point: not a true boundary
        return
    grid = torch.arange(-80, 80, dtype=torch.float64) / 10 + 0.05
    slopes = slope(name, grid)
    jumps = (grid[1:] + grid[:-1])[slopes[1:] != slopes[:-1]] / 2
    torch.testing.assert_close(jumps, torch.tensor(boundaries, dtype=torch.float64))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_it_works_in_place(name):
    z = pre_activations(name)
    h = activation(name).apply_(z)
    assert h is z
    delta = torch.full_like(h, 3.0)
    assert activation(name).backward_(delta, h) is delta
    torch.testing.assert_close(delta, 3 * activation(name).slope(h))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_slope_leaves_the_activations_alone(name):
    h = activation(name).apply_(pre_activations(name))
    before = h.clone()
    activation(name).slope(h)
    assert torch.equal(h, before)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_initial_gain_is_the_papers(name):
    assert activation(name).initial_gain == GAINS[name]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays_nan(name):
    assert math.isnan(activation(name).apply_(torch.tensor([math.nan])))


@pytest.mark.parametrize("name", ["ReLU", "", "softplus", None])
def test_unknown_name_is_refused(refused, name):
    with refused("activation must be one of relu, relu6, tanh, hardtanh, hardsigmoid; got"):
        activation(name)
