"""The state that a network ends in, fitted, unfitted or diverged, and what one that diverges does to the others: nothing."""

import dataclasses

import pytest
import torch
from reference import accuracy, forward

from sensitometer.configuration import OPTIMIZERS, Configuration
from sensitometer.data import Dataset, Points
from sensitometer.training import Schedule, train_stack
from sensitometer.training.active_networks import EPOCHS_BETWEEN_CHECKS
from sensitometer.training.full_batch import Objective

RATES = {"sgd": 0.1, "momentum": 0.02, "adam": 0.01, "rmsprop": 0.01, "lbfgs": None}
MINIBATCH = [optimizer for optimizer in OPTIMIZERS if optimizer != "lbfgs"]
STEPS_PER_EPOCH = 4
every_optimizer = pytest.mark.parametrize("optimizer", OPTIMIZERS)


def configuration(optimizer, **changes):
    c = Configuration("toy", 16, 3, optimizer=optimizer, learning_rate=RATES[optimizer] or 1.0, batch_size=10, steps=90)
    return dataclasses.replace(c, **changes)


def diverging(optimizer, **changes):
    """A network that diverges; by L-BFGS, whose line search accepts no loss that is not finite, one that begins so."""
    return configuration(optimizer, **({"init_scale": 1e30} if optimizer == "lbfgs" else {"learning_rate": 1e30}), **changes)


@every_optimizer
@pytest.mark.parametrize("loss", ["cross-entropy", "l2"])
def test_a_network_that_has_every_training_point_right_is_fitted(toy, optimizer, loss):
    rate = RATES[optimizer] and RATES[optimizer] / 10
    c = configuration(optimizer, width=60, steps=3000, loss=loss, learning_rate=rate)
    (one,) = train_stack([c], toy, schedule=Schedule(stop_at_accuracy=1.0))
    assert (one.state, one.train_accuracy) == ("fitted", 1.0)
    assert accuracy(forward(one.network.weights, "relu", toy.train.x), toy.train.y) == 1


@every_optimizer
def test_a_network_that_has_not_is_unfitted(toy, optimizer):
    (one,) = train_stack([configuration(optimizer, steps=2, width=4)], toy)
    assert one.state == "unfitted"
    assert accuracy(forward(one.network.weights, "relu", toy.train.x), toy.train.y) == one.train_accuracy < 1


@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize("loss", ["cross-entropy", "l2"])
def test_a_network_whose_weights_are_no_numbers_any_more_is_diverged(toy, optimizer, loss):
    (one,) = train_stack([diverging(optimizer, loss=loss)], toy)
    assert one.state == "diverged"
    assert not all(weight.isfinite().all() for weight in one.network.weights)


@every_optimizer
@pytest.mark.parametrize("steps", [0, 5])
def test_a_network_that_begins_with_infinite_weights_is_diverged(toy, optimizer, steps):
    (one,) = train_stack([configuration(optimizer, init_scale=1e39, steps=steps)], toy)
    assert one.state == "diverged"
    assert not one.network.weights[0].isfinite().all()


@every_optimizer
@pytest.mark.parametrize("loss", ["cross-entropy", "l2"])
def test_a_network_with_finite_weights_and_no_finite_loss_is_diverged(toy, optimizer, loss):
    (one,) = train_stack([configuration(optimizer, init_scale=1e30, steps=0, loss=loss)], toy)
    assert all(weight.isfinite().all() for weight in one.network.weights)
    assert (one.state, one.steps_done) == ("diverged", 0)


def test_lbfgs_leaves_weights_alone_whose_loss_is_not_finite(toy):
    (one,) = train_stack([diverging("lbfgs")], toy)
    (before,) = train_stack([diverging("lbfgs", steps=0)], toy)
    assert (one.state, one.steps_done) == ("diverged", 0)
    assert all(torch.equal(a, b) for a, b in zip(one.network.weights, before.network.weights, strict=True))


@pytest.mark.parametrize(("part", "steps"), [("test", 0), ("test", 3), ("train", 0)])
def test_a_loss_that_is_infinite_on_one_of_the_sets_is_enough(toy, part, steps):
    x = getattr(toy, part).x.clone()
    x[-1] = 3e38
    parts = {"train": toy.train, "test": toy.test, part: Points(x, getattr(toy, part).y)}
    (one,) = train_stack([configuration("sgd", steps=steps)], Dataset("toy", **parts, classes=3, shape=(1, 2, 3)))
    assert all(weight.isfinite().all() for weight in one.network.weights)
    assert one.state == "diverged"


def neighbours(optimizer):
    """Networks of which one shares its seed with the one that diverges, in the middle of them, and one does not."""
    c = configuration(optimizer, steps=6 if optimizer == "lbfgs" else 62)
    return [c, dataclasses.replace(c, init_scale=0.7), dataclasses.replace(c, seed=2)]


@every_optimizer
@pytest.mark.parametrize("augmentation", ["none", "shift-flip"])
def test_a_network_that_diverges_leaves_soon_and_does_no_harm(toy, optimizer, augmentation):
    first, *others = (dataclasses.replace(c, augmentation=augmentation) for c in neighbours(optimizer))
    bad = diverging(optimizer, augmentation=augmentation, steps=first.steps)
    expected = train_stack([first, *others], toy)
    one, gone, *rest = train_stack([first, bad, *others], toy)
    assert gone.state == "diverged"
    assert gone.steps_done == (0 if optimizer == "lbfgs" else EPOCHS_BETWEEN_CHECKS * STEPS_PER_EPOCH)
    assert gone.seconds < one.seconds
    for mine, theirs in zip([one, *rest], expected, strict=True):
        assert (mine.state, mine.steps_done) == (theirs.state, theirs.steps_done)
        assert mine.state != "diverged"
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
        for a, b in zip(mine.network.weights, theirs.network.weights, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * float(b.abs().max()))


def test_lbfgs_evaluates_a_network_that_diverged_no_more(toy, monkeypatch):
    sizes, call = [], Objective.__call__

    def counted(self, points, labels, moves):
        sizes.append(len(points))
        return call(self, points, labels, moves)

    monkeypatch.setattr(Objective, "__call__", counted)
    train_stack([*neighbours("lbfgs"), diverging("lbfgs", steps=6)], toy)
    assert sizes[0] == 4
    assert set(sizes[1:]) <= {1, 2, 3}


@pytest.mark.parametrize("optimizer", MINIBATCH)
def test_a_network_that_diverges_after_the_last_look_is_diverged(toy, optimizer):
    steps = EPOCHS_BETWEEN_CHECKS * STEPS_PER_EPOCH
    for last in (steps - 1, steps, 3):
        (one,) = train_stack([diverging(optimizer, steps=last)], toy)
        assert (one.state, one.steps_done) == ("diverged", last)


@every_optimizer
def test_a_stack_in_which_all_diverge_ends(toy, optimizer):
    networks = train_stack([diverging(optimizer, seed=seed) for seed in (1, 2, 1)], toy)
    assert [one.state for one in networks] == ["diverged"] * 3
    assert len({one.steps_done for one in networks}) == 1
