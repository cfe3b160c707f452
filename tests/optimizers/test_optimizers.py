"""One suite for every optimizer that takes minibatches, driven as the engine drives them."""

import inspect
import math

import pytest
import torch
from reference import MINIBATCH

from sensitometer.configuration import OPTIMIZERS
from sensitometer.optimizers import MINIBATCH_OPTIMIZERS, Optimizer

SHAPES = ((3, 4, 5), (3, 2, 4))
RATES = (0.1, 0.02, 0.5)
BATCH = 8


class Driver:
    """Holds the weights of a stack and does what the engine does with a gradient."""

    def __init__(self, name, seed=0):
        self.stream = torch.Generator().manual_seed(seed)
        self.flat = torch.randn(sum(torch.Size(shape).numel() for shape in SHAPES), generator=self.stream, dtype=torch.float64)
        parts = self.flat.split([torch.Size(shape).numel() for shape in SHAPES])
        self.layers = [part.view(shape) for part, shape in zip(parts, SHAPES, strict=True)]
        self.start = [layer.clone() for layer in self.layers]
        self.optimizer = MINIBATCH_OPTIMIZERS[name](self.flat, self.layers, torch.tensor(RATES, dtype=torch.float64))

    def gradients(self):
        # Gradients of different sizes, as those of layers are; and some are 0, as those of dead units are.
        normal = [torch.randn(shape, generator=self.stream, dtype=torch.float64) for shape in SHAPES]
        return [size * g * (g.abs() > 0.1) for size, g in zip((1e-3, 10.0), normal, strict=True)]

    def step(self, gradients):
        self.optimizer.prepare()
        scale = self.optimizer.delta_scale(BATCH)
        assert scale.shape == (3, 1, 1)
        for into, g in zip(self.optimizer.into, gradients, strict=True):
            # The error signals' product is the sum over the minibatch, BATCH times the mean gradient.
            into.mul_(self.optimizer.beta).add_(scale * BATCH * g, alpha=self.optimizer.alpha)
        self.optimizer.step()


@pytest.fixture(params=MINIBATCH)
def name(request):
    return request.param


@pytest.mark.parametrize("decays", [(), (3,), (1, 2, 40)])
def test_50_steps_are_the_twins_each_network_with_its_own_rate(name, decays):
    driver, gradients, factors = Driver(name), [], []
    factor = 1.0
    for step in range(50):
        if step in decays:
            driver.optimizer.decay(0.1)
            factor *= 0.1
        factors.append(factor)
        gradients.append(driver.gradients())
        driver.step(gradients[-1])
    assert driver.optimizer.steps == 50
    for layer, (found, start) in enumerate(zip(driver.layers, driver.start, strict=True)):
        for network, rate in enumerate(RATES):
            expected, memory = start[network], None
            for step, factor in enumerate(factors):
                g = gradients[step][layer][network]
                expected, memory = MINIBATCH[name](expected, g, rate * factor, step + 1, memory)
            torch.testing.assert_close(found[network], expected, rtol=1e-11, atol=1e-13)
            assert not torch.equal(expected, start[network])


@pytest.mark.parametrize("steps", [1, 3, 60])
def test_state_carries_a_network_to_another_stack(name, steps):
    whole, alone = Driver(name), Driver(name)
    for _ in range(steps):
        whole.step(whole.gradients())
    alone.flat.copy_(whole.flat)
    for mine, theirs in zip(alone.optimizer.state(), whole.optimizer.state(), strict=True):
        assert theirs.shape[0] == len(RATES)
        mine.copy_(theirs)
    alone.optimizer.steps = whole.optimizer.steps
    for _ in range(2):
        gradients = whole.gradients()
        whole.step(gradients)
        alone.step(gradients)
    assert torch.equal(alone.flat, whole.flat)


def test_adam_goes_on_otherwise_without_its_count_of_steps():
    whole, alone = Driver("adam"), Driver("adam")
    for _ in range(3):
        whole.step(whole.gradients())
    alone.flat.copy_(whole.flat)
    for mine, theirs in zip(alone.optimizer.state(), whole.optimizer.state(), strict=True):
        mine.copy_(theirs)
    gradients = whole.gradients()
    whole.step(gradients)
    alone.step(gradients)
    assert not torch.allclose(alone.flat, whole.flat)


@pytest.mark.parametrize(("name", "buffers"), [("sgd", 0), ("momentum", 1), ("adam", 2), ("rmsprop", 1)])
def test_state_is_so_many_buffers_of_the_weights(name, buffers):
    assert [tuple(one.shape) for one in Driver(name).optimizer.state()] == list(SHAPES) * buffers


def test_mean_square_of_rmsprop_is_1_at_first_and_all_other_state_0(name):
    for state in Driver(name).optimizer.state():
        assert (state == (1 if name == "rmsprop" else 0)).all()


def test_what_the_products_go_into_is_shaped_as_the_layers(name):
    assert [tuple(into.shape) for into in Driver(name).optimizer.into] == list(SHAPES)


def test_names():
    assert list(MINIBATCH_OPTIMIZERS) == list(MINIBATCH)
    # Only L-BFGS takes no minibatches.
    assert {*MINIBATCH, "lbfgs"} == set(OPTIMIZERS)


def test_every_optimizer_is_concrete_and_documented(name):
    found = MINIBATCH_OPTIMIZERS[name]
    assert issubclass(found, Optimizer)
    assert not inspect.isabstract(found)
    assert inspect.isabstract(Optimizer)
    assert found.__doc__


# --- against torch.optim: where it agrees with TensorFlow 1, and where it does not

SIZES = (1.0, -0.5, 2.0, 0.25, -1.5, 3.0, 0.1, 0.2)


def ours(name, gradients):
    """The path of one weight from 0, at a learning rate of 0.01."""
    flat = torch.zeros(1, dtype=torch.float64)
    optimizer = MINIBATCH_OPTIMIZERS[name](flat, [flat.view(1, 1, 1)], torch.tensor([0.01], dtype=torch.float64))
    path = []
    for g in gradients:
        optimizer.prepare()
        optimizer.into[0].mul_(optimizer.beta).add_(g * optimizer.delta_scale(1), alpha=optimizer.alpha)
        optimizer.step()
        path.append(float(flat))
    return path


def torchs(build, gradients, **options):
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = build([weight], lr=0.01, **options)
    path = []
    for g in gradients:
        weight.grad = torch.full((1,), g, dtype=torch.float64)
        optimizer.step()
        path.append(float(weight.detach()))
    return path


def test_sgd_and_momentum_are_torchs():
    assert ours("sgd", SIZES) == pytest.approx(torchs(torch.optim.SGD, SIZES), rel=1e-12)
    assert ours("momentum", SIZES) == pytest.approx(torchs(torch.optim.SGD, SIZES, momentum=0.9), rel=1e-12)


def test_adam_is_torchs_where_epsilon_is_small_beside_the_gradients():
    assert ours("adam", SIZES) == pytest.approx(torchs(torch.optim.Adam, SIZES), rel=1e-6)


def test_epsilon_of_adam_weighs_32_times_as_much_in_the_first_step():
    (mine,), (theirs,) = ours("adam", [1e-8]), torchs(torch.optim.Adam, [1e-8])
    assert theirs == pytest.approx(-0.01 / 2, rel=1e-9)  # g / (|g| + 1e-8)
    assert mine == pytest.approx(-0.01 / (1 + 31.6228), rel=1e-6)  # g / (|g| + 1e-8 / sqrt(1 - 0.999))
    (alike,) = torchs(torch.optim.Adam, [1e-8], eps=1e-8 / math.sqrt(0.001))
    assert mine == pytest.approx(alike, rel=1e-9)


def test_first_steps_of_rmsprop_are_short_where_torchs_are_long():
    mine, theirs = ours("rmsprop", [1e-3] * 3), torchs(torch.optim.RMSprop, [1e-3] * 3)
    # The mean square is all but 0.9^t: the steps are a little more than the rate times g. Torch's first is rate / sqrt(1 - 0.99).
    assert mine[0] == pytest.approx(-1e-5 / math.sqrt(0.9), rel=1e-6)
    assert mine[2] - mine[1] == pytest.approx(-1e-5 / math.sqrt(0.9**3), rel=1e-6)
    assert theirs[0] == pytest.approx(-0.1, rel=1e-3)


def test_rmsprop_is_torchs_with_its_three_differences_undone(monkeypatch):
    # Torch makes its state with zeros_like; the weight is the only thing of this shape.
    monkeypatch.setattr(torch, "zeros_like", torch.ones_like)
    theirs = torchs(torch.optim.RMSprop, SIZES, alpha=0.9, eps=0.0)
    monkeypatch.undo()
    assert ours("rmsprop", SIZES) == pytest.approx(theirs, rel=1e-8)


def test_epsilon_of_rmsprop_is_inside_the_root():
    # After many gradients of 0 the mean square is below epsilon, and the step of a small gradient is rate g / sqrt(epsilon).
    *_, still, end = ours("rmsprop", [0.0] * 400 + [1e-7])
    assert still == 0
    assert end == pytest.approx(-0.01 * 1e-7 / math.sqrt(1e-10 + 1e-15), rel=1e-6)
