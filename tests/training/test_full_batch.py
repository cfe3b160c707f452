"""Training by L-BFGS: the objective against autograd, whole trainings against the float64 twin and against the same alone."""

import dataclasses
import math

import pytest
import torch
from reference import ACTIVATIONS, LOSSES, MEAN_LOSSES, accuracy, forward, gradients, lbfgs, moved_images, searched

from sensitometer.configuration import Configuration
from sensitometer.data import load_dataset
from sensitometer.networks import initial_weights, layer_shapes
from sensitometer.optimizers import LBFGS, views
from sensitometer.optimizers.line_search import strong_wolfe
from sensitometer.randomness import generator
from sensitometer.training import Schedule, full_batch, train_stack
from sensitometer.training.active_networks import EPOCHS_BETWEEN_CHECKS, training_labels
from sensitometer.training.augmentation import Augmentation
from sensitometer.training.full_batch import Objective

SMALL = Configuration("toy", 8, 3, "tanh", optimizer="lbfgs", steps=14)


def several(*changes):
    return [dataclasses.replace(SMALL, **change) for change in changes]


def initial(c):
    return initial_weights(layer_shapes(6, c.width, c.depth, 3), c.activation, c.init_scale, c.seed)


# --- the objective


class Problem:
    """Networks with weights in float64, points that are images of 2 x 3 x 3, labels of each network's own."""

    shape = (2, 3, 3)

    def __init__(self, points, activation="relu", loss="cross-entropy", networks=3, augmentation=None, depth=3):
        self.stream = torch.Generator().manual_seed(points)
        self.c = Configuration("toy", 5, depth, activation, optimizer="lbfgs", loss=loss)
        shapes = layer_shapes(18, 5, depth, 4)
        self.layers = [self.normal(networks, *shape) / shape[1] ** 0.5 * 1.5 for shape in shapes]
        self.x = self.normal(points, 18)
        self.y = torch.randint(4, (networks, points), generator=self.stream)
        self.name = augmentation
        self.augmentation = augmentation and Augmentation(augmentation, self.shape, torch.device("cpu"))
        self.moves = None
        if augmentation:
            self.moves = torch.stack([self.augmentation.draw(points, self.stream) for _ in range(networks)])

    def normal(self, *shape):
        return torch.randn(shape, generator=self.stream, dtype=torch.float64)

    def flat(self):
        return torch.cat([layer.flatten(1) for layer in self.layers], 1)

    def expected(self, i):
        weights = [layer[i] for layer in self.layers]
        x = self.x
        if self.moves is not None:
            x = moved_images(x, self.shape, self.name, self.moves[i])
        value = MEAN_LOSSES[self.c.loss](forward(weights, self.c.activation, x), self.y[i])
        found = gradients(weights, self.c.activation, x, self.y[i], self.c.loss)
        return float(value), torch.cat([g.flatten() for g in found])

    def check(self, objective):
        values, found = objective(self.flat(), self.y, self.moves)
        assert values.dtype == torch.float64
        assert found.shape == self.flat().shape
        for i in range(len(values)):
            value, gradient = self.expected(i)
            assert float(values[i]) == pytest.approx(value, rel=1e-9)
            torch.testing.assert_close(found[i], gradient, rtol=1e-9, atol=1e-14)
            assert gradient.abs().max() > 1e-4

    def objective(self):
        shapes = [layer.shape[1:] for layer in self.layers]
        return Objective(self.c, len(self.layers[0]), shapes, self.x, self.augmentation)


SMALL_CHUNK = 256


@pytest.fixture
def small_chunks(monkeypatch):
    """Chunks as small as they come."""
    monkeypatch.setattr(full_batch, "CHUNK", 1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("augmentation", [None, "shift-flip", "shift-flip-rotate"])
@pytest.mark.usefixtures("small_chunks")
def test_loss_and_gradient_are_autograds(activation, loss, augmentation):
    problem = Problem(300, activation, loss, augmentation=augmentation)
    objective = problem.objective()
    assert len(objective.chunks) == 2
    problem.check(objective)


@pytest.mark.parametrize("points", [1, 2, 255, 256, 257, 511, 512, 513, 700])
@pytest.mark.parametrize("augmentation", [None, "shift-flip"])
@pytest.mark.usefixtures("small_chunks")
def test_chunks_need_not_divide_the_points(points, augmentation):
    problem = Problem(points, augmentation=augmentation)
    objective = problem.objective()
    assert len(objective.chunks) == math.ceil(points / SMALL_CHUNK)
    problem.check(objective)


@pytest.mark.parametrize(("networks", "depth"), [(1, 2), (1, 5), (7, 3)])
def test_objective_of_any_shape(networks, depth):
    problem = Problem(150, networks=networks, depth=depth, loss="l2")
    problem.check(problem.objective())


@pytest.mark.usefixtures("small_chunks")
def test_objective_remembers_nothing():
    problem = Problem(300, augmentation="shift-flip")
    objective = problem.objective()
    problem.check(objective)
    for layer in problem.layers:
        layer.add_(0.1)
    problem.y = problem.y.roll(1, 0)
    problem.moves = problem.moves.roll(1, 1)
    problem.check(objective)


@pytest.mark.usefixtures("small_chunks")
def test_loss_that_is_nan_does_not_spread():
    problem, sound = Problem(300), Problem(300)
    problem.layers[0][1, 0, 0] = math.nan
    values, found = problem.objective()(problem.flat(), problem.y, None)
    expected_values, expected = sound.objective()(sound.flat(), sound.y, None)
    assert values.isnan().tolist() == [False, True, False]
    assert values[[0, 2]].tolist() == pytest.approx(expected_values[[0, 2]].tolist(), rel=1e-12)
    torch.testing.assert_close(found[[0, 2]], expected[[0, 2]], rtol=1e-12, atol=1e-15)


# --- whole trainings against the twin


def twin(c, toy):
    """The weights that one network must end with, from its configuration alone; and how many iterations that takes."""
    weights = initial(c)
    sizes, shapes = [w.numel() for w in weights], [w.shape for w in weights]
    x, y = toy.train.x, training_labels(toy.train.y, 3, c.labels, c.seed)
    renewed = c.augmentation != "none"
    stream = generator(c.seed, "augmentation")
    images = []

    def function(point, iteration):
        while len(images) <= iteration:
            images.append(moved_images(x, toy.image_shape, c.augmentation, drawn()) if renewed else x)
        parts = torch.tensor(point, dtype=torch.float64).split(sizes)
        layers = [part.view(shape) for part, shape in zip(parts, shapes, strict=True)]
        value = MEAN_LOSSES[c.loss](forward(layers, c.activation, images[iteration]), y)
        found = gradients(layers, c.activation, images[iteration], y, c.loss)
        return float(value), torch.cat([g.flatten() for g in found]).tolist()

    def drawn():
        return torch.randint(2 * 81, (len(x),), generator=stream)

    def search(along, *beginning):
        return searched(strong_wolfe(*beginning), along)

    start = torch.cat([w.flatten() for w in weights]).tolist()
    path = lbfgs(function, start, c.steps, search, renewed=renewed)
    parts = torch.tensor([start, *path][-1], dtype=torch.float64).split(sizes)
    return [part.view(shape) for part, shape in zip(parts, shapes, strict=True)], len(path)


def assert_same_weights(network, expected, rtol=1e-3):
    for mine, theirs in zip(network.weights, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=rtol, atol=rtol * float(theirs.abs().max()))


@pytest.mark.parametrize("augmentation", ["none", "shift-flip"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_weights_after_14_iterations_are_the_twins(toy, activation, loss, augmentation):
    shared = {"activation": activation, "loss": loss, "augmentation": augmentation}
    configurations = several(
        *[{**shared, **rest} for rest in ({"seed": 2}, {"seed": 1, "labels": "random"}, {"seed": 2, "init_scale": 0.7})]
    )
    for trained, c in zip(train_stack(configurations, toy), configurations, strict=True):
        expected, done = twin(c, toy)
        assert trained.steps_done == done == 14, "more than a history holds"
        assert_same_weights(trained.network, expected)
        assert (trained.configuration, trained.network.activation) == (c, activation)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_iterations_are_as_many_as_the_configuration_says(toy, activation, steps):
    (c,) = several({"activation": activation, "steps": steps})
    (trained,) = train_stack([c], toy)
    assert trained.steps_done == steps
    assert_same_weights(trained.network, twin(c, toy)[0])


def test_no_steps_leave_the_initial_network(toy):
    configurations = several({"steps": 0, "seed": 4}, {"steps": 0, "init_scale": 2.0})
    for trained, c in zip(train_stack(configurations, toy), configurations, strict=True):
        assert (trained.steps_done, trained.state) == (0, "unfitted")
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(trained.network.weights, initial(c), strict=True))


def test_no_steps_take_no_evaluation(toy, monkeypatch):
    def evaluate(*_):
        raise AssertionError("a pass over the training set for nothing")

    monkeypatch.setattr(Objective, "__call__", evaluate)
    assert train_stack(several({"steps": 0}), toy)[0].steps_done == 0


def test_digits_are_fitted():
    digits = load_dataset("digits")
    configurations = [
        Configuration("digits", 30, 3, optimizer="lbfgs", seed=1),
        Configuration("digits", 30, 3, optimizer="lbfgs", seed=2),
    ]
    for trained in train_stack(configurations, digits):
        assert (trained.state, trained.train_accuracy) == ("fitted", 1.0)
        assert trained.test_accuracy > 0.9
        assert trained.train_loss < 1e-3
        assert trained.steps_done < 200
        logits = forward(trained.network.weights, "relu", digits.train.x)
        assert accuracy(logits, digits.train.y) == 1.0


def test_a_minimum_ends_the_training(toy):
    (c,) = several({"depth": 2, "width": 4, "labels": "random", "steps": 10_000, "activation": "tanh"})
    assert c.steps == 2684
    (trained,) = train_stack([c], toy)
    assert 10 < trained.steps_done < 2684
    y = training_labels(toy.train.y, 3, "random", 1)
    before = MEAN_LOSSES["cross-entropy"](forward(initial(c), "tanh", toy.train.x), y)
    largest, at_first = (
        max(float(g.abs().max()) for g in gradients(weights, "tanh", toy.train.x, y))
        for weights in (trained.network.weights, initial(c))
    )
    assert trained.train_loss < 0.8 * float(before)
    # The last bit of a float32 loss near 1, 6e-8, hides gradients of the size of its root.
    assert largest < 1e-2 * at_first


# --- stacked against single

MIXED = (
    {"seed": 3},
    {"seed": 1, "init_scale": 2.0},
    {"seed": 3, "labels": "random"},
    {"seed": 2},
    {"seed": 1},
    {"seed": 7, "init_scale": 0.5},
)


def mixed(**shared):
    return several(*[{**shared, **one} for one in MIXED])


def alone(configurations, toy, **options):
    return [train_stack([c], toy, **options)[0] for c in configurations]


def assert_same_results(stacked, single, rtol=1e-3):
    for mine, theirs in zip(stacked, single, strict=True):
        assert mine.configuration == theirs.configuration
        assert (mine.state, mine.steps_done) == (theirs.state, theirs.steps_done)
        assert (mine.train_accuracy, mine.test_accuracy) == (theirs.train_accuracy, theirs.test_accuracy)
        assert_same_weights(mine.network, theirs.network.weights, rtol)
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=0.05)


@pytest.mark.parametrize("augmentation", ["none", "shift-flip"])
@pytest.mark.parametrize("loss", LOSSES)
def test_networks_do_not_see_what_else_is_in_their_stack(toy, loss, augmentation):
    configurations = mixed(loss=loss, augmentation=augmentation, steps=12)
    stacked = train_stack(configurations, toy)
    assert_same_results(stacked, alone(configurations, toy))
    assert_same_results(list(reversed(train_stack(configurations[::-1], toy))), stacked)


@pytest.mark.parametrize(
    ("shared", "stop"),
    [
        ({"activation": "relu"}, 1.0),
        ({"activation": "relu", "augmentation": "shift-flip"}, 0.8),
        ({"loss": "l2", "augmentation": "shift-flip"}, 0.72),
    ],
)
def test_networks_that_retire_early_leave_the_others_as_they_were(toy, shared, stop):
    configurations = mixed(**shared, steps=25)
    schedule = Schedule(stop_at_accuracy=stop)
    stacked = train_stack(configurations, toy, schedule=schedule)
    done = [trained.steps_done for trained in stacked]
    assert len(set(done)) >= 3, "networks must leave at different times for this to test anything"
    assert max(done) == 25
    assert_same_results(stacked, alone(configurations, toy, schedule=schedule))
    last = done.index(25)
    assert_same_weights(stacked[last].network, twin(configurations[last], toy)[0])


def test_networks_that_end_by_themselves_leave_the_others_as_they_were(toy):
    configurations = mixed(activation="relu", steps=25)
    stacked = train_stack(configurations, toy)
    done = [trained.steps_done for trained in stacked]
    assert len(set(done)) >= 3
    assert max(done) == 25
    for trained, single in zip(stacked, alone(configurations, toy), strict=True):
        # Which decrease is small enough to be the last may be a matter of rounding.
        assert abs(trained.steps_done - single.steps_done) <= 1
        assert_same_weights(trained.network, single.network.weights, rtol=1e-2)
    last = done.index(25)
    assert_same_weights(stacked[last].network, twin(configurations[last], toy)[0])


def test_a_network_stops_at_the_first_check_that_finds_the_accuracy(toy):
    (c,) = several({"labels": "random", "width": 20, "steps": 100})
    (trained,) = train_stack([c], toy, schedule=Schedule(stop_at_accuracy=0.8))
    # The same, by hand: a round is one evaluation, and it looks at every fifth.
    y = training_labels(toy.train.y, 3, "random", 1)
    layers = [weight.unsqueeze(0) for weight in initial(c)]
    shapes = [layer.shape[1:] for layer in layers]
    objective = Objective(c, 1, shapes, toy.train.x, None)
    optimizer = LBFGS(torch.cat([layer.flatten(1) for layer in layers], 1), 100)

    def reached():
        weights = [part[0] for part in views(optimizer.points, shapes)]
        return accuracy(forward(weights, "tanh", toy.train.x), y) >= 0.8

    rounds = 0
    while rounds == 0 or rounds % EPOCHS_BETWEEN_CHECKS or not reached():
        optimizer.tell(*objective(optimizer.trials, y.unsqueeze(0), None))
        rounds += 1
    assert trained.steps_done == optimizer.done[0]
    assert 5 < trained.steps_done < 100
    assert 0.8 <= trained.train_accuracy < 1
    assert trained.state == "unfitted"


def test_a_network_that_diverges_does_no_harm(toy):
    configurations = several(
        *[{"activation": "relu", **one} for one in ({"seed": 1}, {"seed": 1, "init_scale": 1e30}, {"seed": 2})]
    )
    stacked = train_stack(configurations, toy)
    assert [trained.state == "diverged" for trained in stacked] == [False, True, False]
    assert stacked[1].steps_done == 0
    assert_same_results(stacked[::2], alone(configurations[::2], toy))


def test_large_initial_weights_are_no_hindrance(toy):
    # The squares of these gradients are beyond float32.
    (c,) = several({"activation": "relu", "depth": 5, "init_scale": 3e5, "steps": 20})
    before = MEAN_LOSSES["cross-entropy"](forward(initial(c), "relu", toy.train.x), toy.train.y)
    assert max(float(g.abs().max()) for g in gradients(initial(c), "relu", toy.train.x, toy.train.y)) > 1e20
    (trained,) = train_stack([c], toy)
    assert trained.steps_done > 0
    assert trained.train_loss < 0.9 * float(before)
    assert trained.state == "unfitted"


def test_training_again_gives_the_same_bits(toy):
    for augmentation in ("none", "shift-flip"):
        first, second = (train_stack(mixed(augmentation=augmentation), toy) for _ in range(2))
        for mine, theirs in zip(first, second, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine.network.weights, theirs.network.weights, strict=True))


def test_data_are_left_alone(toy):
    before = [tensor.clone() for points in (toy.train, toy.test) for tensor in (points.x, points.y)]
    train_stack(mixed(augmentation="shift-flip"), toy)
    after = [tensor for points in (toy.train, toy.test) for tensor in (points.x, points.y)]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(after, before, strict=True))


def test_a_minibatch_size_is_neither_needed_nor_looked_at(toy):
    assert several({"batch_size": 10**6})[0].batch_size is None
    (trained,) = train_stack(several({"batch_size": 10**6, "learning_rate": 1e30}), toy)
    (same,) = train_stack(several({}), toy)
    assert all(torch.equal(a, b) for a, b in zip(trained.network.weights, same.network.weights, strict=True))
