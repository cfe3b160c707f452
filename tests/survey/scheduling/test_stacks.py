"""The division into stacks, and the measured steps that it comes from."""

import json
import random
import subprocess
import sys
from collections import Counter

import pytest

from sensitometer.configuration import Configuration
from sensitometer.survey.scheduling.cost import CostModel
from sensitometer.survey.scheduling.speed import Shape, Speeds
from sensitometer.survey.scheduling.stacks import kinds, make_stacks, saved_state, stack_networks, stack_sizes
from sensitometer.survey.spec import parse_spec

from ..conftest import SMALL
from .test_cost import SIZES, Machine


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sensitometer" / "speeds.json"


def sizes_of(configurations, machine, workers=1):
    cost = CostModel({"x": SIZES}, Speeds("stock", timer=machine), checked=False)
    return [size.networks for size in stack_sizes(configurations, cost, workers).values()]


def networks(width, count, **options):
    return [Configuration("x", width, 3, seed=seed, **options) for seed in range(count)]


def test_narrow_networks_are_stacked_and_wide_ones_are_not():
    # A millisecond a step and a nanosecond a product: 0.04 ms for width 2, 70 ms for width 500.
    class Overhead(Machine):
        def step(self, *shape):
            return 1e-3 + super().step(*shape)

    narrow, wide = (sizes_of(networks(width, 1000), Overhead())[0] for width in (2, 500))
    assert narrow > 64
    assert wide == 1


def test_the_smallest_stack_that_is_about_as_fast_as_any_is_taken():
    class Table(Machine):
        def step(self, networks, *_):
            return networks * {1: 10, 2: 9, 4: 8.99, 8: 5, 16: 4.9, 32: 4.9}.get(networks, 6) * 1e-4

    assert sizes_of(networks(8, 1000), Table()) == [8]


def test_a_stack_holds_no_more_than_the_memory_does():
    class Free(Machine):
        def step(self, *_):
            return 1e-3

    assert sizes_of(networks(50, 512), Free(10**11)) == [512]
    wide = networks(500, 512)
    some = sizes_of(wide, Free(3 * 10**9))[0]
    assert 1 < some < 512
    assert sizes_of(wide, Free(2 * 10**9))[0] < some
    assert sizes_of(networks(50, 512), Free(3 * 10**9), workers=4)[0] == 64
    assert sizes_of(networks(50, 512), Free(10**8)) == [1]


def test_every_worker_has_something_to_do():
    class Free(Machine):
        def step(self, *_):
            return 1e-3

    assert sizes_of(networks(50, 64), Free(), workers=4)[0] <= 8


def test_a_single_network_is_trained_without_measuring_anything():
    machine = Machine()
    cost = CostModel({"x": SIZES}, Speeds("stock", timer=machine), checked=False)
    assert list(stack_networks(networks(5, 1), cost, workers=1).values()) == [1]
    assert machine.asked == []


def test_only_kinds_of_several_networks_are_measured_for_their_sizes():
    machine = Machine()
    assert sizes_of(networks(5, 1), machine) == [1]
    assert {count for count, _ in machine.asked} == {1}


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


SHAPE = Shape(networks=2, seeds=1, inputs=6, width=4, depth=2, classes=3, batch_size=8)


def test_what_was_measured_is_remembered():
    machine = Machine()
    first = Speeds("stock", timer=machine).step(SHAPE)
    assert Speeds("stock", timer=machine).step(SHAPE) == first
    assert len(machine.asked) == 1
    Speeds("other", timer=machine).step(SHAPE)
    assert len(machine.asked) == 2
    speeds = Speeds("stock", timer=machine)
    speeds.forget()
    speeds.step(SHAPE)
    assert len(machine.asked) == 3


def test_the_first_measurement_holds_for_all_processes():
    class Slow(Machine):
        def step(self, *shape):
            return 2 * super().step(*shape)

    quick, slow = Speeds("stock", timer=Machine()), Speeds("stock", timer=Slow())
    assert quick.step(SHAPE) == slow.step(SHAPE)


def test_a_damaged_file_is_measured_anew(cache):
    cache.parent.mkdir(parents=True)
    cache.write_text("{")
    assert Speeds("stock", timer=Machine()).step(SHAPE) > 0
    assert json.loads(cache.read_text())


def test_a_folder_that_cannot_be_written_to_does_not_matter(cache):
    cache.parent.parent.mkdir(exist_ok=True)
    cache.parent.write_text("a file where the folder should be")
    assert Speeds("stock", timer=Machine()).step(SHAPE) > 0


def test_a_process_measures_steps_and_parts():
    with Speeds("stock") as speeds:
        one = speeds.step(SHAPE)
        many = speeds.step(SHAPE._replace(width=256, depth=5))
        tanh = speeds.part("activation", "tanh")
        adam = speeds.part("optimizer", "adam")
        moves = speeds.part("augmentation", "shift-flip")
        assert speeds.memory() > 10**8
    assert 1e-6 < one < many < 1
    assert all(1e-11 < part < 1e-6 for part in (tanh, adam, moves))


def test_the_driver_measures_without_torch():
    code = "import sys, sensitometer.survey.scheduling.plan; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
