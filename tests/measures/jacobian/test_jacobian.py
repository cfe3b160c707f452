"""The structured pass and that of any other model against one Jacobian at a time by autograd in float64."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import ACTIVATIONS, forward
from reference import jacobian_norm as slow_norm
from torch import nn

from sensitometer.measures import jacobian_norm, jacobian_norms
from sensitometer.measures.jacobian import chain
from sensitometer.networks import MLP, MLPStack, initial_weights, layer_shapes

KINDS = ("probabilities", "logits")


def kinds(classes):
    """One logit has no probabilities."""
    return KINDS if classes > 1 else ("logits",)


# inputs, width, depth, classes
SHAPES = {
    "one layer": (6, 1, 1, 4),
    "one layer, more classes than inputs": (3, 1, 1, 5),
    "one hidden layer": (6, 5, 2, 4),
    "width 1": (6, 1, 4, 3),
    "wider than the inputs": (4, 9, 3, 3),
    "narrower than the classes": (6, 2, 3, 5),
    "fewer inputs than classes": (2, 8, 3, 6),
    "one input": (1, 4, 3, 3),
    "one class": (5, 4, 3, 1),
    "two classes": (5, 4, 3, 2),
    "deep": (5, 12, 9, 3),
}


def make_stack(shape, activation, *, networks=3, scale=1.0):
    drawn = [initial_weights(layer_shapes(*shape), activation, scale, seed) for seed in range(networks)]
    return MLPStack([torch.stack(layer) for layer in zip(*drawn, strict=True)], activation)


def make_points(count, inputs, seed=9):
    return torch.randn(count, inputs, generator=torch.Generator().manual_seed(seed))


def twin(network, x, of="probabilities", target=None):
    return slow_norm(lambda points: forward(network.weights, network.activation, points), x, of, target)


def twins(stack, x, of="probabilities", target=None):
    return torch.stack([twin(network, x, of, target) for network in stack])


def assert_close(found, expected, rtol=1e-4):
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=1e-12)


def as_callable(network):
    """The same network as any other model."""
    return lambda points: network(points)


# --- the structured pass


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_stack_is_the_twins(shape, activation):
    stack, x = make_stack(shape, activation), make_points(5, shape[0])
    target = torch.arange(5) % shape[3]
    for of in kinds(shape[3]):
        found = jacobian_norm(stack, x, of=of)
        assert (found.shape, found.dtype) == ((3, 5), torch.float32)
        assert_close(found, twins(stack, x, of))
        assert_close(jacobian_norm(stack, x, of=of, target=target), twins(stack, x, of, target))


@pytest.mark.parametrize("case", range(60))
def test_any_shape_is_the_twins(case):
    draw = random.Random(case)
    shape = draw.randint(1, 9), draw.randint(1, 9), draw.randint(1, 6), draw.randint(1, 7)
    points, chunk_size = draw.randint(1, 6), draw.choice([None, 1, 2, 4])
    stack = make_stack(shape, draw.choice(ACTIVATIONS), networks=2, scale=draw.choice([0.5, 1.0, 3.0]))
    x = make_points(points, shape[0])
    target = torch.arange(points) % shape[3] if draw.random() < 0.4 else None
    for of in kinds(shape[3]):
        found = jacobian_norm(stack, x, of=of, target=target, chunk_size=chunk_size)
        expected = twins(stack, x, of, target)
        # Where the factors of a product cancel, float32 keeps its digits relative to the stack's largest norm only.
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-12 + 1e-6 * float(expected.max()))


@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 6, 7, 100])
@pytest.mark.parametrize("shape", [SHAPES[name] for name in ("one layer", "one hidden layer", "narrower than the classes")])
def test_chunks_do_not_show(shape, of, targeted, chunk_size):
    stack, x = make_stack(shape, "relu"), make_points(7, shape[0])
    target = torch.arange(7) % shape[3] if targeted else None
    found = jacobian_norm(stack, x, of=of, target=target, chunk_size=chunk_size)
    assert_close(found, jacobian_norm(stack, x, of=of, target=target).double(), rtol=1e-5)


@pytest.mark.parametrize("points", [16, 17, 48, 49, 100])
@pytest.mark.parametrize("name", ["one layer", "one hidden layer", "narrower than the classes", "one input", "one class", "deep"])
def test_blocks_that_share_a_forward_pass_do_not_show(name, points, monkeypatch):
    """Blocks of 16 points, three to a forward pass, its first layer in pieces of 20; the last of each may be smaller."""
    stack, x = make_stack(SHAPES[name], "tanh"), make_points(points, SHAPES[name][0])
    target = torch.arange(points) % SHAPES[name][3]
    pairs = [(of, rows) for of in kinds(SHAPES[name][3]) for rows in (None, target)]
    expected = [jacobian_norm(stack, x, of=of, target=rows, chunk_size=points) for of, rows in pairs]
    for constant, value in (("CPU_BLOCK", 1), ("MIN_COLUMNS", 1), ("FORWARD_POINTS", 48), ("INPUTS", 1), ("PIECE", 20)):
        monkeypatch.setattr(chain, constant, value)
    if not name.startswith("one layer"):
        monkeypatch.setattr(chain, "FORWARD_NUMBERS", 48 * len(stack) * SHAPES[name][1])
    found = [jacobian_norm(stack, x, of=of, target=rows) for of, rows in pairs]
    both = jacobian_norms(stack, x)[-len(expected[::2]) :]
    for norm, other in zip([*found, *both], [*expected, *expected[::2]], strict=True):
        torch.testing.assert_close(norm.double(), other.double(), rtol=1e-5, atol=1e-7 * float(other.max()))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_one_network_is_a_stack_of_one(activation):
    stack, x = make_stack((5, 4, 3, 3), activation), make_points(4, 5)
    for of in KINDS:
        single = torch.stack([jacobian_norm(network, x, of=of) for network in stack])
        assert single.shape == (3, 4)
        assert_close(single, jacobian_norm(stack, x, of=of).double(), rtol=1e-5)


def test_both_norms_come_from_one_pass():
    stack, x = make_stack((5, 4, 3, 3), "relu"), make_points(7, 5)
    for chunk_size in (None, 3):
        for found, of in zip(jacobian_norms(stack, x, chunk_size=chunk_size), KINDS, strict=True):
            assert (found.shape, found.dtype) == ((3, 7), torch.float64)
            assert_close(found, twins(stack, x, of))


@pytest.mark.parametrize("of", KINDS)
def test_float64_points_give_float64(of):
    stack, x = make_stack((5, 4, 3, 3), "relu"), make_points(4, 5).double()
    for model, expected in ((stack, twins(stack, x, of)), (stack[0], twin(stack[0], x, of))):
        found = jacobian_norm(model, x, of=of)
        assert found.dtype == torch.float64
        assert_close(found, expected)


DEEP = [(33, 4.0, activation) for activation in ACTIVATIONS] + [(65, 0.5, "tanh"), (65, 0.5, "relu"), (65, 8.0, "relu")]


@pytest.mark.parametrize(("depth", "scale", "activation"), DEEP)
def test_deep_networks_neither_overflow_nor_underflow(depth, scale, activation):
    # float64 points, as float32 cannot hold some of these norms.
    stack, x = make_stack((8, 24, depth, 4), activation, networks=2, scale=scale), make_points(3, 8).double()
    for of in KINDS:
        found, expected = jacobian_norm(stack, x, of=of), twins(stack, x, of)
        assert found.isfinite().all()
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "hardtanh"])
def test_chaotic_networks_have_norms_of_the_right_size(activation):
    """The deepest networks with the largest weights: the last bit of a point decides its norm, but not the power of ten."""
    stack, x = make_stack((8, 64, 65, 4), activation, networks=2, scale=8.0), make_points(5, 8).double()
    found, expected = (
        norms.log10().median(1).values for norms in (jacobian_norm(stack, x, of="logits"), twins(stack, x, "logits"))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=3)
    assert (expected > 10).all()


@pytest.mark.parametrize("depth", [5, 13, 33, 65])
@pytest.mark.parametrize("of", KINDS)
def test_large_weights_of_units_that_are_off_do_not_hide_the_small_ones(depth, of):
    weight = torch.diag(torch.tensor([-100.0, 1.0]))
    network, x = MLP([weight] * depth, "relu"), torch.ones(1, 2)
    assert_close(jacobian_norm(network, x, of=of), twin(network, x, of))
    assert_close(jacobian_norm(network, x, of=of, target=torch.tensor([1])), twin(network, x, of, [1]))


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("activation", ["relu", "hardsigmoid"])
def test_weights_of_zero_give_0(layer, activation):
    stack, x = make_stack((5, 4, 3, 3), activation), make_points(4, 5)
    stack.weights[layer][1].zero_()
    for of in KINDS:
        found = jacobian_norm(stack, x, of=of)
        assert found[1].tolist() == [0.0] * 4
        assert_close(found, twins(stack, x, of))
        assert_close(jacobian_norm(stack, x, of=of, target=torch.tensor([0, 1, 2, 0])), twins(stack, x, of, [0, 1, 2, 0]))


@pytest.mark.parametrize("through", [lambda stack: stack, lambda stack: stack[0], lambda stack: as_callable(stack[0])])
def test_the_softmax_of_one_logit_is_refused(refused, through):
    model, x = through(make_stack((5, 4, 3, 1), "relu")), make_points(4, 5)
    with refused("of='probabilities' needs at least 2 logits: .* use of='sigmoid' .* or of='outputs'"):
        jacobian_norm(model, x)
    assert (jacobian_norm(model, x, of="logits") > 0).any()
    assert torch.equal(jacobian_norm(model, x, of="outputs"), jacobian_norm(model, x, of="logits"))


@pytest.mark.parametrize("factor", [10.0, 30.0, 100.0, 300.0])
@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("generic", [False, True])
def test_saturated_probabilities_keep_their_digits(factor, targeted, generic):
    stack, x = make_stack((5, 16, 3, 4), "relu", networks=1), make_points(12, 5).double()
    sharp = MLPStack([*stack.weights[:-1], factor * stack.weights[-1]], "relu")
    sharp = MLPStack([weight.double() for weight in sharp.weights], "relu")
    target = torch.arange(12) % 4 if targeted else None
    expected = twin(sharp[0], x, target=target)
    assert factor < 100 or float(expected.min()) < 1e-8, "no point is saturated"
    found = jacobian_norm(as_callable(sharp[0]) if generic else sharp, x, target=target).view(-1)
    # Relative, however small, except for single rows of any model, whose squares may underflow.
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-100 if generic and targeted else 1e-250)


def test_two_classes_that_share_all_the_probability():
    """Rows 0 and 1 nearly tie, the third class has no probability worth mentioning."""
    weights = [torch.tensor([[40.0, 1.0], [40.0, -1.0], [-40.0, 0.0]])]
    x = torch.tensor([[1.0, 0.0], [1.0, 1e-3], [1.0, -20.0]], dtype=torch.float64)
    network = MLP(weights, "relu")
    assert_close(jacobian_norm(network, x), twin(network, x))
    assert_close(jacobian_norm(as_callable(MLP([weights[0].double()], "relu")), x), twin(network, x))


@pytest.mark.parametrize("factor", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_what_the_logits_share_does_not_hide_their_differences(factor, classes):
    """Rows of the logits' Jacobian that differ by a thirtieth of themselves, at uniform and at saturated probabilities."""
    stack, x = make_stack((5, 16, 3, classes), "relu", networks=1), make_points(12, 5)
    shared = 30 * stack.weights[-1][:, :1]
    network = MLP([*stack[0].weights[:-1], factor * (stack.weights[-1] + shared)[0]], "relu")
    assert_close(jacobian_norm(network, x), twin(network, x))


def test_units_at_a_boundary_have_slope_0():
    network = MLP([torch.eye(3), torch.eye(3)], "relu6")
    x = torch.tensor([[0.0, 6.0, 3.0], [0.0, 6.0, 0.0]])
    assert jacobian_norm(network, x, of="logits").tolist() == pytest.approx([1.0, 0.0])


def test_units_just_beside_a_boundary_are_on_their_side_of_it():
    """1e-12 is above 0, which float32 points and products would not show."""
    network = MLP([torch.tensor([[1.0, -1.0]]), torch.ones(1, 1)], "relu")
    x = torch.tensor([[1 + 1e-12, 1.0], [1.0, 1 + 1e-12]], dtype=torch.float64)
    assert jacobian_norm(network, x, of="logits").tolist() == pytest.approx([math.sqrt(2), 0.0])


# --- any other model


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("shape", [SHAPES[name] for name in ("one layer", "width 1", "fewer inputs than classes", "one class")])
def test_any_other_model_is_the_twins(shape, activation):
    network, x = make_stack(shape, activation)[1], make_points(5, shape[0])
    target = torch.arange(5) % shape[3]
    for of in kinds(shape[3]):
        for chunk_size in (None, 1, 2):
            found = jacobian_norm(as_callable(network), x, of=of, chunk_size=chunk_size)
            assert (found.shape, found.dtype) == ((5,), torch.float32)
            assert_close(found, twin(network, x, of))
        assert_close(jacobian_norm(as_callable(network), x, of=of, target=target, chunk_size=2), twin(network, x, of, target))


@pytest.fixture
def convolutional():
    torch.manual_seed(5)
    layers = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    model = nn.Sequential(*layers)
    with torch.no_grad():
        model(torch.randn(50, 2, 6, 6))  # gives the normalisation its statistics
    return model.eval()


@pytest.mark.parametrize("of", KINDS)
def test_convolutional_network(convolutional, of):
    x = torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(2))
    target = torch.tensor([0, 1, 2, 0, 1])
    found, row = (jacobian_norm(convolutional, x, of=of, target=labels, chunk_size=3) for labels in (None, target))
    exact = convolutional.double()
    assert_close(found, slow_norm(exact, x, of))
    assert_close(row, slow_norm(exact, x, of, target))
    assert not found.requires_grad


def test_measuring_leaves_a_module_as_it_was(convolutional):
    before = {name: tensor.clone() for name, tensor in convolutional.state_dict().items()}
    jacobian_norm(convolutional, torch.randn(3, 2, 6, 6))
    assert all(torch.equal(tensor, before[name]) for name, tensor in convolutional.state_dict().items())
    assert all(parameter.grad is None for parameter in convolutional.parameters())


def one_layer_training(model, index):
    model[index].train()
    return model


@pytest.mark.parametrize(("index", "name"), [(1, "1"), (3, "3")], ids=["BatchNorm2d", "Dropout"])
def test_layer_in_training_mode_is_refused_by_name(refused, convolutional, index, name):
    with refused(f"model must be in evaluation mode, but its layer '{name}' is in training mode: call model.eval"):
        jacobian_norm(one_layer_training(convolutional, index), torch.randn(3, 2, 6, 6))


def test_model_that_is_one_layer_in_training_mode_is_refused_by_its_type(refused):
    with refused("its layer 'Dropout' is in training mode"):
        jacobian_norm(nn.Dropout(0.5), torch.randn(3, 4))


def test_training_mode_that_changes_nothing_is_taken():
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).train()
    assert jacobian_norm(model, torch.randn(3, 4)).shape == (3,)


# --- what torch users bring along


def test_parameters_and_points_that_require_gradients_are_taken():
    stack, x = make_stack((5, 4, 3, 3), "relu", networks=1), make_points(4, 5)
    expected = jacobian_norm(stack[0], x)
    of_parameters = MLP([nn.Parameter(weight) for weight in stack[0].weights], "relu")
    assert torch.equal(jacobian_norm(of_parameters, x), expected)
    assert torch.equal(jacobian_norm(stack[0], x.clone().requires_grad_()), expected)


def test_it_works_in_inference_mode(convolutional):
    x = torch.randn(5, 2, 6, 6)
    expected = jacobian_norm(convolutional, x)
    with torch.inference_mode():
        assert torch.equal(jacobian_norm(convolutional, x), expected)
        assert torch.equal(jacobian_norm(convolutional, x.clone()), expected)


def test_weights_of_inference_mode_are_refused(refused):
    with torch.inference_mode():
        model = nn.Linear(5, 3)
    with refused("model holds tensors that were made under torch.inference_mode, through which no gradient passes"):
        jacobian_norm(model, torch.zeros(7, 5))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("through", [lambda network: network, as_callable], ids=["structured", "generic"])
@pytest.mark.parametrize("of", KINDS)
def test_target_may_be_of_any_whole_numbers(dtype, through, of):
    network, x = make_stack((5, 4, 3, 3), "relu")[0], make_points(4, 5)
    found = jacobian_norm(through(network), x, of=of, target=torch.tensor([2, 0, 1, 1], dtype=dtype))
    assert_close(found, twin(network, x, of, [2, 0, 1, 1]))


# --- refusals

NETWORK = MLP([torch.ones(4, 5), torch.ones(3, 4)], "relu")
X = torch.zeros(7, 5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"of": "logit"}, "of must be one of probabilities, logits, sigmoid, outputs; got 'logit'"),
        ({"of": None}, "of must be one of probabilities, logits, sigmoid, outputs; got None"),
        ({"chunk_size": 0}, "chunk_size must be a whole number of at least 1; got 0"),
        ({"chunk_size": -3}, "chunk_size must be a whole number of at least 1; got -3"),
        *[
            ({"x": x}, r"x must be a floating-point tensor of points \[N, ...\], at least one")
            for x in (torch.zeros(5), torch.zeros(0, 5), torch.zeros(7, 5, dtype=torch.int64), [[0.0] * 5], None)
        ],
        (
            {"target": torch.zeros(6, dtype=torch.int64)},
            r"target must be a tensor of classes \[7\], one per point; got torch.int64 \[6\]",
        ),
        ({"target": torch.zeros(7)}, r"target must be a tensor of classes \[7\], one per point; got torch.float32 \[7\]"),
        (
            {"target": torch.zeros(7, 1, dtype=torch.int64)},
            r"target must be a tensor of classes \[7\], .*; got torch.int64 \[7, 1\]",
        ),
        ({"target": torch.tensor([0, 0, 0, 3, 0, 0, 0])}, "target must hold classes 0 to 2; got 0 to 3"),
        ({"target": torch.tensor([0, 0, 0, -1, 0, 0, 2])}, "target must hold classes 0 to 2; got -1 to 2"),
    ],
)
@pytest.mark.parametrize("model", [NETWORK, as_callable(NETWORK)], ids=["structured", "generic"])
def test_bad_argument_is_refused(refused, model, arguments, expected):
    with refused(expected):
        jacobian_norm(**{"model": model, "x": X, **arguments})


@pytest.mark.parametrize("target", [[0] * 7, torch.zeros(7, dtype=torch.bool)], ids=["a list", "truth values"])
def test_target_that_is_no_tensor_of_classes_is_refused(refused, target):
    with refused("target must be a tensor of classes"):
        jacobian_norm(NETWORK, X, target=target)


@pytest.mark.parametrize("x", [torch.zeros(7, 4), torch.zeros(7, 5, 1)])
def test_points_of_another_shape_are_refused(refused, x):
    with refused(r"x must be points \[N, 5\]; got \[7, "):
        jacobian_norm(NETWORK, x)


SATURATING = MLP(NETWORK.weights, "hardtanh")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("of", KINDS)
@pytest.mark.parametrize("model", [NETWORK, as_callable(NETWORK), SATURATING, nn.Sequential(nn.Hardtanh(), nn.Linear(5, 3))])
def test_points_that_are_not_finite_are_refused(refused, model, of, value):
    """Though some have norms that are: the slope of a unit that is given nan, or is saturated, is 0."""
    with refused("x must be finite; some points are not"):
        jacobian_norm(model, torch.cat([X, torch.full((1, 5), value)]), of=of)


@pytest.mark.parametrize(
    "model",
    [
        lambda x: torch.ones(len(x), 3),
        lambda x: NETWORK(x.detach()),
        lambda x: nn.functional.linear(x.detach(), nn.Parameter(torch.ones(3, 5))),
    ],
    ids=["constant", "detached", "detached, with parameters"],
)
def test_model_without_gradients_is_refused(refused, model):
    with refused("the model's outputs do not depend on its input through autograd .*; expected a differentiable model"):
        jacobian_norm(model, X)


def test_a_class_may_have_a_constant_logit():
    found = jacobian_norm(lambda x: torch.cat([torch.ones(len(x), 1), 2 * x[:, :1] + 0.5], 1), X, of="logits")
    assert found.tolist() == [2.0] * 7


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda x: x[:, 40], "index 40 is out of bounds"),
        (lambda x: {}["logits"], "KeyError 'logits'"),
        (lambda x: x.logits, "'Tensor' object has no attribute 'logits'"),
        (nn.Linear(4, 3), "mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_whatever_a_model_raises_is_one_line(refused, model, expected):
    with refused(rf"model does not take torch.float32 points \[7, 5\]: {expected}"):
        jacobian_norm(model, X)


@pytest.mark.parametrize("model", [lambda x: x.sum(), lambda x: torch.cat([x, x]), lambda x: x.long()])
def test_model_without_an_output_per_point_is_refused(refused, model):
    with refused(r"model must map points \[n, ...\] to floating-point outputs, one row per point; it maps \[7, 5\] to torch\."):
        jacobian_norm(model, X)


@pytest.mark.parametrize("of", ["probabilities", "logits", "sigmoid"])
def test_outputs_of_another_shape_than_logits_are_refused(refused, of):
    with refused(rf"of='{of}' needs a model of logits \[n, C\]; it gives \[n, 5, 1\]: use of='outputs'"):
        jacobian_norm(lambda x: x.unsqueeze(2), X, of=of)


def test_norm_is_not_the_mean_of_anything():
    """The 3-4-5 triangle: one point, one output, two inputs."""
    assert jacobian_norm(MLP([torch.tensor([[3.0, 4.0]])], "relu"), torch.zeros(1, 2), of="logits").tolist() == [5.0]
    # p = 1/2 each: (diag(p) - p p^T) J = [[1, -1], [-1, 1]] / 4 times [[2], [0]].
    assert jacobian_norm(MLP([torch.tensor([[2.0], [0.0]])], "relu"), torch.zeros(1, 1)).item() == pytest.approx(math.sqrt(0.5))


def test_large_weights_whose_slopes_nearly_vanish_do_not_underflow():
    """Weights of 1e4 that cancel, and slopes of 1e-3: the parts of the product leave float32's range, the product does not."""
    weights = [torch.tensor([[4.0, 0.8], [3.6, 1.2]])]
    h = torch.tanh(weights[0].double() @ torch.ones(2, dtype=torch.float64))
    for _ in range(6):
        rows = [[b, (target - b * h[0]) / h[1]] for b, target in ((1e4, 4.15), (7e3, 4.25))]
        weights.append(torch.tensor(rows, dtype=torch.float32))
        h = torch.tanh(weights[-1].double() @ h)
    weights.append(torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, -2.0]]))
    exact = MLP([weight.double() for weight in weights], "tanh")
    x = torch.ones(1, 2)
    for of in ("logits", "probabilities"):
        found = jacobian_norm(MLP(weights, "tanh"), x, of=of)
        expected = jacobian_norm(lambda points: exact(points), x.double(), of=of)
        assert expected > 0.1
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=0)


# --- against finite differences


@settings(max_examples=40)
@given(
    st.sampled_from(ACTIVATIONS), st.integers(1, 8), st.integers(1, 5), st.integers(2, 5), st.integers(0, 10**6), st.booleans()
)
def test_norms_are_those_of_finite_differences(activation, width, depth, classes, seed, logits):
    """Central differences in float64, over the points of which no unit is within their step of a kink."""
    stack, x = make_stack((4, width, depth, classes), activation, networks=1, scale=1.5), make_points(6, 4, seed).double()
    network = MLP([weight.double() for weight in stack[0].weights], activation)
    step = 1e-6

    def outputs(points):
        f = forward(network.weights, activation, points)
        return f if logits else f.softmax(1)

    moved = [(outputs(x + step * e) - outputs(x - step * e)) / (2 * step) for e in torch.eye(4).double()]
    expected = torch.stack(moved, 2).flatten(1).norm(dim=1)
    straight = torch.stack(
        [(outputs(x + step * e) + outputs(x - step * e) - 2 * outputs(x)).abs().amax(1) for e in torch.eye(4).double()]
    )
    smooth = straight.amax(0) < 1e-9
    found = jacobian_norm(network, x, of="logits" if logits else "probabilities")
    torch.testing.assert_close(found[smooth], expected[smooth], rtol=1e-5, atol=1e-7)


def test_a_model_that_changes_its_input_is_measured_and_the_points_stay():
    layer = nn.Linear(3, 2, bias=False).double()
    x = make_points(4, 3).double()
    before = x.clone()
    found = jacobian_norm(nn.Sequential(nn.ReLU(inplace=True), layer), x, of="logits")
    assert torch.equal(x, before)
    assert_close(found, slow_norm(lambda points: layer(points.relu()), x, "logits"))


def test_models_that_cannot_be_vectorised_are_measured():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2, bias=False).double()

        def forward(self, x):
            if x.sum() > 1e9:
                return x
            rows = torch.zeros(len(x), 2, dtype=x.dtype)
            for place, row in enumerate(x):
                rows[place] = self.layer(row.tanh())
            return rows

    model, x = Model(), make_points(4, 3).double()
    for of in KINDS:
        assert_close(jacobian_norm(model, x, of=of), slow_norm(model, x, of))
