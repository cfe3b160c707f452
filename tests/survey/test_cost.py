"""Costs against counts made by torch, and the division into stacks."""

import random
from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sensitometer.configuration import Configuration
from sensitometer.networks import initial_weights, layer_shapes
from sensitometer.survey import load_spec
from sensitometer.survey.cost import jacobian_flops, number_of_weights, stack_bytes, stack_seconds, training_flops
from sensitometer.survey.plan import plan
from sensitometer.survey.spec import parse_spec
from sensitometer.survey.stacks import make_stacks, stack_size

from .conftest import SMALL

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
    assert training_flops(configuration, INPUTS, CLASSES) == counter.get_total_flops()


def test_the_operations_of_the_jacobian_grow_with_the_points_and_the_classes():
    configuration = Configuration("x", 50, 4)
    assert jacobian_flops(configuration, 100, 10, 20) == 2 * jacobian_flops(configuration, 100, 10, 10)
    assert jacobian_flops(configuration, 100, 20, 10) > 1.5 * jacobian_flops(configuration, 100, 10, 10)


def test_more_steps_take_longer_and_more_networks_take_more_memory():
    short, long = (Configuration("x", 64, 3, steps=steps) for steps in (100, 1000))
    assert stack_seconds([long], 64, 10, 0, 100.0) == pytest.approx(10 * stack_seconds([short], 64, 10, 0, 100.0))
    assert stack_bytes([short] * 3, 64, 10) == 3 * stack_bytes([short], 64, 10)


def test_narrow_networks_are_stacked_and_wide_ones_are_not():
    sizes = [stack_size(width, 256) for width in (1, 8, 64, 256, 4096)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 8
    assert sizes[-1] == 1


def test_stacks_hold_every_network_once_with_others_of_its_kind():
    configurations = list(parse_spec(SMALL, "test").configurations())
    stacks = make_stacks(configurations)
    assert Counter(c for stack in stacks for c in stack) == Counter(configurations)
    for stack in stacks:
        assert len({c.stack_key for c in stack}) == 1
        assert len(stack) <= stack_size(stack[0].width, stack[0].batch_size)
        assert [c.seed for c in stack] == sorted(c.seed for c in stack)


def test_the_division_does_not_depend_on_the_order():
    configurations = list(parse_spec(SMALL, "test").configurations())
    shuffled = random.Random(0).sample(configurations, len(configurations))
    assert make_stacks(shuffled) == make_stacks(configurations)


def test_a_plan_counts_what_the_survey_holds():
    spec = parse_spec(SMALL.replace('name = "small"', 'name = "small"\nkeep_weights = true'), "test")
    one, two = plan(spec, workers=1), plan(spec, workers=2)
    assert one.networks == 64
    assert one.stacks == len(make_stacks(list(spec.configurations())))
    weights = sum(number_of_weights(c, 64, 10) for c in spec.configurations())
    assert one.disk > 4 * weights
    assert one.seconds > two.seconds >= one.seconds / 2
    assert two.memory == 2 * one.memory
    assert one.flops > sum(training_flops(c, 64, 10) for c in spec.configurations())


def test_a_plan_of_half_the_steps_takes_about_half():
    text = load_spec("quick")[1]
    whole = plan(parse_spec(text, "test"))
    half = plan(parse_spec(text.replace("steps = 2000", "steps = 1000"), "test"))
    assert half.flops == pytest.approx(whole.flops / 2, rel=0.1)
    assert half.seconds == pytest.approx(whole.seconds / 2, rel=0.1)
