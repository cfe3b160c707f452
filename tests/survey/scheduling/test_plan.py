"""Plans: the presets at the paper's scale, steps on GPUs that are not here by hand, and networks that no memory holds."""

import math
import re
from collections import Counter

import pytest

from sensitometer.configuration import Configuration
from sensitometer.survey import load_spec, preset_names
from sensitometer.survey.scheduling.cost import number_of_weights, stack_seconds, step_seconds
from sensitometer.survey.scheduling.machines import GPUS, parse_gpus, this_machine
from sensitometer.survey.scheduling.plan import BYTES_PER_ROW, START_SECONDS, plan
from sensitometer.survey.spec import parse_spec

from ..conftest import SMALL

NAMED = {machine.name: machine for machine in GPUS}
# The whole space of the paper at the two ends of its widths, so that the largest network is there.
WIDE = """
[survey]
name = "wide"

[data]
name = "cifar10"
crop = 24

[space]
width = [1, 65536]
depth = [2, 65]
batch_size = [128]
seed = [1, 2]

[training]
steps = 1000
"""


def test_the_large_survey_has_the_space_of_the_paper():
    spec, _ = load_spec("large")
    assert len(spec.grid()) * len(spec.space.seed) == 1_904_000
    assert len(spec) == 335_671
    assert spec.space.width == tuple(2**k for k in range(17))
    assert spec.space.depth == (2, *(2**k + 1 for k in range(1, 7)))
    sizes = spec.sizes()
    assert [(sizes[name].inputs, sizes[name].train_points) for name in ("cifar10", "cifar100")] == [(24 * 24 * 3, 50_000)] * 2
    assert (spec.training.steps, spec.training.checkpoint_steps, spec.training.stop_at_accuracy) == (2**19, 2**18, None)


def test_the_small_survey_has_the_space_of_the_paper():
    spec, _ = load_spec("small")
    networks = list(spec.configurations())
    assert len(networks) == 6 * 6 * 4 * 8 * 4 * 2
    assert Counter(network.augmentation for network in networks) == {"none": len(networks) / 2, "shift-flip": len(networks) / 2}
    settings = {(network.steps, network.batch_size, network.learning_rate, network.optimizer) for network in networks}
    assert settings == {(2**18, 256, 0.005, "momentum")}
    assert {sizes.train_points for sizes in spec.sizes().values()} == {50_000}


def test_a_wide_step_takes_its_products_at_the_assumed_share_of_the_peak():
    sizes = load_spec("large")[0].sizes()["cifar10"]
    wide, narrow = (Configuration("x", width, 3, batch_size=500) for width in (10_000, 4))
    weights = number_of_weights(wide, sizes.inputs, 10)
    # 67 TFLOP/s; six operations per weight and point, but four at the first layer.
    products = 500 * (6 * weights - 2 * sizes.inputs * 10_000) / (0.6 * 67e12)
    assert products < step_seconds(wide, 1, 1, sizes, NAMED["H200"]) < 1.2 * products
    # 21 kernels of 3.4 microseconds.
    assert 21 * 3.4e-6 < step_seconds(narrow, 1, 1, sizes, NAMED["H200"]) < 1.2 * 21 * 3.4e-6


def test_every_device_has_a_source_and_numbers_of_a_gpu():
    assert len(NAMED) == len(GPUS)
    for device in GPUS:
        assert re.search(r"(data sheet|white paper).*: https://\S+$", device.source), device.name
        assert 3e12 < device.products < 6e13
        assert 16e9 <= device.memory < 1e12
        assert 3e11 <= device.bandwidth < 1e13


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [("8xH200", 8, "H200"), ("h100", 1, "H100"), ("4XA100-80gb", 4, "A100-80GB"), ("RTX4090", 1, "RTX4090")],
)
def test_devices_are_named_with_their_number_whatever_the_case(text, count, name):
    assert parse_gpus(text) == (count, NAMED[name])


@pytest.mark.parametrize(
    "text", ["", "8x", "H300", "0xH200", "-1xH200", "8 H200", "xH200", "64xcore", "H200\n", "1e3xH200", "٣xH200"]
)
def test_other_devices_are_refused_with_the_names_of_those_that_are_known(text, refused):
    with refused("like: expected one of V100-16GB, .*, H200, .*RTX4090, or several such as 8xH200; got '"):
        parse_gpus(text)


def test_on_the_command_line_too(run):
    status, _, error = run("plan", "quick", "--like", "8xH300")
    assert (status, error.count("\n")) == (2, 1)
    assert "H200" in error
    status, _, error = run("plan", "quick", "--like", "8xH200", "--workers", 8)
    assert (status, error) == (2, "sensitometer: workers and like exclude each other: each GPU has one worker\n")


def test_planning_for_other_devices_measures_and_stores_nothing(tmp_path, monkeypatch, run):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sensitometer.matmul.choose", None)
    status, printed, _ = run("plan", "quick", "--like", "2xT4")
    assert status == 0
    assert "with 2xT4" in printed
    assert "predicted for T4: 4.86 TFLOP/s of products in float32, 300 GB/s of memory, 3.4 µs an operation" in printed
    assert list(tmp_path.iterdir()) == []


def test_this_machine_is_as_fast_as_its_self_check_says():
    machine = this_machine()
    assert 1e9 < machine.products < 1e12
    assert 1e-7 < machine.operation < 1e-4
    assert machine.memory > 10**8


def test_the_time_is_that_of_the_longest_stack_or_of_all_by_the_workers():
    spec = parse_spec(WIDE.replace("[1, 65536]", "[1]").replace("[2, 65]", "[65]").replace("seed = [1, 2]", "seed = [1]"), "test")
    single = plan(spec, like="H100")
    # A single network, limited by its kernels: its steps, and the two sets at the end by a third of a step each batch.
    least = 1000 * (5 * 65 + 6) * 3.4e-6
    assert least < single.seconds - START_SECONDS < 2 * least
    assert plan(spec, like="8xH100").seconds == single.seconds
    (network,) = spec.configurations()
    expected = stack_seconds([network], spec.sizes()["cifar10"], NAMED["H100"])
    assert single.seconds == START_SECONDS + expected
    assert single.rows == single.disk == BYTES_PER_ROW


def test_more_devices_and_faster_ones_are_never_slower():
    spec, _ = load_spec("small")
    times = [plan(spec, like=f"{count}xH100").seconds for count in (1, 2, 8, 64)]
    assert times == sorted(times, reverse=True)
    assert times[0] > 7 * times[2]
    for slow, fast in (("H100", "H200"), ("A100-40GB", "A100-80GB"), ("A100-80GB", "H100"), ("T4", "L4"), ("H200", "B200")):
        assert plan(spec, like=f"8x{fast}").seconds <= plan(spec, like=f"8x{slow}").seconds, (slow, fast)


@pytest.mark.parametrize("name", ["small", "quick"])
def test_the_stacks_fit_into_the_memory_of_each_device(name):
    spec, _ = load_spec(name)
    for device in ("T4", "H200"):
        made = plan(spec, like=f"4x{device}")
        assert made.too_large == {}
        assert made.share == NAMED[device].memory
        assert made.memory <= 4 * made.share


@pytest.mark.parametrize("name", [name for name in preset_names() if name != "large"])
def test_every_preset_has_a_plan(name):
    spec, _ = load_spec(name)
    made = plan(spec, like="8xH200")
    assert made.networks == len(spec)
    assert 0 < made.stacks <= made.networks
    assert 0 < made.seconds < math.inf
    assert made.too_large == {}
    assert (made.arrays > 0) == spec.measure.keeps_arrays


def test_arrays_cost_time_and_disk(run, tmp_path):
    text = SMALL.replace('"relu", "tanh"', '"relu"') + "{}"
    (tmp_path / "all.toml").write_text(text.format("points = 100\npaths = 21\nslice = true\n"))
    plain = plan(parse_spec(text.format(""), "test"), like="1xH100")
    costs = {}
    for keys in ("points = 100\n", "paths = 21\n", "slice = true\n"):
        made = costs[keys] = plan(parse_spec(text.format(keys), "test"), like="1xH100")
        assert made.seconds > plain.seconds
        assert made.arrays > plain.arrays == 0
    assert costs["points = 100\n"].flops > plain.flops
    assert costs["points = 100\n"].arrays == 56 * 100 * 32
    printed = run("plan", tmp_path / "all.toml", "--like", "1xH100")[1]
    assert re.search(r"^disk +[\d.]+ .B, with [\d.]+ .B of arrays$", printed, re.MULTILINE)


def test_networks_that_no_memory_holds_are_counted_by_shape(run, tmp_path):
    (tmp_path / "wide.toml").write_text(WIDE)
    assert number_of_weights(Configuration("x", 65536, 65), 1728, 10) * 4 > 1e12
    status, printed, _ = run("plan", tmp_path / "wide.toml", "--like", "8xH200")
    assert status == 0
    assert "2 networks are larger than a worker's memory, 141.0 GB, and would be stored as failed" in printed
    assert re.search(r"too large by shape, width x depth\n +65\n +65536 +2\n", printed)
    assert re.search(r"networks by shape, width x depth\n +2 +65\n +1 +2 +2\n +65536 +2 +2\n", printed)
    wide = plan(parse_spec(WIDE, "test"), like="8xH200")
    without = plan(parse_spec(WIDE.replace("65536", "32768"), "test"), like="8xH200")
    assert (wide.networks, wide.too_large) == (8, {(65536, 65): 2})
    assert without.too_large == {(32768, 65): 2}
    assert without.seconds < wide.seconds < math.inf


def test_a_survey_of_which_nothing_fits_can_be_planned():
    made = plan(parse_spec(WIDE.replace("[1, 65536]", "[65536]").replace("[2, 65]", "[65]"), "test"), like="T4")
    assert (made.networks, made.stacks, made.flops, made.too_large) == (2, 0, 0, {(65536, 65): 2})


def test_long_trainings_save_states_and_short_ones_do_not():
    spec = parse_spec(WIDE.replace("[2, 65]", "[2]").replace("[1, 65536]", "[1024]"), "test")
    long = parse_spec(WIDE.replace("[2, 65]", "[2]").replace("[1, 65536]", "[1024]").replace("1000", "10_000_000"), "test")
    weights = 1728 * 1024 + 1024 * 10
    assert plan(spec, like="H100").states == 0
    # The weights, the momentum and those that have left; the old state and the new one; of one network or of both in a stack.
    assert plan(long, like="H100").states in (2 * 3 * 4 * weights, 2 * 2 * 3 * 4 * weights)


def test_a_table_of_shapes_is_printed_where_there_are_several(run, tmp_path):
    (tmp_path / "one.toml").write_text(WIDE.replace("[1, 65536]", "[8]").replace("[2, 65]", "[2]"))
    assert "by shape" not in run("plan", tmp_path / "one.toml", "--like", "T4")[1]
    _, printed, _ = run("plan", "small", "--like", "H200")
    table = printed.partition("networks by shape, width x depth\n")[2].splitlines()
    assert table[0].split() == ["2", "3", "5", "10", "15", "20"]
    assert table[1].split() == ["100", *["256"] * 6]
    assert len(table) == 7
