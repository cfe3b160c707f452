"""Local complexity: by hand, and against a twin that goes through neighbours, layers and units one at a time."""

import copy
import itertools
from importlib import import_module

import pytest
import torch
from reference import BOUNDARIES, activate
from torch import nn

from sensitometer.measures import local_complexity
from sensitometer.networks import MLP, MLPStack, initial_weights, layer_shapes
from sensitometer.randomness import generator

ROOM = import_module("sensitometer.measures.local_complexity")


def normals(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(activation="relu", seed=1, depth=4, gain=2.0):
    shapes = layer_shapes(12, 9, depth, 3)
    return MLP([weight.double() for weight in initial_weights(shapes, activation, gain, seed)], activation)


def twin(preactivations, boundaries, x, radius, directions):
    """Return the units with more than one code, counted one by one; `preactivations` maps a point to a list of numbers."""
    counts = []
    for point in x:
        length = radius * float(point.square().sum().sqrt())
        seen = []
        for direction, sign in itertools.product(directions, (1, -1)):
            z = preactivations(point + sign * length * direction.view(point.shape))
            seen.append([sum(boundary < value for boundary in boundaries) for value in z])
        counts.append(sum(len(set(codes)) > 1 for codes in zip(*seen, strict=True)))
    return counts


def hidden(net):
    def preactivations(point):
        values, h = [], point
        for weight in net.weights[:-1]:
            z = weight @ h
            values += z.tolist()
            h = activate(net.activation, z)
        return values

    return preactivations


def frame(inputs, directions, seed=0):
    """Return the directions `[P, D]` by Gram and Schmidt, from the same normal numbers."""
    columns = torch.randn(inputs, directions, generator=generator(seed, "local complexity"), dtype=torch.float64)
    orthonormal = []
    for column in columns.T:
        for other in orthonormal:
            column = column - (column @ other) * other
        orthonormal.append(column / column.norm())
    return torch.stack(orthonormal)


@pytest.mark.parametrize("activation", BOUNDARIES)
def test_networks_of_this_package(activation):
    net, x = network(activation), normals(6, 12)
    expected = twin(hidden(net), BOUNDARIES[activation], x, 0.1, frame(12, 5))
    assert 0 < sum(expected) < 6 * 27
    assert local_complexity(net, x, radius=0.1, directions=5).tolist() == expected


def test_a_module_is_measured_as_the_network_that_it_is():
    net, x = network(), normals(6, 12)
    layers = [nn.Linear(*weight.shape[::-1], bias=False, dtype=torch.float64) for weight in net.weights]
    for layer, weight in zip(layers, net.weights, strict=True):
        layer.weight.data = weight.clone()
    first, *others = layers
    model = nn.Sequential(first, *itertools.chain(*((nn.ReLU(), layer) for layer in others)))
    assert torch.equal(local_complexity(model, x), local_complexity(net, x))


def test_images():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU6(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 7), nn.Tanh()).double()
    x = 4 * normals(5, 2, 6, 6)

    def preactivations(point):
        z = model[0](point[None])
        return torch.cat([z.flatten(), model[:5](point[None]).flatten()]).tolist()

    # The boundary at 6 is too high for the last layer, whose units go on to Tanh.
    with torch.no_grad():
        assert float(model[:5](1.2 * x).max()) < 6
        expected = twin(preactivations, (0.0, 6.0), x, 0.2, frame(72, 20))
    assert len(set(expected)) > 1
    assert local_complexity(model, x, radius=0.2).tolist() == expected


def test_chunks_do_not_show(monkeypatch):
    net, x = network(), normals(11, 12)
    modules = [net, lambda points: net(points)]
    expected = [local_complexity(model, x) for model in modules]
    assert torch.equal(*expected)
    # One point at a time; and one neighbour at a time, as for a model with millions of units.
    for size in (2**9, 2**7, 1):
        monkeypatch.setattr(ROOM, "MLP_CHUNK", size)
        monkeypatch.setattr(ROOM, "MODULE_CHUNK", size)
        for model in modules:
            assert torch.equal(local_complexity(model, x), expected[0])


def test_directions_follow_the_seed():
    net, x = network(gain=3.0), normals(40, 12)
    first, again, other = (local_complexity(net, x, directions=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_more_directions_and_fewer_inputs():
    net, x = network(), normals(20, 12)
    # Twelve inputs have no more than twelve directions.
    assert torch.equal(local_complexity(net, x), local_complexity(net, x, directions=12))
    # Opposite points have opposite first layers; with no units there is nothing to count.
    assert local_complexity(network(depth=2), x, radius=1e9).tolist() == [9] * 20
    assert local_complexity(network(depth=1), x).tolist() == [0] * 20
    assert local_complexity(net, 0 * x).tolist() == [0] * 20


def test_a_stack_is_its_networks_one_by_one():
    networks = [network(seed=seed) for seed in (1, 2, 3)]
    stack = MLPStack([torch.stack(weights) for weights in zip(*(net.weights for net in networks), strict=True)], "relu")
    x = normals(5, 12)
    assert torch.equal(local_complexity(stack, x), torch.stack([local_complexity(net, x) for net in networks]))


def test_half_precision_is_measured_in_a_float32_copy():
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 3)).bfloat16()
    x = normals(6, 12).bfloat16()
    assert torch.equal(local_complexity(model, x), local_complexity(copy.deepcopy(model).float(), x.float()))


def test_float32_differs_at_boundaries_alone():
    net, x = network(), normals(200, 12)
    single = MLP([weight.float() for weight in net.weights], "relu")
    assert (local_complexity(single, x.float()) - local_complexity(net, x)).abs().sum() <= 2


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"radius": 0.0}, "radius must be a number above 0, such as 0.05; got 0.0"),
        ({"radius": "wide"}, "radius must be a number above 0, such as 0.05; got 'wide'"),
        ({"directions": 13}, "directions must be a whole number from 1 to 12; got 13"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
        ({"x": torch.zeros(3, 5)}, r"x must be points \[N, 12\]; got \[3, 5\]"),
        ({"x": torch.full((3, 12), torch.nan)}, "x must be finite; some points are not"),
        ({"model": nn.Linear(12, 3)}, "model has no activation whose boundaries are known"),
        ({"model": nn.Sequential(nn.Dropout(), nn.ReLU())}, "model must be in evaluation mode"),
    ],
)
def test_bad_input_is_refused(refused, arguments, expected):
    arguments = {"model": network(), "x": torch.zeros(3, 12)} | arguments
    with refused(expected):
        local_complexity(arguments.pop("model"), arguments.pop("x"), **arguments)
