"""Densities and Jacobian norms along paths, and the change of the Jacobian: against the plain sums."""

import math

import pytest
import torch
from reference import ACTIVATIONS, crossings, forward, jacobian_norm, jacobians

from sensitometer import paths
from sensitometer.measures import curvature, path_profile, transitions
from sensitometer.networks import MLP, MLPStack, initial_weights, layer_shapes

PIECEWISE = [name for name in ACTIVATIONS if name != "tanh"]


def make_network(activation="relu", seed=1, width=10, depth=4, scale=1.5):
    return MLP(initial_weights(layer_shapes(5, width, depth, 3), activation, scale, seed), activation)


def make_stack(networks):
    return MLPStack(
        [torch.stack(layer) for layer in zip(*(one.weights for one in networks), strict=True)], networks[0].activation
    )


def make_paths():
    stream = torch.Generator().manual_seed(3)
    line = 2 * torch.randn(4, 5, generator=stream)
    return [paths.Polyline(line), paths.Polyline(line, closed=False), paths.fitted_ellipse(*line[:3])]


@pytest.mark.parametrize("path", make_paths(), ids=["loop", "line", "ellipse"])
@pytest.mark.parametrize("activation", PIECEWISE)
def test_a_profile_bins_the_crossings_and_takes_the_norms(path, activation):
    networks = [make_network(activation, seed) for seed in (1, 2)]
    profile = path_profile(make_stack(networks), path, bins=12)
    assert profile.angle.tolist() == pytest.approx([(k + 0.5) * math.pi / 6 for k in range(12)])
    for place, network in enumerate(networks):
        angles = torch.cat(crossings(network.weights, activation, path)) * 2 * math.pi / path.span
        counts = [int(((angles >= k * math.pi / 6) & (angles < (k + 1) * math.pi / 6)).sum()) for k in range(12)]
        assert profile.transition_density[place].tolist() == pytest.approx([count / (math.pi / 6) for count in counts])
        x = path.points(profile.angle * path.span / (2 * math.pi))
        expected = jacobian_norm(lambda x, network=network: forward(network.weights, activation, x), x)
        torch.testing.assert_close(profile.jacobian_norm[place], expected, rtol=1e-4, atol=1e-12)


def test_a_profile_holds_every_transition():
    network, path = make_network("relu6"), make_paths()[0]
    profile = path_profile(network, path, bins=37, of="logits")
    width = 2 * math.pi / 37
    assert float(profile.transition_density.sum()) * width == pytest.approx(int(transitions(network, path).total))
    tanh = path_profile(make_network("tanh"), path, bins=5, method="sampled", samples=1000)
    assert tanh.transition_density.shape == tanh.jacobian_norm.shape == (1, 5)
    assert float(tanh.transition_density.sum()) > 0


def test_a_linear_model_has_no_transitions():
    profile = path_profile(MLP([torch.ones(2, 5)], "relu"), make_paths()[0], bins=3, of="logits")
    assert profile.transition_density.tolist() == [[0.0] * 3]
    assert profile.jacobian_norm.tolist() == [pytest.approx([math.sqrt(10)] * 3)]


@pytest.mark.parametrize("path", make_paths(), ids=["loop", "line", "ellipse"])
@pytest.mark.parametrize("activation", PIECEWISE)
def test_curvature_is_the_sum_of_the_changes_of_the_jacobian(path, activation):
    """Whole Jacobians, by autograd, in the middle of each piece."""
    network = make_network(activation, seed=4)
    ends = torch.cat([torch.tensor([0.0, path.span]).double(), *crossings(network.weights, activation, path)])
    if isinstance(path, paths.Polyline):
        ends = torch.cat([ends, torch.arange(int(path.span)).double()])
    ends = ends.unique()
    J = jacobians(lambda x: forward(network.weights, activation, x), path.points((ends[1:] + ends[:-1]) / 2), "logits")
    changes = (J[1:] - J[:-1]).flatten(1).norm(dim=1).sum()
    if path.closed:
        changes += (J[0] - J[-1]).norm()
    torch.testing.assert_close(curvature(network, path), changes / 2, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (paths.Polyline(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]), closed=False), 0.5),
        (paths.Polyline(torch.tensor([[0.392, 0.0], [-0.3195, 0.0]]), closed=False), 0.5),
        (paths.Ellipse(torch.tensor([0.1, 0.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])), 1.0),
    ],
)
def test_curvature_where_all_layers_switch_together(path, expected):
    network = MLP([torch.tensor([[1.0, 0.0]]), torch.ones(1, 1), torch.ones(1, 1)], "relu")
    assert float(curvature(network, path)) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(4))
def test_curvature_along_an_ellipse_through_0(seed):
    """All units change there, in one change of the Jacobian, and some that were on their boundary change once more nearby."""
    network, x = make_network("relu", seed), torch.randn(2, 5, generator=torch.Generator().manual_seed(seed))
    path = paths.Ellipse(x[1], x[0], x[1])
    J = jacobians(lambda x: forward(network.weights, "relu", x), path.points(path.parameters(20001) + 1e-4), "logits")
    changes = (J - J.roll(1, 0)).flatten(1).norm(dim=1).sum()
    assert float(curvature(network, path)) == pytest.approx(float(changes / 2), rel=1e-6)


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_curvature_of_narrow_networks_whose_layers_go_off_together(width, seed):
    """Whole Jacobians at many points of a loop: each change of the Jacobian is between two of them, or nearly so."""
    network = make_network("relu", seed, width=width)
    for path in (make_paths()[0], make_paths()[2]):
        J = jacobians(lambda x: forward(network.weights, "relu", x), path.points(path.parameters(3001) + 1e-7), "logits")
        changes = (J - J.roll(1, 0)).flatten(1).norm(dim=1).sum()
        found = curvature(network, path)
        assert float(found) >= float(changes / 2) - 1e-9
        assert float(found) == pytest.approx(float(changes / 2), rel=0.02, abs=1e-9)


def test_curvature_of_stacks_and_several_paths():
    networks, several = [make_network("relu6", seed) for seed in (1, 2, 3)], make_paths()
    expected = torch.stack([torch.stack([curvature(network, path) for path in several]) for network in networks])
    stack = make_stack(networks)
    torch.testing.assert_close(curvature(stack, several), expected)
    torch.testing.assert_close(curvature(stack, several[1]), expected[:, 1])
    torch.testing.assert_close(curvature(networks[2], several), expected[2])
    assert (expected > 0).all()


def test_bad_arguments_are_refused(refused):
    path, network = make_paths()[0], make_network()
    for expected, call in (
        ("bins must be a whole number of at least 1; got 0", lambda: path_profile(network, path, bins=0)),
        ("path must be a Polyline or an Ellipse; got list", lambda: path_profile(network, [path])),
        ("gelu at GELU is not", lambda: path_profile(torch.nn.GELU(), path)),
        ("gelu at GELU is not", lambda: curvature(torch.nn.GELU(), path)),
        ("exact transitions need a piecewise-linear activation", lambda: curvature(make_network("tanh"), path)),
        ("the network's weights must be finite", lambda: curvature(MLP([torch.full((2, 5), math.nan)], "relu"), path)),
    ):
        with refused(expected):
            call()
