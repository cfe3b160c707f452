import copy
import math
import pickle
import random

import pytest
import torch
from reference import ACTIVATIONS, GAINS, forward
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

from sensitometer.errors import SensitometerError
from sensitometer.evaluation import evaluate
from sensitometer.measures import (
    boundaries,
    curvature,
    jacobian_norm,
    jacobian_norm_estimate,
    path_profile,
    point_values,
    transitions,
)
from sensitometer.networks import MLP, MLPStack, as_stack, initial_weights, layer_shapes
from sensitometer.paths import Polyline, Slice

SHAPES = {
    "depth 1": (5, 4, 1, 3),
    "depth 2": (5, 4, 2, 3),
    "width 1": (5, 1, 4, 3),
    "wide": (3, 17, 3, 2),
    "one input": (1, 4, 3, 3),
    "one class": (5, 4, 3, 1),
    "deep": (5, 6, 17, 3),
}


def random_weights(stream, shape, *, networks=None, dtype=torch.float64):
    stack = () if networks is None else (networks,)
    return [torch.randn(*stack, *layer, generator=stream, dtype=dtype) for layer in layer_shapes(*shape)]


@pytest.fixture
def stream():
    return torch.Generator().manual_seed(3)


def test_layer_shapes():
    assert layer_shapes(784, 100, 2, 10) == [(100, 784), (10, 100)]
    assert layer_shapes(5, 4, 4, 3) == [(4, 5), (4, 4), (4, 4), (3, 4)]
    assert layer_shapes(5, 4, 1, 3) == [(3, 5)]


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_one_network_and_a_stack_give_the_twins_logits(stream, name, shape):
    weights = random_weights(stream, shape, networks=3)
    x = torch.randn(7, shape[0], generator=stream, dtype=torch.float64)
    untouched = x.clone()
    stack = MLPStack(weights, name)
    expected = torch.stack([forward([weight[i] for weight in weights], name, x) for i in range(3)])
    logits = stack(x)
    assert logits.shape == (3, 7, shape[3])
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(torch.stack([network(x) for network in stack]), expected)
    assert torch.equal(x, untouched)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_float32_is_close_to_float64(stream, name):
    weights = [weight / weight.shape[2] ** 0.5 for weight in random_weights(stream, SHAPES["deep"], networks=2)]
    x = torch.randn(7, 5, generator=stream)
    logits = MLPStack([weight.float() for weight in weights], name)(x)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits.double(), MLPStack(weights, name)(x.double()), rtol=1e-4, atol=1e-5)


def test_a_network_of_a_stack_shares_its_weights(stream):
    stack = MLPStack(random_weights(stream, SHAPES["wide"], networks=3), "tanh")
    assert len(stack) == 3
    assert isinstance(stack[1], MLP)
    assert stack[1].activation == "tanh"
    for mine, all_of_them in zip(stack[1].weights, stack.weights, strict=True):
        assert mine.data_ptr() == all_of_them[1].data_ptr()
    assert torch.equal(stack[-1].weights[0], stack.weights[0][2])
    with pytest.raises(IndexError):
        stack[3]


MAKERS = {
    "MLP": lambda stream, **changes: MLP(random_weights(stream, (5, 4, 3, 2), **changes), "tanh"),
    "MLPStack": lambda stream, **changes: MLPStack(random_weights(stream, (5, 4, 3, 2), networks=3, **changes), "tanh"),
}
one_and_many = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@one_and_many
def test_weights_are_the_parameters_and_share_memory_with_the_tensors_given(stream, make):
    model = make(stream)
    names = ["weights.0", "weights.1", "weights.2"]
    assert [name for name, _ in model.named_parameters()] == names
    assert all(mine is weight for mine, weight in zip(model.parameters(), model.weights, strict=True))
    again = type(model)(model.weights, "tanh")
    assert all(mine is weight for mine, weight in zip(again.parameters(), model.weights, strict=True))
    given = [weight.detach() for weight in model.weights]
    assert [weight.data_ptr() for weight in type(model)(given, "relu").weights] == [weight.data_ptr() for weight in given]


@one_and_many
def test_weights_record_gradients_if_parameters_do_or_when_asked(stream, make):
    model, x = make(stream), torch.randn(6, 5, generator=stream, dtype=torch.float64)
    assert not model(x).requires_grad
    copies = type(model)([nn.Parameter(weight.clone()) for weight in model.weights], "tanh")
    for trainable in (copies, model.requires_grad_()):
        loss = trainable(x).square().sum()
        loss.backward()
        assert all(weight.grad.abs().max() > 0 for weight in trainable.parameters())
    assert not any(weight.requires_grad for weight in as_stack(model).weights)


def test_a_network_of_a_stack_records_gradients_if_the_stack_does(stream):
    stack = MAKERS["MLPStack"](stream)
    assert not any(weight.requires_grad for weight in stack[0].weights)
    stack.requires_grad_()
    assert all(weight.requires_grad and weight.is_leaf for weight in stack[0].weights)


@one_and_many
def test_to_and_double_work_in_place_as_those_of_other_modules(stream, make):
    model = make(stream, dtype=torch.float32)
    x = torch.randn(6, 5, generator=stream)
    before = model(x)
    assert model.to(torch.float64) is model
    assert model.weights[0].dtype == torch.float64
    torch.testing.assert_close(model(x.double()).float(), before)
    assert model.float().double().weights[-1].dtype == torch.float64
    assert model.to("meta").weights[0].is_meta


@one_and_many
def test_evaluation_mode_changes_nothing(stream, make):
    model, x = make(stream), torch.randn(6, 5, generator=stream, dtype=torch.float64)
    expected = model.train()(x)
    assert model.training
    assert torch.equal(model.eval()(x), expected)
    assert not model.training


@one_and_many
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["deepcopy", "pickle"])
def test_a_copy_has_weights_of_its_own(stream, make, copied):
    model = make(stream)
    other = copied(model)
    assert type(other) is type(model)
    assert other.activation == "tanh"
    for mine, theirs in zip(other.weights, model.weights, strict=True):
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() != theirs.data_ptr()


@one_and_many
def test_state_dict_goes_into_another_network(stream, make):
    model, other = make(stream), make(stream)
    assert list(model.state_dict()) == ["weights.0", "weights.1", "weights.2"]
    assert not torch.equal(model.weights[0], other.weights[0])
    other.load_state_dict(model.state_dict())
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(model.weights, other.weights, strict=True))


def test_a_saved_network_is_its_state_dict(stream, tmp_path):
    model = MAKERS["MLP"](stream)
    model.save(tmp_path / "network.safetensors")
    other = MAKERS["MLP"](stream)
    other.load_state_dict(load_file(tmp_path / "network.safetensors"))
    assert torch.equal(other.weights[1], model.weights[1])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_optimizers_of_torch_train_a_network(stream, name):
    weights = [weight / weight.shape[1] ** 0.5 for weight in random_weights(stream, (5, 30, 3, 3))]
    network = MLP(weights, name).requires_grad_()
    x = torch.randn(40, 5, generator=stream, dtype=torch.float64)
    y = torch.randint(3, (40,), generator=stream)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    losses = []
    for _ in range(100):
        loss = cross_entropy(network(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 3


def test_a_network_is_a_part_of_other_modules(stream):
    network = MAKERS["MLP"](stream)
    model = torch.nn.Sequential(torch.nn.Flatten(), network)
    x = torch.randn(6, 5, generator=stream, dtype=torch.float64)
    assert torch.equal(model(x.view(6, 1, 5)), network(x))
    assert len(list(model.parameters())) == 3


@pytest.mark.parametrize("name", ["relu", "hardsigmoid"])
def test_a_network_within_a_module_has_its_own_measures(stream, name):
    network = MLP(random_weights(stream, (5, 7, 3, 2)), name)
    model = torch.nn.Sequential(torch.nn.Flatten(), network)
    x = torch.randn(6, 5, generator=stream, dtype=torch.float64)
    torch.testing.assert_close(jacobian_norm(model, x), jacobian_norm(network, x))
    assert torch.equal(transitions(model, Polyline(x)).per_layer, transitions(network, Polyline(x)).per_layer)


def plane(x):
    return Slice(*x[:3])


MEASURES = {
    "Jacobian norm": jacobian_norm,
    "estimated Jacobian norm": lambda network, x: (
        jacobian_norm_estimate(network, x, generator=torch.Generator().manual_seed(0)).norm
    ),
    "exact transitions": lambda network, x: transitions(network, Polyline(x)).per_layer,
    "sampled transitions": lambda network, x: transitions(network, Polyline(x), method="sampled", samples=64).per_layer,
    "exact boundaries": lambda network, x: boundaries(network, plane(x)).segments,
    "sampled boundaries": lambda network, x: boundaries(network, plane(x), method="sampled", resolution=16).across,
    "profile": lambda network, x: path_profile(network, Polyline(x), bins=4).transition_density,
    "curvature": lambda network, x: curvature(network, Polyline(x)),
    "point values": lambda network, x: point_values(network, x, torch.zeros(len(x), dtype=torch.int64)).cross_entropy,
    "evaluation": lambda network, x: torch.stack(evaluate(as_stack(network), x, torch.zeros(len(x), dtype=torch.int64))),
}


@pytest.mark.parametrize("measure", MEASURES.values(), ids=MEASURES)
def test_measures_of_a_network_in_training_are_those_of_a_frozen_one_and_record_nothing(stream, measure):
    frozen = MLP(random_weights(stream, (5, 7, 3, 2)), "relu")
    trained = copy.deepcopy(frozen).requires_grad_()
    x = torch.randn(6, 5, generator=stream, dtype=torch.float64)
    found = measure(trained, x)
    assert torch.equal(found, measure(frozen, x))
    assert not found.requires_grad


@pytest.mark.parametrize("measure", [jacobian_norm, MEASURES["exact transitions"], MEASURES["sampled transitions"]])
def test_measures_of_a_stack_in_training_record_nothing(stream, measure):
    frozen = MLPStack(random_weights(stream, (5, 7, 3, 2), networks=3), "relu")
    x = torch.randn(6, 5, generator=stream, dtype=torch.float64)
    found = measure(copy.deepcopy(frozen).requires_grad_(), x)
    assert torch.equal(found, measure(frozen, x))
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("shape", "networks", "expected"),
    [
        ((64, 64, 3, 10), None, "MLP(64-64-64-10, relu, 8,832 weights)"),
        ((64, 64, 3, 10), 8, "MLPStack(8 x 64-64-64-10, relu, 8,832 weights each)"),
        ((5, 4, 1, 3), None, "MLP(5-3, relu, 15 weights)"),
        ((784, 100, 65, 10), None, "MLP(784-100-100-...-100-10, relu, 709,400 weights)"),
    ],
)
def test_a_network_is_shown_in_one_short_line(shape, networks, expected):
    stack = () if networks is None else (networks,)
    weights = [torch.zeros(*stack, *layer) for layer in layer_shapes(*shape)]
    assert repr((MLP if networks is None else MLPStack)(weights, "relu")) == expected


def ones(*shape, dtype=torch.float32):
    return torch.ones(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([], r"weights must be a list of tensors \[fan_out, fan_in\], at least one; got \[\]"),
        ([ones(3)], r"weights\[0\] must be a tensor \[fan_out, fan_in\], all float32 or all float64; got torch.float32 \[3\]"),
        ([ones(2, 3, 3)], r"weights\[0\] must be .*; got torch.float32 \[2, 3, 3\]"),
        ([ones(0, 3)], r"weights\[0\] must be .*; got torch.float32 \[0, 3\]"),
        ([ones(3, 3), ones(3, 3, dtype=torch.int64)], r"weights\[1\] must be .*; got torch.int64 \[3, 3\]"),
        ([ones(3, 3), [[1.0]]], r"weights\[1\] must be .*; got list"),
        ([ones(3, 5), ones(2, 4)], r"weights\[1\] must be \[2, 3\], to take what weights\[0\] \[3, 5\] gives; got \[2, 4\]"),
    ],
)
def test_weights_that_are_no_network_are_refused(refused, weights, expected):
    with refused(expected):
        MLP(weights, "relu")


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([], r"weights must be a list of tensors \[S, fan_out, fan_in\], at least one; got \[\]"),
        (
            [ones(3, 3)],
            r"weights\[0\] must be a tensor \[S, fan_out, fan_in\], all float32 or all float64; got torch.float32 \[3, 3\]",
        ),
        ([ones(0, 3, 3)], r"weights\[0\] must be .*; got torch.float32 \[0, 3, 3\]"),
        ([ones(2, 3, 5), ones(2, 2, 4)], r"weights\[1\] must be \[2, 2, 3\], to take .*; got \[2, 2, 4\]"),
    ],
)
def test_weights_that_are_no_stack_are_refused(refused, weights, expected):
    with refused(expected):
        MLPStack(weights, "relu")


def test_stack_with_another_number_of_networks_in_one_layer_is_refused_for_that(refused):
    with refused(r"weights\[1\] must be \[2, 2, 3\], to take .*; got \[3, 2, 3\]"):
        MLPStack([ones(2, 3, 5), ones(3, 2, 3)], "relu")


@pytest.mark.parametrize("make", [lambda: MLP([ones(2, 3)], "gelu"), lambda: MLPStack([ones(1, 2, 3)], "gelu")])
def test_unknown_activation_is_refused(refused, make):
    with refused("activation must be one of .*; got 'gelu'"):
        make()


@pytest.mark.parametrize("network", [MLP([ones(2, 3)], "relu"), MLPStack([ones(1, 2, 3)], "relu")], ids=["MLP", "MLPStack"])
@pytest.mark.parametrize("shape", [(3,), (4, 2), (4, 3, 1)])
def test_points_of_another_shape_are_refused(refused, network, shape):
    with refused(rf"x must be a torch.float32 tensor of points \[N, 3\]; got torch.float32 \[{shape[0]}"):
        network(torch.zeros(shape))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_vmap_over_the_points_gives_the_same_and_no_warning(stream, name):
    network = MLP(random_weights(stream, SHAPES["wide"]), name)
    x = torch.randn(5, 3, generator=stream, dtype=torch.float64)
    torch.testing.assert_close(torch.func.vmap(lambda point: network(point.unsqueeze(0)).squeeze(0))(x), network(x))
    J = torch.func.vmap(torch.func.jacrev(lambda point: network(point.unsqueeze(0)).squeeze(0)))(x)
    assert J.shape == (5, 2, 3)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_initial_variance_is_the_papers_times_the_scale_squared(name, scale):
    shapes = [(300, 200), (200, 300), (50, 200)]
    for weight, (fan_out, fan_in) in zip(initial_weights(shapes, name, scale, 5), shapes, strict=True):
        assert weight.shape == (fan_out, fan_in)
        assert weight.dtype == torch.float32
        standardised = weight.double() / (scale * math.sqrt(GAINS[name] / fan_in))
        count = standardised.numel()
        # Five standard errors of a mean, a variance and a fourth moment of normal numbers.
        assert abs(float(standardised.mean())) < 5 / math.sqrt(count)
        assert abs(float(standardised.square().mean()) - 1) < 5 * math.sqrt(2 / count)
        assert abs(float(standardised.pow(4).mean()) - 3) < 5 * math.sqrt(96 / count)


def test_one_seed_is_one_draw_whatever_the_activation_and_the_scale():
    shapes = layer_shapes(5, 4, 3, 3)
    first = initial_weights(shapes, "relu", 1.0, 7)
    for name in ACTIVATIONS:
        for layer, other in zip(first, initial_weights(shapes, name, 8.0, 7), strict=True):
            torch.testing.assert_close(other, layer * 8 * math.sqrt(GAINS[name] / 2))
    assert torch.equal(first[0], initial_weights(shapes, "relu", 1.0, 7)[0])


def test_seeds_and_layers_are_different_draws():
    square = [(6, 6), (6, 6)]
    (first, second), (other, _) = initial_weights(square, "relu", 1.0, 1), initial_weights(square, "relu", 1.0, 2)
    assert not torch.isclose(first, second).any()
    assert not torch.isclose(first, other).any()


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_network_is_loaded_bit_by_bit(stream, tmp_path, name, dtype):
    network = MLP(random_weights(stream, (5, 4, 13, 3), dtype=dtype), name)
    network.save(tmp_path / "network.safetensors")
    loaded = MLP.load(str(tmp_path / "network.safetensors"))
    assert loaded.activation == name
    assert len(loaded.weights) == 13
    for mine, theirs in zip(loaded.weights, network.weights, strict=True):
        assert mine.dtype == dtype
        assert torch.equal(mine, theirs)


def test_network_of_a_stack_and_transposed_weights_are_saved_as_they_are_seen(stream, tmp_path):
    flat = torch.randn(2 * 4 * 5 + 2 * 3 * 4, generator=stream)
    network = MLPStack([flat[:40].view(2, 4, 5), flat[40:].view(2, 4, 3).transpose(1, 2)], "relu")[1]
    network.save(tmp_path / "file")
    for mine, theirs in zip(MLP.load(tmp_path / "file").weights, network.weights, strict=True):
        assert torch.equal(mine, theirs)


FILES = {
    "missing": lambda path: None,
    "a folder": lambda path: path.mkdir(),
    "empty": lambda path: path.write_bytes(b""),
    "random bytes": lambda path: path.write_bytes(random.Random(0).randbytes(200)),
    "truncated": lambda path: path.write_bytes(_saved(path)[:-10]),
    "other tensors": lambda path: save_file({"w": ones(2, 2)}, path, metadata={"activation": "relu"}),
    "one tensor too many": lambda path: save_file({"weights.0": ones(2, 2), "bias": ones(2)}, path, {"activation": "relu"}),
    "no tensors": lambda path: save_file({}, path, metadata={"activation": "relu"}),
    "no activation": lambda path: save_file({"weights.0": ones(2, 2)}, path),
    "whole numbers": lambda path: save_file({"weights.0": ones(2, 2, dtype=torch.int64)}, path, {"activation": "relu"}),
    "shapes that do not follow": lambda path: save_file(
        {"weights.0": ones(2, 2), "weights.1": ones(2, 3)}, path, {"activation": "relu"}
    ),
}


def _saved(path):
    MLP([ones(4, 4)], "relu").save(path)
    return path.read_bytes()


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_file_that_is_no_network_is_refused_by_its_name(refused, tmp_path, make):
    path = tmp_path / "some.safetensors"
    make(path)
    with refused("some.safetensors is not a network that MLP.save wrote"):
        MLP.load(path)


def test_saving_where_nothing_can_be_written_is_one_line(refused, tmp_path):
    with refused("missing/file", error=SensitometerError):
        MLP([ones(2, 2)], "relu").save(tmp_path / "missing" / "file")


def test_tensors_that_record_gradients_are_refused_as_the_gradients_would_be_lost(refused):
    with refused(r"weights\[1\] records gradients that would be lost: make it an nn.Parameter, or detach it"):
        MLP([torch.ones(4, 3), torch.ones(2, 4).requires_grad_()], "relu")
