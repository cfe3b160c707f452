"""Modules as graphs: names, what is remembered, what is read anew, what is left alone, the Jacobian's changes, refusals."""

import copy
import gc
import itertools
import math
import random
import weakref

import numpy as np
import pytest
import torch
from example_models import (
    ACTIVATIONS,
    ONE,
    RESIDUAL_NAMES,
    Function,
    Residual,
    line,
    normals,
    seeded,
    sequential,
    three_paths,
)
from model_twins import check, counts, doubled, pieces
from reference import jacobians, rational_transitions
from torch import nn
from torch.nn import functional

from sensitometer import paths
from sensitometer.measures import curvature, path_profile, transitions
from sensitometer.networks import MLP, initial_weights, layer_shapes

# --- the contract


def test_names_and_shapes():
    model, several = seeded(Residual), three_paths(3)
    found = transitions(model, several, positions=True)
    assert found.names == RESIDUAL_NAMES
    assert (found.per_layer.shape, found.total.shape) == ((3, 7), (3,))
    assert found.per_layer.dtype == found.total.dtype == torch.int64
    assert torch.equal(found.per_layer.sum(1), found.total)
    for path, per_layer, positions in zip(several, found.per_layer, found.positions, strict=True):
        alone = transitions(model, path, positions=True)
        assert (alone.names, alone.per_layer.shape, alone.total.shape) == (RESIDUAL_NAMES, (7,), ())
        assert torch.equal(alone.per_layer, per_layer)
        for mine, theirs in zip(alone.positions, positions, strict=True):
            assert mine.dtype == torch.float64
            assert torch.equal(mine, mine.sort().values)
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)
    assert transitions(model, several[0]).positions is None
    check(model, *several)


def test_results_do_not_depend_on_chunks(monkeypatch):
    model, several = seeded(Residual), three_paths(3)
    expected = transitions(model, several, positions=True)
    monkeypatch.setattr("sensitometer.measures.regions.walk.CHUNK", 1)
    monkeypatch.setattr("sensitometer.measures.regions.walk.FIRST_CHUNK", 1)
    monkeypatch.setattr("sensitometer.measures.regions.graph.BLOCK", 1)
    assert torch.equal(transitions(model, several).per_layer, expected.per_layer)
    found = transitions(model, several, positions=True)
    for mine, theirs in zip(itertools.chain(*found.positions), itertools.chain(*expected.positions), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)


@pytest.fixture
def exports(monkeypatch):
    """A list that grows whenever torch exports a module."""
    calls, export = [], torch.export.export

    def counted(module, *arguments, **options):
        calls.append(type(module).__name__)
        return export(module, *arguments, **options)

    monkeypatch.setattr(torch.export, "export", counted)
    return calls


def test_paths_of_many_vertices_are_taken_in_parts(monkeypatch):
    """More vertices on the same line: the counts are those of its two ends."""
    model, (begin, end) = seeded(Residual), three_paths(3)[0].vertices[:2].double()
    line, many = (paths.Polyline(begin.lerp(end, torch.linspace(0, 1, n).double().unsqueeze(1)), closed=False) for n in (2, 100))
    network = MLP([normals(9, 3, seed=1), normals(8, 9, seed=2), normals(2, 8, seed=3)], "relu6")
    expected = [counts(one, line) for one in (model, network)]
    monkeypatch.setattr("sensitometer.measures.regions.walk.CHUNK", 1)
    assert [counts(one, many) for one in (model, network)] == expected


def test_parameters_are_read_at_each_call_and_the_graph_once(exports):
    model, path = seeded(Residual), three_paths(3)[0]
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.3)
    seen = set()
    for _ in range(3):
        seen.add(tuple(counts(model, path)))
        assert len(exports) == 1
        (model(normals(8, 3)) - 1).square().mean().backward()
        optimizer.step()
    found = counts(model, path)
    assert len(exports) == 1
    assert len(seen) == 3
    assert found == counts(copy.deepcopy(model), path)
    assert len(exports) == 2
    model.load_state_dict(seeded(Residual, 5).state_dict())
    assert counts(model, path) == counts(seeded(Residual, 5), path)


def test_points_of_another_shape_are_exported_anew(exports):
    model = nn.ReLU()
    for shape in ((3,), (2, 2), (3,), (2, 2)):
        check(model, *three_paths(*shape))
    assert len(exports) == 2


def test_statistics_of_normalisations_are_read_at_each_call(exports):
    model, path = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU())), three_paths(3)[0]
    (before,) = transitions(model, path, positions=True).positions
    model.train()
    model(normals(40, 3, scale=5.0) + 3)
    model.eval()
    (after,) = transitions(model, path, positions=True).positions
    assert before.tolist() != after.tolist()
    assert len(exports) == 1
    check(model, path)


def test_replaced_modules_and_attributes_are_noticed():
    model, path = seeded(Residual), three_paths(3, scale=6.0)[0]
    counts(model, path)
    model.layers[1] = nn.Hardtanh(-0.5, 0.5)
    check(model, path)
    model.limit = -0.2
    check(model, path)
    model.stem = seeded(lambda: nn.Linear(3, 6, bias=False), 7)
    check(model, path)
    model.layer1.forward = lambda x: x.abs()
    check(model, path)


class Limited(nn.Module):
    """A clamp at an attribute, which outputs hardly depend on."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit
        self.head = nn.Linear(1, 1)
        self.head.weight.data.fill_(1e-3)
        self.head.bias.data.fill_(10.0)

    def forward(self, x):
        return self.head(x.clamp(max=self.limit))


def test_a_small_change_of_a_python_attribute_is_noticed():
    model = Limited(0.25)
    for limit in (0.25, 0.75):
        model.limit = limit
        (positions,) = transitions(model, line(0.0, 1.0), positions=True).positions
        assert positions.tolist() == [limit]


@pytest.mark.parametrize(
    "kind",
    ["buffer", "attribute", "buffer that is not saved"],
)
def test_a_tensor_that_is_replaced_is_noticed(kind):
    model = Limited(0.25)
    model.forward = lambda x: model.head((x - model.shift).relu())
    if kind == "attribute":
        model.shift = torch.zeros(1)
    else:
        model.register_buffer("shift", torch.zeros(1), persistent=kind == "buffer")
    for shift in (0.25, 0.75):
        model.shift = torch.tensor([shift])
        (positions,) = transitions(model, line(0.0, 1.0), positions=True).positions
        assert positions.tolist() == [shift]


def test_nothing_of_the_caller_changes():
    model = seeded(lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)))
    model[4].train()
    model[4].weight.requires_grad_(False)
    path = paths.Polyline(normals(3, 1, 3, 3).requires_grad_())
    model(path.vertices.detach()).sum().backward()
    hook = model[0].register_forward_hook(lambda module, inputs, output: 2 * output)

    def everything():
        parameters = [(id(value), value.requires_grad, id(value.grad), str(value.grad)) for value in model.parameters()]
        tensors = {name: (value.dtype, value.tolist()) for name, value in model.state_dict().items()}
        flags = [(id(module), module.training, list(module._forward_hooks)) for module in model.modules()]
        streams = torch.get_rng_state().tolist(), np.random.get_state()[1].tolist(), random.getstate()
        return parameters, tensors, flags, streams, path.vertices.grad, torch.is_grad_enabled(), torch.get_default_dtype()

    before = everything()
    for positions in (False, True):
        assert int(transitions(model, path, positions=positions).total) > 0
    curvature(model, path)
    assert everything() == before
    assert list(model[0]._forward_hooks) == [hook.id]


def test_a_hook_that_changes_what_its_module_returns_is_part_of_the_model():
    model, path = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU())), three_paths(3)[0]
    counts(model, path)
    hook = model[0].register_forward_hook(lambda module, inputs, output: output - 2)
    check(model, path)
    hook.remove()
    check(model, path)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_mode_of_autograd(mode):
    model, path = seeded(Residual), three_paths(3)[0]
    expected = counts(copy.deepcopy(model), path)
    with mode():
        assert counts(model, path) == expected
    assert counts(model, path) == expected


def test_a_module_is_not_kept_alive():
    model = seeded(Residual)
    counts(model, three_paths(3)[0])
    gone = weakref.ref(model), weakref.ref(model.stem.weight)
    del model
    gc.collect()
    assert [reference() for reference in gone] == [None, None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_modules_and_paths_of_any_type(dtype, exports):
    model = seeded(
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3), nn.PReLU()
        )
    )
    model = model.to(dtype)
    for kind in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        vertices = normals(4, 1, 4, 4).to(kind)
        check(model, paths.Polyline(vertices), paths.Ellipse(*vertices[:3]))
    assert {value.dtype for value in model.parameters()} == {dtype}
    if dtype != torch.bfloat16:
        assert len(exports) == 1


def test_a_bfloat16_module_is_exported_once(exports):
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 1))).bfloat16()
    for path in three_paths(4):
        counts(model, path)
    assert len(exports) == 1


def test_flat_and_image_shaped_paths():
    image = normals(1, 3, 4, seed=5)
    model = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU6(), nn.Linear(5, 2), nn.ReLU()))
    expected = counts(model, paths.translation(image, flat=False))
    assert counts(model, paths.translation(image)) == expected
    network = MLP([normals(5, 12, seed=1), normals(4, 5, seed=2), normals(2, 4, seed=3)], "relu")
    assert counts(network, paths.translation(image, flat=False)) == counts(network, paths.translation(image))
    several = [
        paths.translation(image, flat=False),
        paths.Ellipse(*normals(3, 1, 3, 4)),
        paths.Polyline(normals(2, 1, 3, 4), closed=False),
    ]
    assert transitions(network, several).per_layer.tolist() == [counts(network, path) for path in several]


@pytest.mark.parametrize(("activation", "dtype"), [*((name, torch.float32) for name in ACTIVATIONS), ("relu", torch.float64)])
def test_the_weights_of_a_network_in_torch_modules(activation, dtype):
    weights = initial_weights(layer_shapes(4, 12, 5, 3), activation, 1.5, 2)
    network = MLP([weight.to(dtype) for weight in weights], activation)
    model, several = sequential(network), [*three_paths(4), *three_paths(4, seed=2)]
    found, expected = (transitions(one, several, positions=True) for one in (model, network))
    assert torch.equal(found.per_layer, expected.per_layer)
    for mine, theirs in zip(itertools.chain(*found.positions), itertools.chain(*expected.positions), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-9)
    assert found.names == ("1", "3", "5", "7")


def test_functions_and_methods_that_are_no_modules():
    model, several = seeded(Residual), three_paths(3)
    expected = transitions(model, several).per_layer
    assert torch.equal(transitions(lambda x: model(x), several).per_layer, expected)
    assert torch.equal(transitions(model.forward, several).per_layer, expected)
    assert counts(torch.relu, several[0]) == counts(nn.ReLU(), several[0])


def test_exported_and_traced_programs():
    model, path = seeded(Residual), three_paths(3)[0]
    batch = ({0: torch.export.Dim("batch")},)
    exported = torch.export.export(model, (torch.ones(2, 3),), dynamic_shapes=batch).module()
    assert counts(exported, path) == counts(torch.fx.symbolic_trace(model), path) == counts(model, path)


# --- the change of the Jacobian


def module_jacobians(model, path, t):
    twin = copy.deepcopy(model).double()
    return jacobians(lambda x: twin(x).flatten(1), doubled(path).points(t), "logits")


@pytest.mark.parametrize("name", ["residual", "convolution", "pooling", "narrow"])
def test_curvature_is_the_sum_of_the_changes_of_the_jacobian(name):
    """Whole Jacobians, by autograd, in the middle of each piece."""
    shape, build = {
        "residual": ((3,), Residual),
        "convolution": (
            (1, 3, 3),
            lambda: nn.Sequential(nn.Conv2d(1, 2, 2), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)),
        ),
        "pooling": (
            (1, 4, 4),
            lambda: nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.LeakyReLU(-0.5), nn.AdaptiveAvgPool2d(2), nn.Hardtanh()),
        ),
        "narrow": ((2,), lambda: nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU(), nn.Linear(1, 2, bias=False), nn.ReLU())),
    }[name]
    model = seeded(build)
    for path in three_paths(*shape):
        begins, stops, _ = pieces(path, transitions(model, path, positions=True).positions)
        J = module_jacobians(model, path, (begins + stops) / 2)
        change = J.diff(dim=0).flatten(1).norm(dim=1).sum()
        if path.closed:
            change = change + (J[0] - J[-1]).norm()
        torch.testing.assert_close(curvature(model, path), change / 2, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("activation", "width"), [("relu", 1), ("relu", 2), ("relu", 8), ("relu6", 1), ("hardtanh", 2)])
def test_curvature_of_a_network_in_torch_modules(activation, width):
    network = MLP(initial_weights(layer_shapes(3, width, 4, 2), activation, 1.5, width), activation)
    x, y, _ = vertices = normals(3, 3)
    several = [*three_paths(3), paths.Ellipse(y, x, y), paths.Polyline(torch.stack([x, -2 * x, y]))]
    assert len(vertices) == 3
    torch.testing.assert_close(curvature(sequential(network), several), curvature(network, several), rtol=1e-6, atol=1e-9)


def test_curvature_where_units_switch_at_the_beginning_of_a_loop():
    """Both units switch at 0 and pi, one as it leaves 0 and the other as it arrives there."""
    network = MLP([torch.tensor([[0.0, 1.0], [0.0, -1.0]]), torch.tensor([[1.0, 2.0], [3.0, -1.0]])], "relu")
    corners = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    for path in (paths.Ellipse(torch.zeros(2), *corners[:2]), paths.Polyline(corners)):
        expected = torch.tensor([[0.0, 3.0], [0.0, 2.0]]).norm().double()
        torch.testing.assert_close(curvature(network, path), expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(curvature(sequential(network), path), expected, rtol=1e-6, atol=0)


def test_curvature_where_units_are_on_their_boundaries_at_the_ends_of_a_line():
    """Both units are on their boundaries at both ends; between these there is one Jacobian."""
    network = MLP([torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, 2.0]])], "relu")
    path = line(0.0, 1.0, 0.0)
    assert float(curvature(network, path)) == 0.0
    assert float(curvature(sequential(network), path)) == 0.0


def test_curvature_of_a_model_with_one_number_for_each_point():
    model = Function(lambda x: x.amax(1))
    path = paths.Polyline(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), closed=False)
    assert float(curvature(model, path)) == pytest.approx(math.sqrt(2) / 2)


def test_the_profile_of_a_module_is_that_of_its_network():
    network = MLP(initial_weights(layer_shapes(4, 9, 4, 3), "relu", 1.5, 3), "relu")
    for path in three_paths(4):
        found, expected = (path_profile(model, path, bins=9) for model in (sequential(network), network))
        assert torch.equal(found.transition_density, expected.transition_density)
        torch.testing.assert_close(found.jacobian_norm, expected.jacobian_norm, rtol=1e-4, atol=1e-9)
        width = 2 * math.pi / 9
        assert float(found.transition_density.sum() * width) == pytest.approx(int(transitions(network, path).total))


# --- what is refused

# Name: the shape of the points, the model, what the error says.
REFUSED = {
    "GELU": ((3,), lambda: nn.Sequential(nn.Linear(3, 2), nn.GELU()), r"gelu at module '1' is not"),
    "GELU inside": ((3,), lambda: nn.Sequential(nn.Sequential(nn.GELU())), r"gelu at module '0\.0' is not"),
    "LayerNorm": ((3,), lambda: nn.Sequential(nn.LayerNorm(3), nn.ReLU()), r"layer_norm at module '0' is not"),
    "GroupNorm": ((4, 2), lambda: nn.Sequential(nn.GroupNorm(2, 4)), r"group_norm at module '0' is not"),
    "InstanceNorm": ((3, 4), lambda: nn.Sequential(nn.InstanceNorm1d(3)), r"instance_norm at module '0' is not"),
    "softmax": ((3,), lambda: nn.Sequential(nn.ReLU(), nn.Softmax(1)), r"softmax at module '1' is not"),
    "attention": (
        (3, 4),
        lambda: Function(lambda x, a: a(x, x, x)[0], nn.MultiheadAttention(4, 2, batch_first=True)),
        r"module 'parts\.0'",
    ),
    "a function of attention": (
        (3, 4),
        lambda: Function(lambda x: functional.scaled_dot_product_attention(x, x, x)),
        r"scaled_dot_product_attention at Function is not",
    ),
    "attention by hand": (
        (3, 4),
        lambda: Function(lambda x: (x @ x.mT).softmax(-1) @ x),
        r"matmul of two values .* at Function is not",
    ),
    "tanh": ((3,), lambda: nn.Sequential(nn.Tanh()), r"tanh at module '0' is not"),
    "sigmoid": ((3,), lambda: Function(torch.sigmoid), r"sigmoid at Function is not"),
    "SiLU": ((3,), lambda: nn.Sequential(nn.SiLU()), r"silu at module '0' is not"),
    "Hardswish": ((3,), lambda: nn.Sequential(nn.Hardswish()), r"hardswish at module '0' is not"),
    "ELU": ((3,), lambda: nn.Sequential(nn.ELU()), r"elu at module '0' is not"),
    "product": (
        (3,),
        lambda: Function(lambda x, a: x * a(x), nn.Linear(3, 3)),
        r"mul of two values that depend on the points at Function",
    ),
    "square": ((3,), lambda: Function(lambda x: x * x), r"mul of two values that depend on the points at Function is not"),
    "power": ((3,), lambda: Function(lambda x: x**2), r"pow at Function is not"),
    "gate": (
        (3, 2, 2),
        lambda: Function(lambda x, a: x * a(x.mean((2, 3))).relu()[..., None, None], nn.Linear(3, 3)),
        r"mul of two values",
    ),
    "division": (
        (3,),
        lambda: Function(lambda x, a: x / (a(x).relu() + 1), nn.Linear(3, 3)),
        r"div of two values .* at Function is not",
    ),
    "division by a branch": ((3,), lambda: Function(lambda x: 1 / (x.abs() + 1)), r"(div|reciprocal).* at Function is not"),
    "gated linear unit": ((4,), lambda: nn.Sequential(nn.GLU()), r"glu at module '0' is not"),
    "a jump": (
        (3,),
        lambda: nn.Sequential(nn.Threshold(0.1, 0.0)),
        r"threshold, which jumps from 0\.0 to 0\.1, at module '0' is not",
    ),
    "steps": ((3,), lambda: Function(torch.sign), r"sign at Function is not"),
    "a comparison": ((3,), lambda: Function(lambda x: x * (x > 0)), r"gt at Function is not"),
    "the place of the largest": (
        (3,),
        lambda: Function(lambda x: x + x.max(1, keepdim=True)[1]),
        r"the place of the winner of max at Function",
    ),
    "sorting": ((3,), lambda: Function(lambda x: x.sort(1)[0]), r"sort at Function is not"),
    "limits that are tensors": (
        (3,),
        lambda: Function(lambda x, w: x.clamp(min=w), constant=ONE),
        r"clamp with tensors as limits at Function",
    ),
    "limits without a range": (
        (3,),
        lambda: Function(lambda x: x.clamp(0.5, 0.5)),
        r"clamp between 0\.5 and 0\.5, an empty range, at Function",
    ),
    "a norm": ((3,), lambda: Function(lambda x: x / x.norm(dim=1, keepdim=True)), r"norm at Function is not"),
    "LSTM": (
        (3, 2),
        lambda: Function(lambda x, a: a(x)[0], nn.LSTM(2, 2, batch_first=True)),
        r"lstm at module 'parts\.0' is not",
    ),
    "square by einsum": (
        (3,),
        lambda: Function(lambda x: torch.einsum("ni,ni->ni", x, x)),
        r"einsum of two values .* at Function is not",
    ),
    "whole numbers": ((3,), lambda: Function(lambda x: (x + x.long()).relu()), r"at Function is not"),
    "chance": ((3,), lambda: Function(lambda x: (x + torch.rand(3)).relu()), r"rand at Function"),
    "mean over the points": (
        (3,),
        lambda: Function(lambda x: x - x.mean(0)),
        r"treat each point alone: mean at Function returns \[3\]",
    ),
    "largest of all points": (
        (3,),
        lambda: Function(lambda x: x - x.amax(0)),
        r"treat each point alone: amax at Function returns \[3\]",
    ),
    "flip over the points": ((3,), lambda: Function(lambda x: x.flip(0).relu()), r"treat each point alone"),
    "sum along the points": ((3,), lambda: Function(lambda x: x.cumsum(0).relu()), r"treat each point alone"),
    "a view that shares memory": (
        (4,),
        lambda: Function(lambda x, a: (lambda h: (h[:, :2].relu_(), h)[1])(a(x)), nn.Linear(4, 4)),
        r"slice_scatter at Function is not",
    ),
    "the first point": (
        (3,),
        lambda: Function(lambda x: x + x[:1]),
        r"treat each point alone: slice at Function returns \[1, 3\]",
    ),
    "the number of points": ((3,), lambda: Function(lambda x: x * x.shape[0]), r"treat each point alone"),
    "two outputs": ((3,), lambda: Function(lambda x: (x, x)), r"model must return a floating-point tensor; it returns tuple"),
    "outputs by name": (
        (3,),
        lambda: Function(lambda x: {"logits": x}),
        r"model must return a floating-point tensor; it returns dict",
    ),
    "no output": ((3,), lambda: Function(lambda x: None), r"model must return a floating-point tensor; it returns NoneType"),
    "whole outputs": ((3,), lambda: Function(lambda x: x.long()), r"model must return a floating-point tensor"),
    "a branch on the data": (
        (3,),
        lambda: Function(lambda x: x.relu() if x.sum() > 0 else x),
        r"cannot be read as a graph.*torch\.export says",
    ),
    "a script": ((3,), lambda: torch.jit.script(nn.ReLU()), r"cannot be read as a graph"),
    "no model": ((3,), lambda: nn.Linear(4, 2), r"model does not take torch\.float32 points \[\d, 3\]"),
    "images": ((3,), lambda: nn.Conv2d(2, 2, 1), r"model does not take torch\.float32 points \[\d, 3\]|points have no dimension"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_piecewise_linear_is_refused(name, refused):
    shape, build, message = REFUSED[name]
    with refused(message):
        transitions(seeded(build), three_paths(*shape)[0])


def test_curvature_and_profiles_refuse_the_same(refused):
    for call in (curvature, path_profile):
        with refused(r"gelu at module '1' is not"):
            call(nn.Sequential(nn.Linear(3, 2), nn.GELU()), three_paths(3)[0])


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(3), nn.Sequential(nn.Linear(3, 3), nn.Dropout())], ids=["normalisation", "dropout"]
)
def test_training_mode_is_refused(norm, refused):
    with refused("must be in evaluation mode.*training mode"):
        transitions(nn.Sequential(norm, nn.ReLU()).train(), three_paths(3)[0])
    with refused("must be in evaluation mode"):
        transitions(nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False), nn.ReLU()).eval(), three_paths(3)[0])
    with refused("must be in evaluation mode"):
        transitions(Function(lambda x: functional.dropout(x).relu()), three_paths(3)[0])


def test_paths_of_other_shapes_are_refused(refused):
    model = nn.ReLU()
    with refused(r"paths must be of points of one shape; got \[3\], \[4\]"):
        transitions(model, [three_paths(4)[0], three_paths(3)[0]])
    with refused("path must be a Polyline, an Ellipse, or a list of them"):
        transitions(model, [])
    with refused(r"model must be an MLP, an MLPStack, a module or another callable; got int"):
        transitions(3, three_paths(4)[0])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(value, refused):
    for place in (0, 2):
        model = seeded(lambda: nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
        model[place].weight.data[0, 0] = value
        with refused("finite"):
            transitions(model, three_paths(3)[0])


def test_numbers_that_overflow_float64_are_refused(refused):
    model = seeded(lambda: nn.Sequential(*[layer for _ in range(5) for layer in (nn.Linear(3, 3), nn.ReLU())])).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1e100)
    with refused("finite"):
        transitions(model, three_paths(3)[0])


@pytest.mark.parametrize("kind", [lambda network: network, sequential], ids=["network", "modules"])
def test_weights_too_large_for_float64_to_tell_boundaries_apart(kind, refused):
    weights = initial_weights(layer_shapes(3, 4, 3, 2), "hardtanh", 1.0, 1)
    with refused(r"weights are too large: (at|pre-activations).*(layer 1|at 1).*; scale the weights down"):
        transitions(kind(MLP([1e18 * weight for weight in weights], "hardtanh")), three_paths(3)[0])
    for seed in range(8):
        network = MLP([1e8 * weight for weight in initial_weights(layer_shapes(3, 4, 3, 2), "hardtanh", 1.0, seed)], "hardtanh")
        path = paths.Polyline(normals(4, 3, seed=seed), closed=False)
        assert counts(kind(network), path) == rational_transitions(network.weights, "hardtanh", path.vertices)
