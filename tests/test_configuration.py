import dataclasses
import hashlib
import json
import os
import pickle
import subprocess
import sys

import pytest

from sensitometer.configuration import (
    ACTIVATIONS,
    AUGMENTATIONS,
    FIELDS,
    LABELS,
    LOSSES,
    MOST_LBFGS_ITERATIONS,
    OPTIMIZERS,
    Configuration,
)

SMALL = Configuration("mnist", 100, 2)
OTHER = Configuration(
    "cifar10",
    1,
    65,
    activation="hardsigmoid",
    init_scale=0.5,
    optimizer="sgd",
    learning_rate=0.0005,
    batch_size=128,
    labels="random",
    steps=0,
    seed=0,
)
FULL_BATCH = Configuration("mnist", 100, 2, optimizer="lbfgs")


# Values that loops over arrays or specifications may hand over by mistake.
LISTS = {
    "dataset": ["mnist"],
    "activation": ["relu"],
    "optimizer": ("adam", "sgd"),
    "labels": ["true"],
    "augmentation": ["none"],
    "loss": ["l2"],
    "width": [100],
    "depth": [2],
    "init_scale": [1.0],
    "learning_rate": [0.1, 0.2],
    "batch_size": [128, 256],
    "steps": [10],
    "seed": [1, 2],
}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *[("dataset", value, "dataset must be the name of a data set; got") for value in ("", None, 3, b"mnist")],
        *[("width", value, "width must be a whole number of at least 1") for value in (0, -1, 1.0, "1", None, True)],
        *[("depth", value, "depth must be a whole number of at least 2") for value in (1, 0, 2.0)],
        *[("batch_size", value, "batch_size must be a whole number of at least 1") for value in (0, 1.5, None)],
        *[("steps", value, "steps must be a whole number of at least 0") for value in (-1, 1e6, False)],
        *[("seed", value, "seed must be a whole number of at least 0") for value in (-1, 1.0)],
        *[(name, 2**63, f"{name} must be below 2.63; got 9223372036854775808") for name in ("width", "depth", "seed")],
        *[
            (name, value, f"{name} must be a number above 0; got")
            for name in ("init_scale", "learning_rate")
            for value in (0, 0.0, -1.0, float("nan"), float("inf"), "1", None, True)
        ],
        *[
            ("activation", value, "one of relu, relu6, tanh, hardtanh, hardsigmoid; got")
            for value in ("ReLU", "", None, ["relu"])
        ],
        *[
            ("optimizer", value, "optimizer must be one of sgd, momentum, adam, rmsprop, lbfgs; got")
            for value in ("adagrad", "SGD", "l-bfgs", None)
        ],
        *[("labels", value, "labels must be one of true, random; got") for value in ("True", True, None)],
        *[
            ("augmentation", value, "augmentation must be one of none, shift-flip, shift-flip-rotate; got")
            for value in ("mirrors", None)
        ],
        *[("loss", value, "loss must be one of cross-entropy, l2; got") for value in ("hinge", None)],
        *[(name, value, f"{name} must be .*; got") for name, value in LISTS.items()],
        ("dataset", "", "got ''"),
        ("loss", "a\nb", r"got 'a\\nb'"),
    ],
)
def test_value_that_is_not_listed_is_refused(refused, name, value, expected):
    with refused(expected):
        Configuration(**{**SMALL.as_dict(), name: value})


@pytest.mark.parametrize("name", ["init_scale", "learning_rate"])
def test_whole_number_beyond_floating_point_is_refused(refused, name):
    with refused(f"{name} must be a number above 0"):
        Configuration(**{**SMALL.as_dict(), name: 10**400})


@pytest.mark.parametrize(
    ("name", "value"),
    [("width", 1), ("depth", 2), ("batch_size", 1), ("steps", 0), ("seed", 0), ("seed", 2**63 - 1), ("init_scale", 5e-324)],
)
def test_least_and_greatest_values_are_taken(name, value):
    assert getattr(Configuration(**{**SMALL.as_dict(), name: value}), name) == value


def test_defaults_are_the_contracts():
    assert SMALL.as_dict() == {
        "dataset": "mnist",
        "width": 100,
        "depth": 2,
        "activation": "relu",
        "init_scale": 1.0,
        "optimizer": "momentum",
        "learning_rate": 0.005,
        "batch_size": 256,
        "labels": "true",
        "augmentation": "none",
        "loss": "cross-entropy",
        "steps": 2**18,
        "seed": 1,
    }
    assert tuple(SMALL.as_dict()) == FIELDS


# Results that people have stored are found again by these: they must never change.
@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        (SMALL, "f9e658130a9431f5"),
        (OTHER, "25024f3d93988d6d"),
        (
            Configuration("fashion-mnist", 1000, 20, "tanh", learning_rate=0.01, batch_size=128, labels="random", seed=8),
            "31ae92caa2ebe19d",
        ),
        (
            Configuration(*("cifar100", 2**16, 2, "relu6", 8, "sgd"), learning_rate=0.0005, batch_size=512, steps=2**19, seed=3),
            "84b1e0002849bcc0",
        ),
        (Configuration("digits", 50, 5, "hardtanh", 4, learning_rate=1, steps=1000, seed=2), "2ef8df529b151973"),
        (Configuration("digits", 1, 2, optimizer="sgd"), "b4274a68cd8a208e"),
    ],
)
def test_id_is_what_it_has_always_been(configuration, expected):
    assert configuration.id == expected


def test_id_is_the_same_in_another_process():
    code = (
        "import json, sys; from sensitometer.configuration import Configuration;"
        "print(*[Configuration(**fields).id for fields in json.loads(sys.argv[1])])"
    )
    argument = json.dumps([SMALL.as_dict(), OTHER.as_dict(), FULL_BATCH.as_dict()])
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    answer = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.split() == [SMALL.id, OTHER.id, FULL_BATCH.id]


@pytest.mark.parametrize("name", ["init_scale", "learning_rate"])
def test_whole_and_floating_point_numbers_name_one_network(name):
    whole, floating = (dataclasses.replace(SMALL, **{name: one}) for one in (1, 1.0))
    assert whole == floating
    assert hash(whole) == hash(floating)
    assert whole.id == floating.id
    assert type(getattr(whole, name)) is float


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_part_of_the_id(name):
    others = OTHER.as_dict() | {"augmentation": "shift-flip", "loss": "l2"}
    other = dataclasses.replace(SMALL, **{name: others[name]})
    assert len(other.id) == 16
    assert other.id != SMALL.id


def test_every_value_of_a_field_has_an_id_of_its_own():
    values = {"activation": ACTIVATIONS, "optimizer": OPTIMIZERS, "labels": LABELS, "augmentation": AUGMENTATIONS, "loss": LOSSES}
    for name, allowed in values.items():
        made = [dataclasses.replace(SMALL, **{name: value}) for value in allowed]
        assert [getattr(one, name) for one in made] == list(allowed)
        assert len({one.id for one in made}) == len(allowed)


# --- L-BFGS: neither a learning rate nor a batch size


@pytest.mark.parametrize("rate", [None, 0.1, 1e30, -1, float("nan"), "0.1", [0.1, 0.2]])
@pytest.mark.parametrize("size", [None, 1, 10**9, 0, -1, 2.5, [128, 512]])
def test_lbfgs_takes_any_learning_rate_and_batch_size_for_none(rate, size):
    c = Configuration("mnist", 100, 2, optimizer="lbfgs", learning_rate=rate, batch_size=size)
    assert (c.learning_rate, c.batch_size) == (None, None)
    assert c == FULL_BATCH
    assert c.id == FULL_BATCH.id
    assert c.stack_key == FULL_BATCH.stack_key


def test_id_of_lbfgs_is_that_of_nulls():
    content = {**SMALL.as_dict(), "optimizer": "lbfgs", "learning_rate": None, "batch_size": None, "steps": 2684}
    assert FULL_BATCH.as_dict() == content
    assert FULL_BATCH.id == hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16] == "d1b59b916b077e0b"


@pytest.mark.parametrize(("given", "taken"), [(0, 0), (1, 1), (2683, 2683), (2684, 2684), (2685, 2684), (2**19, 2684)])
def test_lbfgs_takes_at_most_2684_iterations(given, taken):
    assert MOST_LBFGS_ITERATIONS == 2684
    c = dataclasses.replace(FULL_BATCH, steps=given)
    assert c.steps == taken
    assert (c == FULL_BATCH) == (c.id == FULL_BATCH.id) == (taken == 2684)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "rmsprop"])
def test_steps_of_the_others_are_not_capped_and_their_settings_stay(name):
    c = dataclasses.replace(SMALL, optimizer=name, steps=2**19)
    assert (c.steps, c.learning_rate, c.batch_size) == (2**19, 0.005, 256)
    assert not c.full_batch


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "rmsprop"])
@pytest.mark.parametrize(("name", "kind"), [("learning_rate", "number"), ("batch_size", "whole number")])
def test_the_others_refuse_to_go_without(refused, optimizer, name, kind):
    with refused(f"{name} must be a {kind} .*; got None"):
        dataclasses.replace(SMALL, optimizer=optimizer, **{name: None})
    # As one that was L-BFGS does.
    with refused("must be a .*number .*; got None"):
        dataclasses.replace(FULL_BATCH, optimizer=optimizer)


def test_lbfgs_checks_what_it_has(refused):
    assert FULL_BATCH.full_batch
    for name, value in (("steps", -1), ("steps", 2.5), ("init_scale", 0), ("seed", None), ("width", 0), ("loss", "hinge")):
        with refused(f"{name} must be"):
            dataclasses.replace(FULL_BATCH, **{name: value})


def test_stacks_are_alike_in_all_but_four_fields():
    free = {"seed": 2, "learning_rate": 0.1, "init_scale": 2.0, "labels": "random"}
    assert dataclasses.replace(SMALL, **free).stack_key == SMALL.stack_key
    assert dataclasses.replace(FULL_BATCH, **free).stack_key == FULL_BATCH.stack_key
    others = OTHER.as_dict() | {"augmentation": "shift-flip", "loss": "l2"}
    for name in set(FIELDS) - set(free):
        assert dataclasses.replace(SMALL, **{name: others[name]}).stack_key != SMALL.stack_key


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.width = 200


def test_it_travels_to_another_process():
    assert pickle.loads(pickle.dumps(OTHER)) == OTHER


def test_another_seed_is_another_configuration_alike_in_all_else():
    for one in (Configuration("digits", 4, 2, learning_rate=0.1), Configuration("digits", 4, 2, optimizer="lbfgs")):
        assert one.id  # which is remembered
        other = one.with_seed(7)
        assert other == dataclasses.replace(one, seed=7)
        assert other.id == dataclasses.replace(one, seed=7).id != one.id
        assert (one.seed, hash(other)) == (1, hash(dataclasses.replace(one, seed=7)))
