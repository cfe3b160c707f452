"""Whole trainings: against the float64 twin fed with the same minibatches, and stacked networks against the same alone."""

import dataclasses
import math
import time

import pytest
import torch
from reference import ACTIVATIONS, LOSSES, MINIBATCH, accuracy, forward, learning_rates, minibatches, train

from sensitometer.configuration import Configuration
from sensitometer.networks import initial_weights, layer_shapes
from sensitometer.randomness import generator
from sensitometer.training import Schedule, train_stack
from sensitometer.training.active_networks import EPOCHS_BETWEEN_CHECKS, training_labels

SMALL = Configuration("toy", 8, 3, learning_rate=0.1, optimizer="sgd", batch_size=10, steps=50)
STEPS_PER_EPOCH = 4  # 46 training points, 6 of them unused in each epoch


def several(*changes):
    return [dataclasses.replace(SMALL, **change) for change in changes]


def initial(c):
    shapes = layer_shapes(6, c.width, c.depth, 3)
    return initial_weights(shapes, c.activation, c.init_scale, c.seed)


def twin(c, toy, decay_every=None, steps=None):
    """The weights that one network must end with, from its configuration alone."""
    steps = c.steps if steps is None else steps
    y = training_labels(toy.train.y, toy.classes, c.labels, c.seed)
    batches = minibatches(generator(c.seed, "order"), len(y), c.batch_size, steps)
    rates = learning_rates(c.learning_rate, steps, len(y) // c.batch_size, decay_every)
    return train(initial(c), c.activation, toy.train.x, y, batches, rates, c.optimizer, c.loss)


def assert_same_weights(network, expected, rtol=1e-4):
    for mine, theirs in zip(network.weights, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=rtol, atol=rtol * float(theirs.abs().max()))


# --- against the twin


RATES = {"sgd": 0.1, "momentum": 0.01, "adam": 0.01, "rmsprop": 0.02}


@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize(
    ("activation", "loss"), [*((name, "cross-entropy") for name in ACTIVATIONS), ("relu", "l2"), ("tanh", "l2")]
)
def test_weights_after_50_steps_are_the_twins(toy, activation, optimizer, loss):
    rate = RATES[optimizer] * (1 if loss == "cross-entropy" else 0.3)
    configurations = several(
        *[
            {"activation": activation, "optimizer": optimizer, "loss": loss, "learning_rate": rate * factor, **rest}
            for factor, rest in (
                (1, {"seed": 2}),
                (0.3, {"seed": 2, "init_scale": 0.7}),
                (1, {"seed": 1, "init_scale": 1.2, "labels": "random"}),
            )
        ]
    )
    for trained, c in zip(train_stack(configurations, toy), configurations, strict=True):
        assert_same_weights(trained.network, twin(c, toy))
        assert (trained.configuration, trained.network.activation, trained.steps_done) == (c, activation, 50)


@pytest.mark.parametrize("optimizer", MINIBATCH)
@pytest.mark.parametrize("decay_every", [1, 2, 3])
# One step before the first boundary, at it, one and two after it, and across the second one.
@pytest.mark.parametrize("offset", [-1, 0, 1, 2, STEPS_PER_EPOCH + 1])
def test_learning_rate_decays_every_so_many_epochs(toy, optimizer, decay_every, offset):
    steps = decay_every * STEPS_PER_EPOCH + offset
    (c,) = several({"optimizer": optimizer, "steps": steps, "activation": "tanh", "learning_rate": RATES[optimizer]})
    (trained,) = train_stack([c], toy, schedule=Schedule(decay_every_epochs=decay_every))
    assert_same_weights(trained.network, twin(c, toy, decay_every), rtol=2e-5)


def test_learning_rate_decays_every_500_epochs_unless_told_otherwise(toy):
    assert Schedule() == Schedule(decay_every_epochs=500, stop_at_accuracy=None)
    # One minibatch an epoch, so that 500 epochs are 500 steps.
    (c,) = several({"batch_size": 46, "steps": 504, "activation": "tanh", "learning_rate": 0.01, "labels": "random"})
    (by_default,) = train_stack([c], toy)
    (constant,) = train_stack([c], toy, schedule=Schedule(decay_every_epochs=None))
    (before,) = train_stack([dataclasses.replace(c, steps=500)], toy)
    (still,) = train_stack([dataclasses.replace(c, steps=500)], toy, schedule=Schedule(decay_every_epochs=None))
    assert torch.equal(before.network.weights[0], still.network.weights[0])
    moved, would_have = (
        sum(float((mine - theirs).norm()) for mine, theirs in zip(one.network.weights, before.network.weights, strict=True))
        for one in (by_default, constant)
    )
    assert moved == pytest.approx(would_have / 10, rel=0.05)


@pytest.mark.parametrize("steps", [1, 3, 4, 5, 19, 20, 21])
def test_steps_need_not_fill_the_last_epoch(toy, steps):
    (c,) = several({"steps": steps})
    (trained,) = train_stack([c], toy)
    assert trained.steps_done == steps
    assert_same_weights(trained.network, twin(c, toy), rtol=1e-5)


def test_one_minibatch_may_be_the_whole_training_set(toy):
    (c,) = several({"batch_size": 46, "steps": 5})
    (trained,) = train_stack([c], toy)
    assert_same_weights(trained.network, twin(c, toy), rtol=1e-5)


def test_no_steps_leave_the_initial_network(toy):
    configurations = several({"steps": 0, "seed": 4}, {"steps": 0, "init_scale": 2.0})
    for trained, c in zip(train_stack(configurations, toy), configurations, strict=True):
        assert (trained.steps_done, trained.state) == (0, "unfitted")
        assert trained.seconds < 1
        assert all(torch.equal(mine, theirs) for mine, theirs in zip(trained.network.weights, initial(c), strict=True))


@pytest.mark.parametrize("loss", LOSSES)
def test_fit_is_measured_on_the_whole_sets(toy, loss):
    configurations = several(*[{"steps": 9, "loss": loss, **rest} for rest in ({}, {"seed": 2, "labels": "random"})])
    for trained, c in zip(train_stack(configurations, toy), configurations, strict=True):
        labels = training_labels(toy.train.y, 3, c.labels, c.seed)
        on_train, on_test = (forward(trained.network.weights, "relu", points.x) for points in (toy.train, toy.test))
        assert trained.train_accuracy == accuracy(on_train, labels)
        assert trained.test_accuracy == accuracy(on_test, toy.test.y)
        assert trained.train_loss == pytest.approx(LOSSES[loss](on_train, labels), rel=1e-5)
        assert trained.test_loss == pytest.approx(LOSSES[loss](on_test, toy.test.y), rel=1e-5)


# --- stacked against single

MIXED = several(
    {"seed": 3, "learning_rate": 0.05},
    {"seed": 1, "init_scale": 2.0},
    {"seed": 3, "init_scale": 0.5, "labels": "random"},
    {"seed": 2, "labels": "random", "learning_rate": 0.2},
    {"seed": 1, "learning_rate": 0.01},
    {"seed": 7},
    {"seed": 3},
)


def alone(configurations, toy, **options):
    return [train_stack([c], toy, **options)[0] for c in configurations]


def assert_same_results(stacked, single, rtol=1e-4):
    for mine, theirs in zip(stacked, single, strict=True):
        assert mine.configuration == theirs.configuration
        assert (mine.state, mine.steps_done) == (theirs.state, theirs.steps_done)
        assert (mine.train_accuracy, mine.test_accuracy) == (theirs.train_accuracy, theirs.test_accuracy)
        assert_same_weights(mine.network, theirs.network.weights, rtol)
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
        assert mine.test_loss == pytest.approx(theirs.test_loss, rel=1e-3)


def mixed(optimizer, **changes):
    """The networks above with another optimizer, and rates that suit it."""
    rate = RATES.get(optimizer, 0.1) / 0.2
    return [dataclasses.replace(c, optimizer=optimizer, learning_rate=rate * c.learning_rate, **changes) for c in MIXED]


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("optimizer", MINIBATCH)
def test_networks_do_not_see_what_else_is_in_their_stack(toy, optimizer, loss):
    configurations = mixed(optimizer, loss=loss, activation="tanh" if loss == "l2" else "relu")
    schedule = Schedule(decay_every_epochs=5)
    stacked = train_stack(configurations, toy, schedule=schedule)
    assert_same_results(stacked, alone(configurations, toy, schedule=schedule))
    assert_same_results(list(reversed(train_stack(configurations[::-1], toy, schedule=schedule))), stacked)


@pytest.mark.parametrize("optimizer", MINIBATCH)
def test_networks_that_retire_early_leave_the_others_as_they_were(toy, optimizer):
    factor = 2 if optimizer == "adam" else 0.5
    configurations = mixed(optimizer, width=30, steps=250)
    configurations = [dataclasses.replace(c, learning_rate=factor * c.learning_rate) for c in configurations]
    schedule = Schedule(decay_every_epochs=12, stop_at_accuracy=1.0)
    stacked = train_stack(configurations, toy, schedule=schedule)
    done = [trained.steps_done for trained in stacked]
    assert len(set(done)) >= 3, "networks must leave at different times for this to test anything"
    assert max(done) == 250
    assert_same_results(stacked, alone(configurations, toy, schedule=schedule))
    # The gradients of well-fitted points are 0 in float32 and not in float64, and Adam steps by their signs.
    rtol = 2e-3 if optimizer == "adam" else 1e-4
    for trained, c in zip(stacked, configurations, strict=True):
        assert_same_weights(trained.network, twin(c, toy, 12, trained.steps_done), rtol)


def test_a_network_stops_at_the_first_check_that_finds_the_accuracy(toy):
    (c,) = several({"steps": 400})
    (trained,) = train_stack([c], toy, schedule=Schedule(stop_at_accuracy=0.9))
    between = EPOCHS_BETWEEN_CHECKS * STEPS_PER_EPOCH

    def reached(steps):
        return accuracy(forward(twin(c, toy, None, steps), "relu", toy.train.x), toy.train.y) >= 0.9

    first = next(steps for steps in range(between, 400, between) if reached(steps))
    assert trained.steps_done == first < 400
    assert trained.train_accuracy >= 0.9
    assert trained.state == ("fitted" if trained.train_accuracy == 1 else "unfitted")


def test_without_a_threshold_every_network_trains_to_the_end(toy):
    trained = train_stack(several({"steps": 200}, {"steps": 200, "seed": 2}), toy)
    assert [(one.steps_done, one.state) for one in trained] == [(200, "fitted")] * 2


@pytest.mark.parametrize("optimizer", MINIBATCH)
def test_a_network_that_diverges_does_no_harm(toy, optimizer):
    rates = (0.05, 1e30, 0.05, 1e30, 0.02)
    configurations = several(
        *[
            {"optimizer": optimizer, "learning_rate": rate, "seed": seed, "steps": 90}
            for rate, seed in zip(rates, (1, 1, 2, 3, 3), strict=True)
        ]
    )
    stacked = train_stack(configurations, toy)
    assert [trained.state == "diverged" for trained in stacked] == [False, True, False, True, False]
    healthy = [0, 2, 4]
    assert_same_results([stacked[i] for i in healthy], alone([configurations[i] for i in healthy], toy))
    # It is taken out at the first check, and what is kept of it is not a number.
    assert stacked[1].steps_done == stacked[3].steps_done == EPOCHS_BETWEEN_CHECKS * STEPS_PER_EPOCH
    assert not math.isfinite(stacked[1].train_loss)


# The first grows beyond float32 in some 30 steps, the second in some 15, the third not at all.
GROWING = [{"learning_rate": rate, "depth": 2, "activation": "tanh", "loss": "l2", "steps": 60} for rate in (1.0, 5.0, 0.05)]


@pytest.mark.parametrize("checkpoint", [1, 8, 10])
def test_a_network_that_diverges_after_the_checkpoint_is_given_as_it_was_then(toy, checkpoint):
    configurations = several(*GROWING)
    trained = train_stack(configurations, toy, schedule=Schedule(checkpoint_steps=checkpoint))
    without = train_stack(configurations, toy)
    assert [one.state for one in without] == ["diverged", "diverged", "unfitted"]
    then = alone([dataclasses.replace(c, steps=checkpoint) for c in configurations[:2]], toy)
    for mine, theirs in zip(trained, then, strict=False):
        assert mine.steps_done == checkpoint
        assert mine.state == theirs.state != "diverged"
        assert mine.train_loss == pytest.approx(theirs.train_loss, rel=1e-3)
        assert_same_weights(mine.network, theirs.network.weights)
    assert [one.configuration for one in trained] == configurations
    # One that trains to the end is not concerned.
    assert trained[2].steps_done == 60
    assert_same_weights(trained[2].network, without[2].network.weights, rtol=0)


@pytest.mark.parametrize("checkpoint", [18, 19, 21, 24])
def test_a_network_that_diverges_before_the_checkpoint_is_given_as_diverged(toy, checkpoint):
    first, second, _ = train_stack(several(*GROWING), toy, schedule=Schedule(checkpoint_steps=checkpoint))
    assert (first.state, first.steps_done) == ("unfitted", checkpoint)
    assert second.state == "diverged"
    assert not math.isfinite(second.train_loss)


def test_a_checkpoint_after_the_last_step_is_none(toy):
    trained = train_stack(several(*GROWING), toy, schedule=Schedule(checkpoint_steps=61))
    assert [one.state for one in trained] == ["diverged", "diverged", "unfitted"]


def test_a_stack_of_diverging_networks_ends(toy):
    trained = train_stack(several({"learning_rate": 1e30}, {"learning_rate": 1e30, "seed": 2}), toy)
    assert [one.state for one in trained] == ["diverged", "diverged"]


def test_finite_weights_that_give_no_finite_loss_are_called_diverged(toy):
    (trained,) = train_stack(several({"steps": 0, "init_scale": 1e30}), toy)
    assert all(weight.isfinite().all() for weight in trained.network.weights)
    assert trained.state == "diverged"


def test_same_configuration_twice_gives_the_same_twice(toy):
    first, second = train_stack([SMALL, SMALL], toy)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(first.network.weights, second.network.weights, strict=True))


def test_training_again_gives_the_same_bits(toy):
    first, second = (train_stack(MIXED, toy) for _ in range(2))
    for mine, theirs in zip(first, second, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(mine.network.weights, theirs.network.weights, strict=True))


def test_data_are_left_alone(toy):
    before = [tensor.clone() for points in (toy.train, toy.test) for tensor in (points.x, points.y)]
    train_stack(MIXED, toy)
    after = [tensor for points in (toy.train, toy.test) for tensor in (points.x, points.y)]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(after, before, strict=True))


def test_time_is_shared_out_among_the_networks(toy):
    start = time.perf_counter()
    trained = train_stack(MIXED, toy)
    assert sum(one.seconds for one in trained) <= time.perf_counter() - start
    assert all(one.seconds > 0 for one in trained)
    assert len({one.seconds for one in trained}) == 1  # all of them trained to the end


# --- labels and orders


def test_true_labels_are_the_data_sets(toy):
    assert training_labels(toy.train.y, 3, "true", 1) is toy.train.y


def test_random_labels_are_fixed_by_the_seed_and_uniform():
    y = torch.zeros(30_000, dtype=torch.int64)
    first, again, other = (training_labels(y, 10, "random", seed) for seed in (1, 1, 2))
    assert first.dtype == torch.int64
    assert torch.equal(first, again)
    assert 0.05 < float((first == other).double().mean()) < 0.15
    counts = first.bincount(minlength=10).double()
    assert float(((counts - 3000).square() / 3000).sum()) < 30  # chi-squared, 9 degrees of freedom: p = 0.0004


def test_random_labels_do_not_depend_on_the_true_ones():
    zeros, ones = torch.zeros(500, dtype=torch.int64), torch.ones(500, dtype=torch.int64)
    assert torch.equal(training_labels(zeros, 5, "random", 3), training_labels(ones, 5, "random", 3))


def test_network_fits_its_random_labels_and_test_labels_stay_true(toy):
    (c,) = several({"labels": "random", "width": 100, "steps": 6000, "optimizer": "momentum", "learning_rate": 0.02})
    (trained,) = train_stack([c], toy, schedule=Schedule(stop_at_accuracy=1.0))
    assert trained.state == "fitted"
    logits = forward(trained.network.weights, "relu", toy.train.x)
    assert accuracy(logits, training_labels(toy.train.y, 3, "random", 1)) == 1
    assert accuracy(logits, toy.train.y) < 0.7
    assert trained.test_accuracy == accuracy(forward(trained.network.weights, "relu", toy.test.x), toy.test.y)


def test_random_streams_are_told_apart_by_seed_and_purpose():
    def draw(*arguments):
        return torch.randn(3, generator=generator(*arguments)).tolist()

    assert draw(1, "order") == draw(1, "order")
    assert len({tuple(draw(seed, purpose)) for seed in (0, 1, 2**63 - 1) for purpose in ("order", "weights", "labels")}) == 9


# Results that people have stored can be trained again by these: they must never change.
@pytest.mark.parametrize(("purpose", "expected"), [("weights", [359, 930, 142, 510]), ("order", [288, 215, 929, 165])])
def test_random_streams_are_what_they_have_always_been(purpose, expected):
    assert torch.randint(1000, (4,), generator=generator(1, purpose)).tolist() == expected


# --- refusals


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"decay_every_epochs": 0}, "decay_every_epochs must be a whole number of at least 1; got 0"),
        ({"checkpoint_steps": 0}, "checkpoint_steps must be a whole number of at least 1; got 0"),
        ({"checkpoint_steps": 2.5}, "checkpoint_steps must be a whole number of at least 1; got 2.5"),
        ({"decay_every_epochs": -5}, "decay_every_epochs must be a whole number of at least 1; got -5"),
        *[
            ({"stop_at_accuracy": value}, "stop_at_accuracy must be a number above 0 and at most 1; got")
            for value in (0, -0.1, 1.01, math.nan)
        ],
    ],
)
def test_schedule_out_of_range_is_refused(refused, arguments, expected):
    with refused(expected):
        Schedule(**arguments)


def test_schedule_takes_its_limits():
    assert Schedule(decay_every_epochs=1, stop_at_accuracy=1).decay_every_epochs == 1
    assert Schedule(decay_every_epochs=None).stop_at_accuracy is None


def test_no_configurations_are_refused(refused, toy):
    with refused("configurations must hold at least one configuration; got none"):
        train_stack([], toy)


DIFFERENT = [
    {"dataset": "mnist"},
    {"width": 9},
    {"depth": 2},
    {"activation": "tanh"},
    {"optimizer": "momentum"},
    {"batch_size": 5},
    {"augmentation": "shift-flip"},
    {"loss": "l2"},
    {"steps": 49},
]


@pytest.mark.parametrize("change", DIFFERENT, ids=lambda change: next(iter(change)))
def test_configurations_that_are_no_stack_are_refused(refused, toy, change):
    configurations = several({}, change)
    assert configurations[0].stack_key != configurations[1].stack_key
    with refused("the configurations of a stack may differ in seed, learning_rate, init_scale and labels only"):
        train_stack(configurations, toy)


def test_minibatch_larger_than_the_training_set_is_refused(refused, toy):
    with refused("batch_size must be at most the number of training points, 46; got 47"):
        train_stack(several({"batch_size": 47}), toy)
