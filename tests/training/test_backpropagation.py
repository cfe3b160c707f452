"""The hand-written step against autograd, both in float64, so that they agree to rounding."""

import pytest
import torch
from reference import ACTIVATIONS, MEAN_LOSSES, MINIBATCH, gradients, train

from sensitometer.configuration import Configuration
from sensitometer.networks import layer_shapes
from sensitometer.training.backpropagation import TrainingStack

INPUTS, CLASSES, POINTS, BATCH = 5, 3, 30, 6
RATES = (0.05, 0.2, 0.01, 0.1, 0.3, 0.07)
# How many networks each seed has, seeds that share minibatches side by side: alone, equal groups, unequal groups.
GROUPS = {
    "all seeds differ": (1, 1, 1, 1, 1, 1),
    "one seed": (6,),
    "pairs": (2, 2, 2),
    "unequal": (1, 2, 3),
    "mixed": (1, 1, 2, 2),
}


class Case:
    """A stack of networks with random weights in float64, and random points, minibatches and labels."""

    def __init__(self, activation, depth, optimizer, groups=(1, 2, 3), width=4, classes=CLASSES, loss="cross-entropy"):
        self.stream = torch.Generator().manual_seed(depth)
        seeds = [seed for seed, count in enumerate(groups) for _ in range(count)]
        self.configurations = [
            Configuration(
                *("toy", width, depth, activation),
                optimizer=optimizer,
                learning_rate=rate,
                batch_size=BATCH,
                loss=loss,
                seed=seed,
            )
            for rate, seed in zip(RATES, seeds, strict=False)
        ]
        shapes = layer_shapes(INPUTS, width, depth, classes)
        self.start = [self.normal(len(seeds), *shape) / shape[1] ** 0.5 * 1.3 for shape in shapes]
        rates = torch.tensor([c.learning_rate for c in self.configurations], dtype=torch.float64)
        self.stack = TrainingStack(self.start, rates, self.configurations)
        self.x = self.normal(POINTS, INPUTS)
        self.y = torch.randint(classes, (len(seeds), POINTS), generator=self.stream)
        self.batches = []

    def normal(self, *shape):
        return torch.randn(shape, generator=self.stream, dtype=torch.float64)

    def step(self):
        batch = {seed: torch.randperm(POINTS, generator=self.stream)[:BATCH] for seed in self.stack.seeds}
        self.batches.append(batch)
        staying = [self.y[i][batch[c.seed]] for i, c in self.numbered()]
        index = torch.cat([batch[seed] for seed in self.stack.seeds])
        self.stack.optimizer.prepare()
        self.stack.step(self.x, index, torch.stack(staying).unsqueeze(1))

    def numbered(self):
        return list(enumerate(self.configurations))

    def twin(self, i, rates=None):
        """The weights of network `i` after the steps done."""
        c = self.configurations[i]
        weights = [layer[i] for layer in self.start]
        batches = [batch[c.seed] for batch in self.batches]
        return train(weights, c.activation, self.x, self.y[i], batches, rates or [RATES[i]] * len(batches), c.optimizer, c.loss)


def assert_close(found, expected, rtol=1e-9):
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("loss", MEAN_LOSSES)
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
@pytest.mark.parametrize("depth", [2, 3, 4, 5])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_first_step_takes_autograds_gradient(activation, depth, optimizer, loss):
    case = Case(activation, depth, optimizer, width=12, loss=loss)
    case.step()
    for i, c in case.numbered():
        batch = case.batches[0][c.seed]
        start = [layer[i] for layer in case.start]
        expected = gradients(start, activation, case.x[batch], case.y[i][batch], loss)
        found = [(before - layer[i]) / RATES[i] for before, layer in zip(start, case.stack.weights, strict=True)]
        assert_close(found, expected)
        assert all(g.abs().max() > 1e-6 for g in expected)


@pytest.mark.parametrize("loss", MEAN_LOSSES)
@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize("groups", GROUPS.values(), ids=GROUPS)
def test_steps_are_the_twins_whoever_shares_minibatches(groups, optimizer, loss):
    case = Case("relu", 3, optimizer, groups, loss=loss)
    for _ in range(5):
        case.step()
    for i, _ in case.numbered():
        assert_close([layer[i] for layer in case.stack.weights], case.twin(i))


@pytest.mark.parametrize(("width", "classes"), [(1, 3), (9, 2), (4, 1), (4, 12)])
def test_layers_of_any_width(width, classes):
    case = Case("relu6", 4, "momentum", width=width, classes=classes)
    for _ in range(3):
        case.step()
    for i, _ in case.numbered():
        assert_close([layer[i] for layer in case.stack.weights], case.twin(i))


@pytest.mark.parametrize("optimizer", MINIBATCH)
def test_decay_takes_effect_on_the_next_step_and_leaves_the_velocity(optimizer):
    case = Case("tanh", 3, optimizer)
    for step in range(6):
        if step in (2, 5):
            case.stack.decay(0.1)
        case.step()
    for i, _ in case.numbered():
        rates = [RATES[i] * factor for factor in (1, 1, 0.1, 0.1, 0.1, 0.01)]
        assert_close([layer[i] for layer in case.stack.weights], case.twin(i, rates))


@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize("staying", [(0, 1, 3, 4, 5), (1, 2), (5,), (0, 4)])
def test_networks_that_stay_go_on_as_if_the_others_had_never_been(staying, optimizer):
    case = Case("hardtanh", 4, optimizer)
    for _ in range(3):
        case.step()
    case.stack.decay(0.5)
    left = [layer.clone() for layer in case.stack.weights]
    old = case.stack
    case.stack = old.select(torch.tensor(staying), [case.configurations[i] for i in staying])
    assert case.stack.optimizer.steps == 3
    case.numbered = lambda: [(i, case.configurations[i]) for i in staying]
    for _ in range(3):
        case.step()
    for place, i in enumerate(staying):
        # The twin needs this network's minibatches only, which those who left do not change.
        rates = [RATES[i]] * 3 + [RATES[i] / 2] * 3
        assert_close([layer[place] for layer in case.stack.weights], case.twin(i, rates))
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(old.weights, left, strict=True))


def test_weights_that_come_in_are_left_alone():
    case = Case("relu", 3, "sgd")
    before = [layer.clone() for layer in case.start]
    case.step()
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(case.start, before, strict=True))


@pytest.mark.parametrize("loss", MEAN_LOSSES)
@pytest.mark.parametrize("optimizer", MINIBATCH)
def test_a_network_of_nan_does_not_spread(optimizer, loss):
    case, sound = (Case("relu", 3, optimizer, (3, 3), loss=loss) for _ in range(2))
    case.stack.weights[0][1].fill_(torch.nan)
    for _ in range(3):
        case.step()
        sound.step()
    for mine, theirs in zip(case.stack.weights, sound.stack.weights, strict=True):
        assert mine[1].isnan().any()
        others = [0, 2, 3, 4, 5]
        torch.testing.assert_close(mine[others], theirs[others], rtol=1e-12, atol=1e-14)
