"""Any model that users bring along: its Jacobian norms against a plain loop in float64, or refused with the cure."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from any_models import MODELS, REFUSED, Bert, Case, scripted, seeded
from reference import softmax_jacobian
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import sensitometer as sm
from sensitometer.measures import jacobian_norm, jacobian_norm_estimate, point_values
from sensitometer.models.adapting import unwrapped
from sensitometer.networks import MLP

N = 5
# Tracing and scripting are deprecated, but users have such files.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")


def points_of(case):
    return 1.5 * torch.randn(N, *case.shape, generator=torch.Generator().manual_seed(4))


def inputs_of(case, dtype):
    """Further inputs of the points, in the type of a model."""
    given = case.inputs(N) if case.inputs else None
    as_type = lambda value: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value  # noqa: E731
    if isinstance(given, dict):
        return {name: as_type(value) for name, value in given.items()}
    return given and [as_type(value) for value in given]


def outputs_of(model, case, x, rows, inputs):
    """The outputs `[n, ...]` at points, called as its author would call it."""
    row = lambda value: value[rows] if isinstance(value, torch.Tensor) else value  # noqa: E731
    names = {name: row(value) for name, value in inputs.items()} if isinstance(inputs, dict) else {}
    places = [row(value) for value in inputs] if isinstance(inputs, list) else []
    if isinstance(model, Bert):
        return case.pick(model(inputs_embeds=x, **names))
    return case.pick(model(x, *places, **names))


def twin_norms(model, case, x, *, scale=1.0, target=None):
    """A point and an output at a time, by autograd in float64; a softmax's Jacobian from its logits' (reference.py)."""
    inputs, norms = inputs_of(case, torch.float64), []
    for place in range(N):
        point = x[place : place + 1].double().requires_grad_()
        f = scale * outputs_of(model, case, point.clone(), slice(place, place + 1), inputs)[0].flatten()
        gradients = [torch.autograd.grad(output, point, retain_graph=True, allow_unused=True)[0] for output in f]
        J = torch.stack([torch.zeros_like(point) if row is None else row for row in gradients]).flatten(1)
        if case.of == "probabilities":
            J = softmax_jacobian(f.detach()) @ J
        if case.of == "sigmoid":
            J = J * (f.sigmoid() * (-f).sigmoid()).detach().unsqueeze(1)
        norms.append(math.hypot(*(J if target is None else J[target[place]]).flatten().tolist()))
    return torch.tensor(norms, dtype=torch.float64)


def double(case, model):
    """A float64 twin, which is not wrapped, compiled or scripted."""
    if case.twin:
        return seeded(case.twin).double()
    return copy.deepcopy(model).double() if isinstance(model, nn.Module) else model


def assert_norms(found, expected, rtol):
    assert not found.requires_grad
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("name", MODELS)
def test_norms_are_those_of_a_plain_loop(name):
    case = MODELS[name]
    model, x = seeded(case.build), points_of(case)
    twin, given = double(case, model), {"of": case.of, "output": case.output}
    expected = twin_norms(twin, case, x)
    assert (expected > 1e-4).all(), "a test of nothing"
    before = x.clone()
    assert_norms(jacobian_norm(model, x, inputs=inputs_of(case, torch.float32), **given), expected, 2e-5)
    assert torch.equal(x, before)
    if case.of in ("probabilities", "logits"):
        target = torch.arange(N) % 2
        found = jacobian_norm(model, x, target=target, inputs=inputs_of(case, torch.float32), chunk_size=2, **given)
        assert_norms(found, twin_norms(twin, case, x, target=target), 2e-5)
    if isinstance(model, nn.Module):
        assert all(parameter.grad is None for parameter in model.parameters())
        exact = jacobian_norm(model.double(), x.double(), inputs=inputs_of(case, torch.float64), **given)
        assert_norms(exact, expected, 1e-9)


@pytest.mark.parametrize("name", [name for name, case in MODELS.items() if case.of in ("probabilities", "sigmoid")])
def test_saturated_points_keep_their_digits(name):
    case = MODELS[name]
    model, x = seeded(case.build), points_of(case)
    twin = double(case, model)
    with torch.no_grad():
        f = outputs_of(twin, case, x.double(), slice(None), inputs_of(case, torch.float64))
    top = f.sort(1).values if case.of == "probabilities" else f.abs()
    gaps = top[:, -1] - top[:, -2] if case.of == "probabilities" else top.amin(1)
    scale = float(30 / gaps.max())
    expected = twin_norms(twin, case, x, scale=scale)
    assert 1e-16 < expected.min() < 1e-10
    model = unwrapped(model)

    def sharp(x, **inputs):
        given = [inputs.pop(str(place)) for place in range(len(inputs)) if str(place) in inputs]
        answer = model(inputs_embeds=x, **inputs) if isinstance(model, Bert) else model(x, *given, **inputs)
        return scale * case.pick(answer)

    for dtype, rtol in ((torch.float32, 2e-5), (torch.float64, 1e-9)):
        if dtype == torch.float64:
            if not isinstance(model, nn.Module) or "exported" in name:
                continue
            model = model.double()
        inputs = inputs_of(case, dtype)
        inputs = {str(place): value for place, value in enumerate(inputs)} if isinstance(inputs, list) else inputs
        found = jacobian_norm(sharp, x.to(dtype), of=case.of, inputs=inputs)
        assert_norms(found, expected, rtol)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", ["biases", "convolutional", "ViT", "language model", "TorchScript, scripted", "compiled"])
def test_half_precision_is_measured_in_a_float32_copy(name, dtype):
    case = MODELS[name]
    model, x = seeded(case.build).to(dtype), points_of(case).to(dtype)
    twin = copy.deepcopy(unwrapped(model)).double() if case.twin is None else seeded(case.twin).to(dtype).double()
    expected, said = twin_norms(twin, case, x), f"measured in a float32 copy of the {str(dtype).removeprefix('torch.')} model"
    for points in (x, x.float()):
        with pytest.warns(UserWarning, match=said):
            found = jacobian_norm(model, points, of=case.of)
        assert found.dtype == torch.float32
        assert_norms(found, expected, 2e-5)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")  # of reentrant checkpoints
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_wrong_is_refused_with_the_cure(name, refused):
    build, shape, expected, *given = REFUSED[name]
    model, x = seeded(build, evaluate=False), torch.randn(5, *shape, generator=torch.Generator().manual_seed(4))
    with refused(expected):
        jacobian_norm(model, x, **(given[0] if given else {}))


# --- states that a model, its points and torch are in


def mlp_and_points():
    return seeded(MODELS["biases"].build), points_of(MODELS["biases"])


def test_autocast_around_the_call_does_not_matter():
    model, x = mlp_and_points()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(jacobian_norm(model, x), jacobian_norm(model, x))
        found = jacobian_norm(model, x)
    assert torch.equal(found, jacobian_norm(model, x))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_modes_of_torch_do_not_matter(mode):
    model, x = mlp_and_points()
    expected = jacobian_norm(model, x)
    with mode():
        for points in (x, x.clone(), x.clone().requires_grad_()):
            found = jacobian_norm(model, points)
            assert torch.equal(found, expected)
            assert not found.requires_grad
            assert points.grad is None


@pytest.mark.parametrize("requires", [True, False])
def test_parameters_keep_their_state(requires):
    model, x = mlp_and_points()
    model.requires_grad_(requires).train()
    model[0].weight.grad = kept = torch.ones_like(model[0].weight)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    jacobian_norm(model, x)
    assert model[0].weight.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))
    assert all(parameter.grad is None for name, parameter in model.named_parameters() if name != "0.weight")
    assert {parameter.requires_grad for parameter in model.parameters()} == {requires}
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_refused_model_keeps_its_buffers_and_random_numbers(refused):
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)).train()
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    with refused("call model.eval"):
        jacobian_norm(scripted(lambda: model), mlp_and_points()[1], of="outputs")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with refused("call model.eval"):
        jacobian_norm(lambda x: x + torch.rand_like(x), mlp_and_points()[1], of="outputs")
    assert torch.equal(torch.get_rng_state(), state)


def test_networks_with_hooks_or_another_forward_are_refused(refused):
    class Shifted(MLP):
        def forward(self, x):
            return super().forward(x) + x[:, :3] ** 2

    network, x = MLP([torch.ones(4, 6), torch.ones(3, 4)], "relu"), mlp_and_points()[1]
    other = Shifted(network.weights, "relu")
    with refused("model is a Shifted with a forward of its own.*: lambda x: model"):
        jacobian_norm(other, x)
    case = Case(lambda: None)
    assert_norms(jacobian_norm(lambda x: other(x), x), twin_norms(lambda x: other.double()(x), case, x), 2e-5)
    handle = network.register_forward_hook(lambda module, given, outputs: 2 * outputs)
    with refused("model has hooks"):
        jacobian_norm(network, x)
    handle.remove()
    assert jacobian_norm(network, x).shape == (N,)


def test_hooks_of_any_other_model_are_part_of_it():
    model, x = mlp_and_points()
    model[2].register_forward_hook(lambda module, given, outputs: 3 * outputs)
    assert_norms(jacobian_norm(model, x), twin_norms(copy.deepcopy(model).double(), MODELS["biases"], x), 2e-5)


def test_far_smaller_rows_keep_their_digits():
    """A target whose probability is 1e-40 of the second largest."""
    layer = nn.Linear(6, 3)
    x = mlp_and_points()[1]
    shift = torch.tensor([100.0, 80.0, -40.0])
    expected = twin_norms(lambda x: layer.double()(x) + shift.double(), Case(None), x, target=[2] * N)
    assert (expected < 1e-55).all()
    exact = layer.double()
    found = jacobian_norm(lambda x: exact(x) + shift.double(), x.double(), target=torch.full((N,), 2))
    assert_norms(found, expected, 1e-9)


# --- gradients of norms


def norm_of(model, x, of="probabilities"):
    """The mean norm by `torch.func` in float64, whose gradients are those of a plain formula."""
    g = {"probabilities": lambda f: f.softmax(-1), "outputs": lambda f: f, "sigmoid": torch.sigmoid}[of]
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no second derivative
        J = torch.func.vmap(torch.func.jacrev(lambda point: g(model(point.unsqueeze(0))[0].flatten())))(x)
    return J.flatten(1).square().sum(1).sqrt().mean()


@pytest.mark.parametrize(
    ("name", "of"),
    [
        *(("GELU", of) for of in ("probabilities", "outputs", "sigmoid")),
        *((name, "probabilities") for name in ("biases", "convolutional", "ViT", "weight normalisation", "checkpoints")),
    ],
)
def test_gradients_by_the_parameters_are_those_of_the_formula(name, of):
    case = MODELS[name]
    model, x = seeded(case.build).double(), points_of(case).double()
    twin = double(case, model)
    jacobian_norm(model, x, of=of, create_graph=True, chunk_size=2).mean().backward()
    norm_of(twin, x, of).backward()
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        expected = torch.zeros_like(theirs) if theirs.grad is None else theirs.grad
        found = torch.zeros_like(ours) if ours.grad is None else ours.grad
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    """A network of this package, and the gradient by the points, too."""
    weights = [torch.randn(shape, generator=torch.Generator().manual_seed(1)).double() for shape in ((7, 6), (3, 7))]
    network, x = MLP([nn.Parameter(weight) for weight in weights], "tanh"), points_of(MODELS["biases"]).double().requires_grad_()
    of_network = lambda first, x: jacobian_norm(MLP([first, weights[1]], "tanh"), x)  # noqa: E731
    with torch.no_grad():
        norm = jacobian_norm(network, x, create_graph=True)
    torch.testing.assert_close(norm.detach(), jacobian_norm(lambda x: network(x), x), rtol=1e-12, atol=0)
    torch.testing.assert_close(norm.detach(), of_network(weights[0], x), rtol=1e-12, atol=0)
    by_weight, by_points = torch.autograd.grad(norm.sum(), [network.weights[0], x])
    direction = torch.randn(7, 6, generator=torch.Generator().manual_seed(2)).double()
    step = 1e-6
    moved = of_network(weights[0] + step * direction, x).sum() - of_network(weights[0] - step * direction, x).sum()
    torch.testing.assert_close((by_weight * direction).sum(), moved / (2 * step), rtol=1e-7, atol=0)
    moved = of_network(weights[0], x.detach() + step) - of_network(weights[0], x.detach() - step)
    torch.testing.assert_close(by_points.sum(1), moved / (2 * step), rtol=1e-6, atol=1e-9)


def test_gradients_at_points_of_norm_0_are_0():
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    nn.init.constant_(model[0].bias, -100.0)
    norm = jacobian_norm(model, points_of(MODELS["biases"]), create_graph=True)
    assert norm.tolist() == [0.0] * N
    norm.sum().backward()
    assert all(parameter.grad is None or parameter.grad.eq(0).all() for parameter in model.parameters())


def test_a_regulariser_makes_a_network_less_sensitive():
    def trained(penalty):
        torch.manual_seed(3)
        model, x = nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4)), points_of(MODELS["biases"])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
        for _ in range(20):
            loss = nn.functional.cross_entropy(model(x), torch.arange(N) % 4)
            loss = loss + penalty * jacobian_norm(model, x, create_graph=True).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return float(jacobian_norm(model, x).mean())

    assert trained(1.0) < 0.9 * trained(0.0)


def test_gradients_of_a_copy_are_refused(refused):
    model, x = mlp_and_points()
    with pytest.warns(UserWarning, match="float32 copy"), refused("create_graph needs a model that is measured as it is"):
        jacobian_norm(model.half(), x, create_graph=True)


# --- the estimate


@pytest.mark.parametrize("name", ["100 classes", "segmentation", "language model", "an operation of NumPy"])
def test_estimates_of_any_model_are_near_their_norms(name):
    case = MODELS[name]
    model, x = seeded(case.build), points_of(case)
    found = jacobian_norm_estimate(model, x, of=case.of, projections=40, generator=torch.Generator().manual_seed(1))
    exact = jacobian_norm(model, x, of=case.of)
    assert found.projections == (40 if name in ("100 classes", "segmentation") else 0)
    assert ((found.norm - exact).abs() <= 4 * found.standard_error + 1e-6 * exact).all()
    assert (found.standard_error < 0.2 * exact).all()


# --- memory

MEMORY = """
import torch
from pathlib import Path
from torch import nn
from sensitometer.measures import jacobian_norm

def memory(name):
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[name].split()[0]) / 1024

torch.set_num_threads(1)
layers = nn.Conv2d(3, 8, 16, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(4)
model, x = nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 1000)).eval(), torch.randn(1, 3, 224, 224)
model(x)
before = memory("VmRSS")
norm = jacobian_norm(model, x)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc says how much memory a process has had")
def test_memory_does_not_grow_with_the_classes():
    """1,000 rows of 150,528 numbers are 574 MiB."""
    finished = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(finished.stdout) < 300


# --- a real network

WEIGHTS = Path(__file__).parents[3] / "shared" / "models" / "resnet20-cifar10.safetensors"
DATA = Path(os.environ.get("SENSITOMETER_DATA", WEIGHTS.parent))


@pytest.mark.real_data
def test_a_real_network_s_norms_are_those_of_a_plain_loop(monkeypatch):
    """ResNet-20 with its trained weights, at test images of CIFAR10, confident ones among them."""
    if not WEIGHTS.exists() or not (DATA / "cifar10").exists():
        pytest.skip(f"{WEIGHTS} and $SENSITOMETER_DATA/cifar10 are not here")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "benchmarks")
    from resnet20 import resnet20, test_images

    model, x = resnet20(WEIGHTS), test_images(DATA, N)
    case, twin = Case(lambda: None), copy.deepcopy(model).double()
    expected = twin_norms(twin, case, x)
    assert expected.min() < 1e-3
    assert_norms(jacobian_norm(model, x), expected, 2e-5)
    assert_norms(jacobian_norm(twin, x.double()), expected, 1e-9)


def masked(function, mask=-1e4):
    """Give a model one more class, whose logit is far from the others."""
    return lambda x: torch.cat([function(x), torch.full((len(x), 1), mask)], 1)


def test_a_mask_or_an_offset_hides_no_dependence(refused):
    torch.manual_seed(0)
    x, linear = torch.randn(20, 8), nn.Linear(8, 3)
    batch = nn.Sequential(linear, nn.BatchNorm1d(3, track_running_stats=False)).eval()
    for mask in (-1e4, -1e9):
        with refused("model must treat each point alone"):
            jacobian_norm(masked(batch, mask), x)
        with refused("model must treat each point alone"):
            jacobian_norm(masked(lambda x: linear(x - x.mean(0)), mask), x)
        with refused("model must not depend on chance"):
            jacobian_norm(masked(lambda x: linear(x) + 0.3 * torch.from_numpy(np.random.randn(len(x), 3)).float(), mask), x)
        torch.testing.assert_close(jacobian_norm(masked(linear, mask), x), jacobian_norm(linear, x))
    with refused("model must treat each point alone"):
        jacobian_norm(lambda x: batch(x) + 2000, x, of="outputs")


def test_the_softmax_at_the_end_of_a_model_is_left_out_of_the_passes():
    torch.manual_seed(0)
    logits = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 10))
    with torch.no_grad():
        logits[2].weight *= 60
    x = torch.randn(300, 8)
    expected = jacobian_norm(logits, x)
    found = jacobian_norm(nn.Sequential(logits, nn.Softmax(1)), x, of="outputs")
    some = expected > 1e-12
    assert some.sum() > 250
    # The softmax of float32 would be off by a third at some of these points.
    torch.testing.assert_close(found[some], expected[some], rtol=2e-5, atol=0)
    y = torch.arange(300) % 10
    values = point_values(nn.Sequential(logits, nn.Softmax(1)), x, y, of="outputs")
    assert values.cross_entropy.isfinite().all()
    assert torch.equal(values.predicted, logits(x).argmax(1))


@pytest.mark.parametrize(
    ("model", "of", "expected"),
    [
        (lambda x: x[:, :3].sigmoid()[:, 0], "sigmoid", "of='sigmoid' needs logits, but the model ends in a sigmoid already"),
        (lambda x: x[:, :3].sigmoid(), "probabilities", "of='probabilities' needs logits, but the model ends in a sigmoid"),
        (lambda x: x[:, :3].softmax(1), "logits", "of='logits' needs logits, but the model ends in a softmax already"),
    ],
)
def test_what_would_be_taken_twice_is_refused(refused, model, of, expected):
    with refused(expected):
        jacobian_norm(model, torch.randn(9, 8), of=of)


def test_images_without_a_channel_are_given_one():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3))
    images = torch.rand(20, 8, 8)
    with_channel = sm.measure(network, sm.Dataset.from_arrays(images[:, None]))
    assert sm.measure(network, sm.Dataset.from_arrays(images)).values.jacobian_norm.equal(with_channel.values.jacobian_norm)


def test_a_frozen_script_is_measured():
    linear = nn.Linear(8, 3)
    frozen = torch.jit.freeze(torch.jit.script(linear.eval()))
    x = torch.randn(5, 8)
    torch.testing.assert_close(jacobian_norm(frozen, x), jacobian_norm(linear, x))
