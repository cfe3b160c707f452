"""The division into stacks: the same wherever a survey begins, and within the limits."""

import contextlib
import random
import sqlite3
import subprocess
import sys
from collections import Counter

import pytest

from sensitometer.configuration import Configuration
from sensitometer.store import Store
from sensitometer.store.schema import FILE
from sensitometer.survey import load_spec
from sensitometer.survey.scheduling import division
from sensitometer.survey.scheduling.cost import CHUNK, number_of_weights, stack_bytes
from sensitometer.survey.scheduling.division import divide
from sensitometer.survey.scheduling.machines import GPUS
from sensitometer.survey.scheduling.stacks import LIMITS, choose_stack_sizes, kinds, make_stacks, saved_state
from sensitometer.survey.spec import parse_spec

from ..conftest import SMALL
from .test_cost import SIZES


def networks(width, count, depth=3, **options):
    return [Configuration("x", width, depth, seed=seed, **options) for seed in range(count)]


def size(configurations, device="cpu"):
    (chosen,) = choose_stack_sizes(configurations, {"x": SIZES}, device).values()
    return chosen


def numbers(configuration):
    """Numbers that a step works on: weights, units, and half of the pixels of a minibatch."""
    batch_size = configuration.batch_size or CHUNK
    units = batch_size * configuration.width * (configuration.depth - 1)
    return number_of_weights(configuration, SIZES.inputs, SIZES.classes) + units + batch_size * SIZES.inputs // 2


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("optimizer", ["momentum", "adam", "lbfgs"])
@pytest.mark.parametrize(("width", "depth"), [(1, 2), (8, 2), (64, 5), (200, 3), (1000, 9), (4000, 65)])
def test_a_stack_is_the_largest_power_of_two_within_the_limits(device, optimizer, width, depth):
    configurations = networks(width, 5000, depth, optimizer=optimizer)
    chosen, limits = size(configurations, device), LIMITS[device]

    def fits(count):
        bytes_held = count * stack_bytes(configurations[0], 1, SIZES)
        return count <= limits.networks and count * numbers(configurations[0]) <= limits.numbers and bytes_held <= limits.memory

    assert chosen.bit_count() == 1
    assert chosen == 1 or fits(chosen)
    assert not fits(2 * chosen)


def test_narrow_networks_are_stacked_and_wide_ones_are_not():
    assert size(networks(2, 1000)) == LIMITS["cpu"].networks
    assert 1 < size(networks(64, 1000)) < LIMITS["cpu"].networks
    assert size(networks(2000, 1000)) == 1
    assert size(networks(64, 5000), "cuda:1") == size(networks(64, 5000), "cuda") > size(networks(64, 5000))


def test_a_size_depends_on_no_other_network():
    many, few = networks(8, 1000), networks(8, 3)
    others = networks(300, 50)
    together = choose_stack_sizes([*many, *others], {"x": SIZES}, "cpu")
    assert together[many[0].kind] == size(many)
    assert size(few) == 3


@pytest.mark.parametrize("name", ["quick", "large-reduced"])
def test_a_survey_is_divided_alike_on_every_machine(name, monkeypatch):
    spec, _ = load_spec(name)
    stacks = []
    for machine in (GPUS[0], GPUS[0]._replace(products=1e9, operation=1e-5)):
        monkeypatch.setattr(division, "this_machine", lambda machine=machine: machine)
        stacks.append(divide(spec, None, "cpu"))
    assert [members for _, _, members in stacks[0]] == [members for _, _, members in stacks[1]]
    assert 2 * sum(seconds for _, seconds, _ in stacks[0]) < sum(seconds for _, seconds, _ in stacks[1])


def test_a_survey_keeps_the_stack_sizes_that_an_earlier_version_stored(tmp_path):
    spec = parse_spec(SMALL, "test")
    kinds_ = list(kinds(list(spec.configurations())))
    Store.create(tmp_path / "out", SMALL).close()
    with contextlib.closing(sqlite3.connect(tmp_path / "out" / FILE)) as connection:
        connection.executemany("INSERT INTO stack_sizes VALUES (?, 5, 1.0)", [(kind,) for kind in kinds_[1:]])
        connection.commit()
    with Store(tmp_path / "out") as store:
        stacks = divide(spec, store, "cpu")
    assert {len(members) for kind, _, members in stacks if kind != kinds_[0]} == {5, 3}
    assert sum(len(members) for _, _, members in stacks) == len(spec)


CONFIGURATIONS = list(parse_spec(SMALL, "test").configurations())
DIVISION = dict.fromkeys(kinds(CONFIGURATIONS), 3)


def test_stacks_hold_every_network_once_with_others_of_its_kind():
    stacks = make_stacks(CONFIGURATIONS, DIVISION)
    assert Counter(c for stack in stacks for c in stack) == Counter(CONFIGURATIONS)
    for stack in stacks:
        assert len({c.stack_key for c in stack}) == 1
        assert len(stack) <= 3
        assert [c.seed for c in stack] == sorted(c.seed for c in stack)


def test_the_division_does_not_depend_on_the_order():
    shuffled = random.Random(0).sample(CONFIGURATIONS, len(CONFIGURATIONS))
    assert make_stacks(shuffled, DIVISION) == make_stacks(CONFIGURATIONS, DIVISION)


def test_every_stack_has_a_file_of_its_own_for_its_state(tmp_path):
    stacks = make_stacks(CONFIGURATIONS, DIVISION)
    files = {saved_state(tmp_path, stack) for stack in stacks}
    assert len(files) == len(stacks)
    assert saved_state(tmp_path, stacks[0][:-1]) not in files


def test_the_division_is_made_without_torch():
    code = "import sys, sensitometer.survey.scheduling.division; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
