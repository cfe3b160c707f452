import dataclasses
import json
import os
import pickle
import subprocess
import sys

import pytest

from sensitometer.configuration import FIELDS, Configuration

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


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        *[("dataset", value, "dataset must be the name of a data set; got") for value in ("", None, 3, b"mnist")],
        *[("width", value, "width must be a whole number of at least 1") for value in (0, -1, 1.0, "1", None, True, 2**63)],
        *[("depth", value, "depth must be a whole number of at least 2") for value in (1, 0, 2.0, 2**63)],
        *[("batch_size", value, "batch_size must be a whole number of at least 1") for value in (0, 1.5, None)],
        *[("steps", value, "steps must be a whole number of at least 0") for value in (-1, 1e6, False)],
        *[("seed", value, "seed must be a whole number of at least 0") for value in (-1, 1.0, 2**63)],
        *[
            (name, value, f"{name} must be a number above 0; got")
            for name in ("init_scale", "learning_rate")
            for value in (0, 0.0, -1.0, float("nan"), float("inf"), "1", None, True)
        ],
        *[
            ("activation", value, "one of relu, relu6, tanh, hardtanh, hardsigmoid; got")
            for value in ("ReLU", "", None, ["relu"])
        ],
        *[("optimizer", value, "optimizer must be one of sgd, momentum.*; got") for value in ("adagrad", "SGD", None)],
        *[("labels", value, "labels must be one of true, random; got") for value in ("True", True, None)],
        *[("augmentation", value, "augmentation must be one of none.*; got") for value in ("mirrors", None)],
        *[("loss", value, "loss must be one of cross-entropy.*; got") for value in ("hinge", None)],
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
@pytest.mark.parametrize(("configuration", "expected"), [(SMALL, "f9e658130a9431f5"), (OTHER, "25024f3d93988d6d")])
def test_id_is_what_it_has_always_been(configuration, expected):
    assert configuration.id == expected


def test_id_is_the_same_in_another_process():
    code = (
        "import json, sys; from sensitometer.configuration import Configuration;"
        "print(*[Configuration(**fields).id for fields in json.loads(sys.argv[1])])"
    )
    argument = json.dumps([SMALL.as_dict(), OTHER.as_dict()])
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    answer = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=True, env=environment)
    assert answer.stdout.split() == [SMALL.id, OTHER.id]


@pytest.mark.parametrize("name", ["init_scale", "learning_rate"])
def test_whole_and_floating_point_numbers_name_one_network(name):
    whole, floating = (dataclasses.replace(SMALL, **{name: one}) for one in (1, 1.0))
    assert whole == floating
    assert hash(whole) == hash(floating)
    assert whole.id == floating.id
    assert type(getattr(whole, name)) is float


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_is_part_of_the_id(name):
    values = SMALL.as_dict()
    changed = dict(OTHER.as_dict(), augmentation="other", loss="other")
    other = object.__new__(Configuration)
    for field in FIELDS:  # past the checks, for the fields that have one value only
        object.__setattr__(other, field, changed[field] if field == name else values[field])
    assert len(other.id) == 16
    assert other.id != SMALL.id


def test_it_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SMALL.width = 200


def test_it_travels_to_another_process():
    assert pickle.loads(pickle.dumps(OTHER)) == OTHER
