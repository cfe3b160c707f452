"""Costs against counts made by torch, times on a machine on which every number is known, and plans against a real run."""

import dataclasses
import resource

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sensitometer.configuration import Configuration
from sensitometer.networks import initial_weights, layer_shapes
from sensitometer.survey import load_spec, run_survey
from sensitometer.survey.scheduling.cost import (
    Measures,
    Sizes,
    jacobian_flops,
    loop_rows,
    number_of_weights,
    point_flops,
    stack_bytes,
    stack_seconds,
    step_seconds,
    training_flops,
    transition_flops,
    transition_seconds,
    walk_bytes,
)
from sensitometer.survey.scheduling.machines import Machine
from sensitometer.survey.scheduling.plan import plan
from sensitometer.survey.spec import parse_spec

from ..conftest import SMALL

INPUTS, CLASSES = 20, 7
SHAPES = [(1, 2), (5, 3), (16, 6)]


def module(width, depth):
    weights = initial_weights(layer_shapes(INPUTS, width, depth, CLASSES), "relu", 1.0, 1)
    layers = []
    for weight in weights:
        layers += [nn.Linear(weight.shape[1], weight.shape[0], bias=False), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(("width", "depth"), SHAPES)
def test_the_number_of_weights_is_that_of_the_network(width, depth):
    found = number_of_weights(Configuration("x", width, depth), INPUTS, CLASSES)
    assert found == sum(parameter.numel() for parameter in module(width, depth).parameters())


@pytest.mark.parametrize(("width", "depth"), SHAPES)
def test_the_operations_of_training_are_those_that_torch_counts(width, depth):
    model, x, y = module(width, depth), torch.randn(8, INPUTS), torch.zeros(8, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        for _ in range(3):
            nn.functional.cross_entropy(model(x), y).backward()
    configuration = Configuration("x", width, depth, batch_size=8, steps=3)
    assert training_flops(configuration, INPUTS, CLASSES, 100) == counter.get_total_flops()


def test_an_iteration_of_lbfgs_takes_a_little_more_than_the_whole_training_set():
    one, whole = (Configuration("x", 9, 4, optimizer=name, batch_size=1000, steps=1) for name in ("lbfgs", "sgd"))
    ratio = training_flops(one, INPUTS, CLASSES, 1000) / training_flops(whole, INPUTS, CLASSES, 1000)
    assert 1 < ratio < 1.3


def test_the_operations_of_the_jacobian_grow_with_the_points_and_the_classes():
    configuration = Configuration("x", 50, 4)
    assert jacobian_flops(configuration, 100, 10, 20) == 2 * jacobian_flops(configuration, 100, 10, 10)
    assert jacobian_flops(configuration, 100, 20, 10) > 1.5 * jacobian_flops(configuration, 100, 10, 10)


SIZES = Sizes(inputs=INPUTS, classes=CLASSES, train_points=1000, test_points=500, measures=Measures(jacobian=0))
# Machines on which nothing costs time but one thing: an operation 1 s, a FLOP 1 s, a byte 1 s.
NEVER = 1e300
CALLS, PRODUCTS, MEMORY = (
    Machine("test", "cuda", products, bandwidth, operation, 10**9, "this test")
    for products, bandwidth, operation in ((NEVER, NEVER, 1.0), (1.0, NEVER, 0.0), (NEVER, 1.0, 0.0))
)


def test_a_step_takes_its_operations_its_products_and_its_passes_over_memory():
    c = Configuration("x", 30, 4, batch_size=50)
    weights, units, pixels = 4 * number_of_weights(c, INPUTS, CLASSES), 4 * 50 * 3 * 30, 2 * 50 * INPUTS
    assert step_seconds(c, 4, 2, SIZES, CALLS) == pytest.approx(5 * 4 + 6)
    assert step_seconds(c, 4, 2, SIZES, PRODUCTS) == pytest.approx(4 * 50 * point_flops(c, INPUTS, CLASSES))
    assert step_seconds(c, 4, 2, SIZES, MEMORY) == pytest.approx(4 * (7 * weights + 11 * units + 4 * pixels))
    everything = Machine("test", "cuda", 1e9, 1e9, 1e-6, 10**9, "this test")
    parts = sum(step_seconds(c, 4, 2, SIZES, machine) for machine in (MEMORY, PRODUCTS)) * 1e-9 + 26e-6
    assert step_seconds(c, 4, 2, SIZES, everything) == pytest.approx(parts)


def test_optimizers_add_their_passes():
    c = Configuration("x", 30, 4, batch_size=50)
    plain, weights = step_seconds(c, 4, 2, SIZES, MEMORY), 4 * number_of_weights(c, INPUTS, CLASSES)
    adam = step_seconds(dataclasses.replace(c, optimizer="adam"), 4, 2, SIZES, MEMORY)
    assert adam - plain == pytest.approx(4 * 4 * weights)


def test_an_iteration_of_lbfgs_costs_about_an_epoch_and_with_augmentation_about_two():
    lbfgs, moved = (Configuration("x", 30, 4, optimizer="lbfgs", augmentation=name) for name in ("none", "shift-flip"))
    epoch = 1000 / 256 * step_seconds(Configuration("x", 30, 4, batch_size=256), 1, 1, SIZES, PRODUCTS)
    assert 1 < step_seconds(lbfgs, 1, 1, SIZES, PRODUCTS) / epoch < 1.3
    assert 1.9 < step_seconds(moved, 1, 1, SIZES, PRODUCTS) / epoch < 2.6


def test_a_stack_takes_its_steps_and_its_measures():
    short, long = (Configuration("x", 64, 3, steps=steps) for steps in (10_000, 20_000))
    plain, twice = (stack_seconds([network], SIZES, PRODUCTS) for network in (short, long))
    step = step_seconds(short, 1, 1, SIZES, PRODUCTS)
    assert twice - plain == pytest.approx(10_000 * step)
    assert plain > 10_000 * step


def loops(count):
    return SIZES._replace(loop_vertices=8, measures=Measures(transitions=count, transition_samples=1000))


LOOPS = loops(10)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_transitions_take_time_by_the_loops_and_none_when_not_counted(activation):
    c = Configuration("x", 64, 5, activation=activation)
    core = Machine("test", "cpu", 1e9, 1e10, 1e-6, 10**9, "this test")
    assert transition_seconds(c, SIZES, core) == transition_flops(c, SIZES) == walk_bytes(c, SIZES) == 0
    many = loops(10_000)
    assert transition_seconds(c, many, core) == pytest.approx(10 * transition_seconds(c, loops(1000), core))
    assert transition_flops(c, many) == pytest.approx(1000 * transition_flops(c, LOOPS))


def test_a_network_twice_as_wide_and_as_deep_has_four_times_the_crossings_and_sixteen_times_their_work():
    small, large = (Configuration("x", width, depth) for width, depth in ((300, 11), (600, 21)))
    last, twice = (loop_rows(c, LOOPS)[-1] for c in (small, large))
    assert 4 < twice / last < 4.5
    # The products take another factor of two.
    assert 25 < transition_flops(large, LOOPS) / transition_flops(small, LOOPS) < 40


def test_loops_take_memory_that_does_not_grow_with_their_number():
    c = Configuration("x", 64, 5)
    few, many = (walk_bytes(c, loops(count)) for count in (1, 10**6))
    assert 0 < few == many < 10**9


def test_more_networks_take_more_memory_and_a_history_most():
    sgd = Configuration("x", 64, 3, optimizer="sgd")
    assert stack_bytes(sgd, 3, SIZES) == 3 * stack_bytes(sgd, 1, SIZES)
    lbfgs = dataclasses.replace(sgd, optimizer="lbfgs", width=1000)
    assert stack_bytes(lbfgs, 1, SIZES) > 20 * 4 * number_of_weights(lbfgs, INPUTS, CLASSES)


def test_a_plan_counts_what_the_survey_holds():
    spec = parse_spec(SMALL.replace('name = "small"', 'name = "small"\nkeep_weights = true'), "test")
    one, two = plan(spec, workers=1), plan(spec, workers=2)
    assert one.networks == 64
    assert 8 <= one.stacks <= 64
    weights = sum(number_of_weights(c, 64, 10) for c in spec.configurations())
    assert one.disk > 4 * weights
    assert one.seconds > two.seconds > one.seconds / 2
    assert one.memory < two.memory <= 2 * one.memory
    assert one.flops > sum(training_flops(c, 64, 10, 200) for c in spec.configurations())
    more = plan(parse_spec(SMALL.replace("transitions = 2", "transitions = 200"), "test"), workers=1)
    assert more.flops > one.flops
    assert more.seconds > one.seconds


def test_a_plan_of_half_the_steps_takes_about_half():
    text = load_spec("quick")[1].replace("transitions = 2", "transitions = 0")
    whole = plan(parse_spec(text, "test"))
    half = plan(parse_spec(text.replace("steps = 2000", "steps = 1000"), "test"))
    assert half.flops == pytest.approx(whole.flops / 2, rel=0.1)
    assert half.seconds == pytest.approx(whole.seconds / 2, rel=0.1)


MIXED = """
[survey]
name = "mixed"

[data]
name = "digits"

[space]
width = [8, 64, 512]
depth = [2, 4]
activation = ["relu", "tanh"]
optimizer = ["momentum", "adam"]
batch_size = [64]
seed = [1, 2]

[training]
steps = 60

[measure]
jacobian = 50
transitions = 3
transition_samples = 4096
"""


def test_a_plan_is_within_a_factor_of_two_of_a_real_run(tmp_path):
    (tmp_path / "first.toml").write_text(MIXED.replace("[8, 64, 512]", "[8]"))
    (tmp_path / "mixed.toml").write_text(MIXED)
    # A fresh clone compiles its loops here: that is no part of a plan.
    run_survey(tmp_path / "first.toml", tmp_path / "first", workers=1).close()
    predicted = plan(parse_spec(MIXED, "test"), workers=1).seconds

    def spent():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = spent()
    # Seconds of the processor, which do not count what other processes take of this machine.
    run_survey(tmp_path / "mixed.toml", tmp_path / "out", workers=1).close()
    taken = spent() - before
    assert predicted / 2 < taken < 2 * predicted, (predicted, taken)
