"""Several models on the same points, and the command that prints their differences."""

import json
import math

import pytest
import torch
from torch import nn

import sensitometer as sm
from sensitometer.measuring.comparison import CAUTION
from sensitometer.networks import MLP, initial_weights, layer_shapes


@pytest.fixture(scope="module")
def digits():
    return sm.load_dataset("digits")


def network(seed, scale=1.0):
    return MLP(initial_weights(layer_shapes(64, 12, 2, 10), "relu", scale, seed), "relu")


def test_differences_are_paired(digits):
    models = {"a": network(1), "b": network(2, 3.0)}
    comparison = sm.compare(models, digits, points=40, transitions=5)
    table = comparison.table().set_index("quantity")
    a, b = (sm.measure(model, digits, points=40, transitions=5) for model in models.values())
    assert (a.points == b.points).all()
    apart = (a.values.jacobian_norm - b.values.jacobian_norm).tolist()
    average = sum(apart) / 40
    row = table.loc["Jacobian norm"]
    assert row.difference == pytest.approx(average)
    deviation = math.sqrt(sum((value - average) ** 2 for value in apart) / 39)
    assert row.standard_error == pytest.approx(deviation / math.sqrt(40))
    assert row.verdict == "b is higher"
    assert row.high < 0
    assert table.loc["transitions"].points == 5
    assert table.loc["accuracy"].value_a == a.table()["accuracy"].value


def test_a_model_and_itself_cannot_be_told_apart(digits):
    table = sm.compare({"a": network(1), "b": network(1), "c": network(1)}, digits, points=30).table()
    assert set(table.verdict) == {"cannot tell"}
    assert sm.compare({"a": network(1), "b": network(2)}, digits, points=30).caution == ""
    assert [tuple(pair) for pair in table[["a", "b"]].drop_duplicates().to_numpy()] == [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize(
    ("models", "expected"),
    [
        ({"a": network(1)}, r"models must be two models or more by their names, .* got 1 model"),
        ([network(1), network(2)], "models must be two models or more by their names, .* got list"),
        ({"a": network(1), "other": nn.Linear(64, 4)}, "other: model must give 10 logits"),
    ],
)
def test_bad_models_are_refused(refused, digits, models, expected):
    with refused(expected):
        sm.compare(models, digits, points=5)


def test_the_command_compares_files_and_weights_of_one_factory(tmp_path, monkeypatch, run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "linear_zoo.py").write_text("from torch import nn\n\ndef linear():\n    return nn.Linear(64, 10)\n")
    network(1).save("net.safetensors")
    torch.manual_seed(0)
    for name in ("one", "two"):
        torch.save(nn.Linear(64, 10).state_dict(), f"{name}.pt")
    models = ["net.safetensors", "linear_zoo:linear", "linear_zoo:linear", "--weights", "one.pt", "--weights", "two.pt"]
    status, printed, errors = run("compare", *models, "--data", "digits", "--points", 50)
    assert (status, errors) == (0, "")
    assert printed.count("\nJacobian norm ") == 3
    assert "A = one.pt\nB = two.pt" in printed
    assert printed.endswith(f"\n{CAUTION}\n")
    status, printed, _ = run("compare", *models, "--data", "digits", "--points", 50, "--json")
    assert status == 0
    assert len(json.loads(printed)["rows"]) == 12


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["net.safetensors"], "models must be two models or more by their names"),
        (["net.safetensors", "net.safetensors"], "the models must be different ones; got net.safetensors, net.safetensors"),
        (["net.safetensors", "none.safetensors"], "no model none.safetensors: there is no such file"),
        (
            ["net.safetensors", "a:b", "--weights", "x.pt", "--weights", "y.pt"],
            "--weights must be given once per package.module:factory",
        ),
    ],
)
def test_bad_commands_are_one_line(tmp_path, monkeypatch, run, arguments, message):
    monkeypatch.chdir(tmp_path)
    network(1).save("net.safetensors")
    status, _, errors = run("compare", *arguments, "--data", "digits")
    assert status == 2
    assert message in errors
    assert errors.count("\n") == 1
