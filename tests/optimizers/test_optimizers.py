"""One suite for every optimizer, driven as the engine drives them."""

import inspect

import pytest
import torch

from sensitometer.configuration import OPTIMIZERS
from sensitometer.optimizers import SGD, Momentum, Optimizer, optimizer_class

SHAPES = ((3, 4, 5), (3, 2, 4))
RATES = (0.1, 0.02, 0.5)
BATCH = 8


def slow_sgd(w, gradients, rates):
    for g, rate in zip(gradients, rates, strict=True):
        w = w - rate * g
    return w


def slow_momentum(w, gradients, rates):
    v = torch.zeros_like(w)
    for g, rate in zip(gradients, rates, strict=True):
        v = 0.9 * v + g
        w = w - rate * v
    return w


TWINS = {"sgd": slow_sgd, "momentum": slow_momentum}


class Driver:
    """Holds the weights of a stack and does what the engine does with a gradient."""

    def __init__(self, name, seed=0):
        self.stream = torch.Generator().manual_seed(seed)
        self.flat = torch.randn(sum(torch.Size(shape).numel() for shape in SHAPES), generator=self.stream, dtype=torch.float64)
        parts = self.flat.split([torch.Size(shape).numel() for shape in SHAPES])
        self.layers = [part.view(shape) for part, shape in zip(parts, SHAPES, strict=True)]
        self.start = [layer.clone() for layer in self.layers]
        self.optimizer = optimizer_class(name)(self.flat, self.layers, torch.tensor(RATES, dtype=torch.float64))

    def gradients(self):
        return [torch.randn(shape, generator=self.stream, dtype=torch.float64) for shape in SHAPES]

    def step(self, gradients):
        self.optimizer.prepare()
        scale = self.optimizer.delta_scale(BATCH)
        assert scale.shape == (3, 1, 1)
        for into, g in zip(self.optimizer.into, gradients, strict=True):
            # The error signals' product is the sum over the minibatch, BATCH times the mean gradient.
            into.mul_(self.optimizer.beta).add_(scale * BATCH * g, alpha=self.optimizer.alpha)
        self.optimizer.step()


@pytest.fixture(params=OPTIMIZERS)
def name(request):
    return request.param


@pytest.mark.parametrize("decays", [(), (3,), (1, 2, 4)])
def test_steps_are_the_twins_each_network_with_its_own_rate(name, decays):
    driver, gradients, factors = Driver(name), [], []
    factor = 1.0
    for step in range(6):
        if step in decays:
            driver.optimizer.decay(0.1)
            factor *= 0.1
        factors.append(factor)
        gradients.append(driver.gradients())
        driver.step(gradients[-1])
    for layer, (found, start) in enumerate(zip(driver.layers, driver.start, strict=True)):
        for network, rate in enumerate(RATES):
            own = [g[layer][network] for g in gradients]
            expected = TWINS[name](start[network], own, [rate * factor for factor in factors])
            torch.testing.assert_close(found[network], expected, rtol=1e-12, atol=1e-14)


def test_state_carries_a_network_to_another_stack(name):
    whole, alone = Driver(name), Driver(name)
    for _ in range(3):
        whole.step(whole.gradients())
    for mine, theirs in zip(alone.layers, whole.layers, strict=True):
        mine.copy_(theirs)
    for mine, theirs in zip(alone.optimizer.state(), whole.optimizer.state(), strict=True):
        assert theirs.shape[0] == len(RATES)
        mine.copy_(theirs)
    gradients = whole.gradients()
    whole.step(gradients)
    alone.step(gradients)
    assert torch.equal(alone.flat, whole.flat)


def test_sgd_has_no_state_and_momentum_its_velocity():
    assert Driver("sgd").optimizer.state() == []
    assert [tuple(state.shape) for state in Driver("momentum").optimizer.state()] == list(SHAPES)


def test_what_the_products_go_into_is_shaped_as_the_layers(name):
    assert [tuple(into.shape) for into in Driver(name).optimizer.into] == list(SHAPES)


def test_names():
    assert optimizer_class("sgd") is SGD
    assert optimizer_class("momentum") is Momentum
    assert set(TWINS) <= set(OPTIMIZERS)


def test_every_optimizer_is_concrete_and_documented(name):
    found = optimizer_class(name)
    assert issubclass(found, Optimizer)
    assert not inspect.isabstract(found)
    assert inspect.isabstract(Optimizer)


@pytest.mark.parametrize("name", ["Momentum", "", "lion", None])
def test_unknown_name_is_refused(refused, name):
    with refused("optimizer must be one of sgd, momentum.*; got"):
        optimizer_class(name)
