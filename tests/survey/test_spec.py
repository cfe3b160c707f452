"""Specifications: what they stand for, and every way in which they can be wrong."""

import hashlib
import itertools
import os
import re
import tomllib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensitometer.configuration import FIELDS, Configuration
from sensitometer.errors import InvalidInputError
from sensitometer.survey.scheduling.cost import training_flops
from sensitometer.survey.spec import load_spec, parse_spec, preset_names

from .conftest import SMALL

SAMPLED = SMALL + '\n[sample]\ncount = 10\nseed = 3\nweight = "uniform"\n'


def configurations(text):
    return list(parse_spec(text, "test").configurations())


def test_a_grid_is_every_combination_once_with_the_seeds_of_one_configuration_together():
    found = configurations(SMALL)
    expected = {
        Configuration("digits", width, depth, activation, learning_rate=rate, batch_size=50, labels=labels, steps=120, seed=seed)
        for width, depth, activation, rate, labels, seed in itertools.product(
            [4, 12], [2, 3], ["relu", "tanh"], [0.05, 0.1], ["true", "random"], [1, 2]
        )
    }
    assert len(found) == len(parse_spec(SMALL, "test")) == 64
    assert set(found) == expected
    assert [c.seed for c in found] == [1, 2] * 32
    assert all({**a.as_dict(), "seed": 2} == b.as_dict() for a, b in zip(found[::2], found[1::2], strict=True))


def test_several_data_sets_are_an_axis():
    found = configurations(SMALL.replace('"digits"', '["digits", "mnist"]'))
    assert Counter(c.dataset for c in found) == {"digits": 64, "mnist": 64}


def test_a_sample_has_the_count_asked_for_without_repetition_and_comes_from_the_grid():
    found = configurations(SAMPLED)
    assert len(found) == len(parse_spec(SAMPLED, "test")) == 10
    assert len(set(found)) == 10
    assert set(found) < set(configurations(SMALL))


def test_a_sample_is_the_same_on_every_machine():
    first = configurations(SAMPLED)[0]
    assert first.id == "ef97d96c8bf7c5cd", first


def test_a_sample_that_grows_keeps_what_it_had_and_ends_as_the_whole_grid():
    drawn = [configurations(SAMPLED.replace("count = 10", f"count = {count}")) for count in (1, 9, 10, 33, 64)]
    for small, large in itertools.pairwise(drawn):
        assert small == large[: len(small)]
    assert set(drawn[-1]) == set(configurations(SMALL))


def test_another_seed_draws_another_sample():
    assert configurations(SAMPLED) != configurations(SAMPLED.replace("seed = 3", "seed = 4"))


def test_uniform_samples_draw_every_configuration_equally_often():
    counts = Counter(
        configurations(SAMPLED.replace("count = 10", "count = 2").replace("seed = 3", f"seed = {seed}"))[0] for seed in range(640)
    )
    # 32 configurations, 20 times each: a chi-squared statistic of 31 degrees of freedom, above 61.1 once in a thousand draws.
    assert sum((counts[c] - 20) ** 2 / 20 for c in configurations(SMALL)[::2]) < 61.1


def test_inverse_cost_draws_in_inverse_proportion_to_the_operations():
    text = SAMPLED.replace("uniform", "inverse-cost").replace("count = 10", "count = 2")
    grid = configurations(SMALL)[::2]
    weights = {c: 1 / training_flops(c, 64, 10, 1297) for c in grid}
    draws = 600
    counts = Counter(configurations(text.replace("seed = 3", f"seed = {seed}"))[0] for seed in range(draws))
    expected = {c: draws * weight / sum(weights.values()) for c, weight in weights.items()}
    assert sum((counts[c] - n) ** 2 / n for c, n in expected.items()) < 61.1


def test_transitions_are_measured_when_asked_for_and_change_no_configuration():
    text = SMALL.replace("transitions = 2\ntransition_samples = 256\n", "")
    silent, asked = parse_spec(text, "test"), parse_spec(text + 'transitions = "all"\n', "test")
    assert silent.measure.transitions == 0
    assert (asked.measure.transitions, asked.measure.transition_samples) == ("all", 2**20)
    assert silent.sizes()["digits"].loops == 0
    assert asked.sizes()["digits"].loops == 500
    assert [c.id for c in silent.configurations()] == [c.id for c in asked.configurations()]


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_sound_and_named_as_their_file(name):
    spec, text = load_spec(name)
    assert spec.survey.name == name
    found = list(spec.configurations())
    assert len(found) == len(set(found)) == len(spec)
    assert tomllib.loads(text)


def test_the_draw_of_the_large_survey_is_the_same_on_every_machine():
    ids = [one.id for one in load_spec("large")[0].configurations()]
    assert len(ids) == len(set(ids)) == 335_671
    assert hashlib.sha256("".join(ids).encode()).hexdigest().startswith("087ef9da897413bd")


def test_the_costs_of_a_grid_are_those_of_its_configurations_one_by_one():
    spec = parse_spec(SAMPLED.replace("[space]", '[space]\noptimizer = ["sgd", "lbfgs", "adam"]'), "test")
    grid, sizes = spec.grid(), spec.sizes()
    one_by_one = [training_flops(grid.configuration(place, 1), *sizes["digits"][:3]) for place in range(len(grid))]
    places = np.random.default_rng(0).permutation(len(grid))
    assert grid.training_flops(sizes)(places).tolist() == [one_by_one[place] for place in places]
    assert len(set(one_by_one)) > 4


def test_where_nothing_is_trained_all_cost_the_same():
    uniform = SAMPLED.replace("steps = 120", "steps = 0")
    assert configurations(uniform) == configurations(uniform.replace("uniform", "inverse-cost"))


def test_a_sample_drawn_in_parts_is_the_same(monkeypatch):
    text = SAMPLED.replace("uniform", "inverse-cost").replace("[space]", '[space]\noptimizer = ["sgd", "lbfgs", "adam"]')
    whole = configurations(text)
    for size in (1, 7, 30):
        monkeypatch.setattr("sensitometer.survey.grid.DRAWN_AT_ONCE", size)
        assert configurations(text) == whole


def test_networks_come_with_their_places_in_the_grid():
    spec = parse_spec(SAMPLED, "test")
    grid = spec.grid()
    assert [grid.configuration(place, one.seed) for place, one in spec.networks()] == list(spec.configurations())


def test_quick_covers_what_it_promises():
    spec, _ = load_spec("quick")
    found = list(spec.configurations())
    seen = {field: {getattr(c, field) for c in found} for field in FIELDS}
    assert len(found) >= 400
    assert {min(seen["width"]), max(seen["width"])} == {8, 256}
    assert {min(seen["depth"]), max(seen["depth"])} == {2, 9}
    assert len(seen["activation"]) == 5
    assert seen["optimizer"] == {"sgd", "momentum"}
    assert seen["labels"] == {"true", "random"}
    assert min(len(seen[field]) for field in ("learning_rate", "init_scale", "seed")) >= 3


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("width = [4, 12]", 'width = ["4"]', "space.width[0]: expected int; got '4'"),
        ("width = [4, 12]", "width = 4", "space.width: expected array; got 4"),
        ("width = [4, 12]", "width = [4, 0]", "space.width[1]: expected a whole number of at least 1; got 0"),
        ("width = [4, 12]", "width = []", "space.width: expected at least one value; got []"),
        ("width = [4, 12]", "width = [4, 4]", "space.width[1]: 4 is there twice"),
        ("width = [4, 12]", "", "space.width: expected a value, got none"),
        ("depth = [2, 3]", "depth = [1]", "space.depth[0]: expected a whole number of at least 2; got 1"),
        ("[0.05, 0.1]", "[-1]", "space.learning_rate[0]: expected a number above 0; got -1.0"),
        ("[0.05, 0.1]", "[nan]", "space.learning_rate[0]: expected a number above 0; got nan"),
        ("[0.05, 0.1]", "[true]", "space.learning_rate[0]: expected float; got True"),
        ('"tanh"', '"sine"', "space.activation[1]: expected one of relu, relu6, tanh, hardtanh, hardsigmoid; got 'sine'"),
        ('"random"', '"wrong"', "space.labels[1]: expected one of true, random; got 'wrong'"),
        ("seed = [1, 2]", "seed = [1, -2]", "space.seed[1]: expected a whole number of at least 0; got -2"),
        ("batch_size = [50]", "batch_size = [201]", "space.batch_size: expected at most 200, the training points of "),
        ("width = [4, 12]", "widht = [4]", "space.widht: unknown key; expected one of width, depth, "),
        ("[measure]", "[measures]", "measures: unknown key; expected one of survey, data, space, training, sample, measure"),
        ("[survey]", "[survey", "is not TOML: "),
        ('name = "digits"', 'name = "digit"', "data.name: expected one of digits, mnist, "),
        ('name = "digits"', "name = 1", "data.name: expected str | array; got 1"),
        ('name = "digits"', 'name = ["digits", "x"]', "data.name[1]: expected one of digits, mnist, "),
        ("train_points = 200", "train_points = 9", "data.train_points: expected 10 to 1297 for digits; got 9"),
        ("train_points = 200", "train_points = 0", "data.train_points: expected int >= 1; got 0"),
        ("train_points = 200", "crop = 9", "data.crop: expected at most 8, the side of the images of digits; got 9"),
        ("jacobian = 50", "jacobian = 501", "measure.jacobian: expected at most 500, the test points of digits; got 501"),
        ("jacobian = 50", 'jacobian = "some"', "measure.jacobian: expected int or 'all'; got 'some'"),
        ("transitions = 2", "transitions = 501", "measure.transitions: expected at most 500, the test points of digits; got 501"),
        ("transitions = 2", "transitions = -1", "measure.transitions: expected int >= 0; got -1"),
        ("transitions = 2", "transitions = true", "measure.transitions: expected int or 'all'; got True"),
        ("transitions = 2", 'transitions = "some"', "measure.transitions: expected int or 'all'; got 'some'"),
        ("_samples = 256", "_samples = 1", "measure.transition_samples: expected int >= 2; got 1"),
        ("train_points = 200", "crop = 1", "measure.transitions: expected 0 for images of digits cut to 1 pixel, which are all "),
        ("steps = 120", "steps = -1", "training.steps: expected int >= 0; got -1"),
        ("stop_at_accuracy = 1.0", "stop_at_accuracy = 1.5", "training.stop_at_accuracy: expected float <= 1.0; got 1.5"),
        ("decay_every_epochs = 20", "decay_every_epochs = 0", "training.decay_every_epochs: expected int >= 1; got 0"),
        ('name = "small"', 'name = ""', "survey.name: expected str of length >= 1; got ''"),
        ("count = 10", "count = 0", "sample.count: expected int >= 1; got 0"),
        ("count = 10", "count = 65", "sample.count: expected at most 64, the size of the space; got 65"),
        ('"uniform"', '"heavy"', "sample.weight: expected 'uniform' or 'inverse-cost'; got 'heavy'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_path_in_one_line(old, new, message):
    assert old in SAMPLED
    with pytest.raises(InvalidInputError) as caught:
        parse_spec(SAMPLED.replace(old, new, 1), "my.toml")
    assert str(caught.value).startswith("my.toml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_specification_that_is_not_there_is_named_with_the_presets():
    with pytest.raises(InvalidInputError, match=r"no specification 'quack': expected a TOML file, or one of .*quick"):
        load_spec("quack")


def test_a_file_that_cannot_be_read_as_text_is_named(tmp_path):
    (tmp_path / "x.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInputError, match=r"cannot read the specification .*x\.toml"):
        load_spec(tmp_path / "x.toml")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", "/dev/zero", "/dev/full"):
        with pytest.raises(InvalidInputError, match=r"cannot read the specification .*: (it is no regular file|Is a directory)"):
            load_spec(path)
    with (tmp_path / "large").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(InvalidInputError, match="it has 10,000,000,000 bytes, and such a file has at most 10,000,000"):
        load_spec(tmp_path / "large")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


def toml(value):
    """Write a value as TOML; None as a word that is not TOML."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{toml(key)} = {toml(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(character):08X}" for character in value) + '"'
    return str(value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(line=st.sampled_from([line for line in SAMPLED.splitlines() if "=" in line]), value=VALUES)
def test_whatever_a_key_is_set_to_the_answer_is_a_survey_or_one_line(line, value):
    key = line.partition(" = ")[0]
    try:
        spec = parse_spec(SAMPLED.replace(line, f"{key} = {toml(value)}", 1), "my.toml")
    except InvalidInputError as error:
        assert "\n" not in str(error)
        assert str(error).startswith("my.toml")
    else:
        assert len(list(spec.configurations())) == len(spec)


def test_lbfgs_alone_needs_no_batch_size(refused):
    small = """
[survey]
name = "full batch"
[data]
name = "digits"
train_points = 100
[space]
width = [4]
depth = [2]
optimizer = ["lbfgs"]
[training]
steps = 5
"""
    assert [c.batch_size for c in parse_spec(small, "test").configurations()] == [None]
    with refused("space.batch_size: expected at most 100"):
        parse_spec(small.replace('"lbfgs"', '"lbfgs", "adam"'), "test")


def test_a_checkpoint_that_no_training_outlasts_is_refused(refused):
    steps = re.search(r"^steps = (\d+)$", SAMPLED, re.MULTILINE)
    late = SAMPLED.replace(steps[0], f"{steps[0]}\ncheckpoint_steps = {steps[1]}")
    with refused("training.checkpoint_steps: expected less than training.steps"):
        parse_spec(late, "test")
