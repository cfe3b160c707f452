"""Measures of one model, and the command that prints them."""

import csv
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from reference import cross_entropy, forward, jacobian_norm
from safetensors.torch import save_model
from torch import nn
from trained_models import ZOO, convolutional

from sensitometer.data import load_dataset
from sensitometer.measures.regions.transitions import transitions
from sensitometer.measuring.measurement import COLUMNS, mean, measure, write_points
from sensitometer.networks import MLP, initial_weights, layer_shapes
from sensitometer.paths import translation


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits")


@pytest.fixture(scope="module")
def network(digits):
    """Ten steps of training, so that it has points of both kinds."""
    weights = [nn.Parameter(weight) for weight in initial_weights(layer_shapes(64, 20, 3, 10), "relu", 1.0, 1)]
    optimizer = torch.optim.Adam(weights, 0.01)
    for _ in range(10):
        h = digits.train.x
        for weight in weights[:-1]:
            h = (h @ weight.T).relu()
        optimizer.zero_grad()
        nn.functional.cross_entropy(h @ weights[-1].T, digits.train.y).backward()
        optimizer.step()
    return MLP([weight.detach() for weight in weights], "relu")


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A folder to work in, with the module `zoo` and a file of the weights of its `conv`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zoo.py").write_text(ZOO)
    yield tmp_path
    sys.modules.pop("zoo", None)


# --- what is measured


def test_a_network_is_measured_on_all_points_exactly(network, digits):
    found = measure(network, digits)
    assert sorted(found.points.tolist()) == list(range(500))
    assert found.transitions.shape == (10,)
    assert found.method == "exact"


def test_the_values_are_those_of_the_twins(network, digits):
    found = measure(network, digits, points=60, transitions=3)
    order = found.points
    x, y = digits.test.x[order], digits.test.y[order]

    def twin(points):
        return forward(network.weights, "relu", points)

    torch.testing.assert_close(found.values.jacobian_norm, jacobian_norm(twin, x), rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(found.values.logit_jacobian_norm, jacobian_norm(twin, x, "logits"), rtol=1e-4, atol=1e-12)
    table = found.table(99)
    assert table["cross-entropy"].value == pytest.approx(cross_entropy(twin(x), y), rel=1e-6)
    correct = twin(x).argmax(1) == y
    assert 5 < int(correct.sum()) < 55
    assert table["accuracy"].value == float(correct.double().mean())
    wrong = found.values.jacobian_norm[~correct].tolist()
    assert table["  of wrong points"].value == pytest.approx(sum(wrong) / len(wrong))
    deviation = math.sqrt(sum((norm - sum(wrong) / len(wrong)) ** 2 for norm in wrong) / (len(wrong) - 1))
    assert table["  of wrong points"].standard_error == pytest.approx(deviation / math.sqrt(len(wrong)))
    loops = [translation(image) for image in digits.test.x[order[:3]].view(-1, 1, 8, 8)]
    assert found.transitions.tolist() == [int(transitions(network, loop).total) for loop in loops]
    assert table["transitions (exact)"].count == 3


def test_auroc_counts_the_pairs_of_a_wrong_and_a_correct_point(network, digits):
    found = measure(network, digits, points=60, transitions=0)
    norms, correct = found.values.jacobian_norm.tolist(), found.values.correct.tolist()
    pairs = [
        (a > b) + (a == b) / 2
        for a, wrong in zip(norms, correct, strict=True)
        for b, right in zip(norms, correct, strict=True)
        if right and not wrong
    ]
    assert found.auroc == pytest.approx(sum(pairs) / len(pairs))
    assert found.transitions is None


def test_an_image_model_is_measured_as_images(digits):
    model = convolutional()
    found = measure(model, digits, points=25, transitions=2, samples=400)
    x = digits.test.x[found.points].view(-1, 1, 8, 8)
    torch.testing.assert_close(found.values.jacobian_norm, jacobian_norm(convolutional().double(), x), rtol=1e-4, atol=1e-10)
    assert found.method == "sampled"
    loop = translation(x[1], flat=False).points(torch.linspace(0, 8, 401, dtype=torch.float64))
    with torch.no_grad():
        on = (model[:2](loop) > 0).flatten(1)
    assert int(found.transitions[1]) == int((on[1:] != on[:-1]).sum())


def test_fewer_points_are_the_first_of_more(network, digits):
    few, many = (measure(network, digits, points=points, transitions=0) for points in (10, 40))
    assert few.points.tolist() == many.points[:10].tolist()
    assert few.points.tolist() != list(range(10))


def test_other_models_are_measured_on_no_more_points_than_there_are(digits):
    found = measure(nn.Linear(64, 10).double(), digits)
    assert len(found.points) == 500
    assert found.transitions is None
    assert found.uncounted.startswith("model has no activation")


def test_smooth_networks_are_sampled(digits):
    network = MLP(initial_weights(layer_shapes(64, 9, 2, 10), "tanh", 1.0, 1), "tanh")
    found = measure(network, digits, points=5, transitions=2, samples=500)
    assert found.method == "sampled"
    assert found.transitions.shape == (2,)
    assert "transitions (500 samples)" in found.table(500)


def test_means_of_few_points():
    assert mean(torch.zeros(0, dtype=torch.bool)).count == 0
    assert math.isnan(mean(torch.zeros(0)).value)
    assert mean(torch.tensor([2.0])).value == 2
    assert math.isnan(mean(torch.tensor([2.0])).standard_error)


def test_points_are_written_with_all_their_digits(network, digits, tmp_path):
    found = measure(network, digits, points=4, transitions=2)
    write_points(found, tmp_path / "points.csv")
    with (tmp_path / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == ("point", *COLUMNS, "transitions")
    assert [int(row["point"]) for row in rows] == found.points.tolist()
    for column in ("confidence", "cross_entropy", "jacobian_norm", "label_jacobian_norm", "logit_jacobian_norm"):
        assert [float(row[column]) for row in rows] == getattr(found.values, column).tolist()
    assert [row["transitions"] for row in rows] == [*map(str, found.transitions.tolist()), "", ""]
    assert {row["correct"] for row in rows} <= {"0", "1"}


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        (
            nn.Linear(64, 7),
            {},
            r"for points \[2, 64\] it gives \[2, 7\], not logits \[2, 10\] of 10 classes; for points \[2, 1, 8, 8\]",
        ),
        (
            nn.Linear(9, 10),
            {},
            r"\[2, 64\] it says: mat1 and mat2 shapes .*\(2x64 and 9x10\); for points \[2, 1, 8, 8\] it says: mat1",
        ),
        (lambda x: (x, x), {}, "it gives tuple, not logits"),
        (lambda x: x.logits, {}, r"for points \[2, 64\] it says: 'Tensor' object has no attribute 'logits'; for points"),
        (lambda x: x @ torch.from_numpy(x.numpy()[:1].T.repeat(10, 1)), {}, "the model's Jacobian cannot be computed: "),
        (nn.Linear(64, 10), {"points": 501}, "points must be a whole number from 1 to 500; got 501"),
        (nn.Linear(64, 10), {"points": 5, "transitions": 6}, "transitions must be a whole number from 0 to 5; got 6"),
        (nn.Linear(64, 10), {"points": 5, "transitions": 1}, "model has no activation"),
        (nn.Linear(64, 10), {"samples": 1}, "samples must be a whole number from 2 to "),
        (nn.Sequential(nn.Linear(64, 10), nn.Dropout()), {}, "must be in evaluation mode"),
        (MLP([torch.ones(10, 65)], "relu"), {}, r"it says: x must be a torch.float32 tensor of points \[N, 65\]"),
    ],
)
def test_models_and_numbers_that_do_not_fit_are_refused(refused, digits, model, options, expected):
    with refused(expected):
        measure(model, digits, **options)


# --- the command


def test_the_command_prints_a_table_and_writes_the_points(zoo, run, network, digits):
    network.save("net.safetensors")
    status, printed, errors = run("measure", "net.safetensors", "--data", "digits", "--transitions", 5)
    assert (status, errors) == (0, "")
    found = measure(network, digits, transitions=5)
    assert "net.safetensors on 500 of 500 test points of digits" in printed
    for name, row in found.table(1).items():
        assert re.search(
            rf"^{re.escape(name)} +{row.value:.4g} +{row.standard_error:.2g} +{row.count}$", printed, re.MULTILINE
        ), name
    assert f"{found.auroc:.1%} of pairs (AUROC)" in printed
    assert "within (5)" in printed
    assert printed.endswith("points in net-digits-points.csv\n")
    with Path("net-digits-points.csv").open() as file:
        assert [int(row["point"]) for row in csv.DictReader(file)] == found.points.tolist()


def test_the_command_measures_a_factory_of_an_image_model(zoo, run):
    save_model(convolutional(), "w.safetensors")
    options = ["--data", "digits", "--points", 50, "--transitions", 2, "--samples", 300, "--out", "here.csv"]
    status, printed, errors = run("measure", "zoo:conv", "--weights", "w.safetensors", *options)
    assert (status, errors) == (0, "")
    assert "zoo:conv on 50 of 500 test points of digits" in printed
    assert re.search(r"^transitions \(300 samples\) +\d", printed, re.MULTILINE)
    assert printed.endswith("points in here.csv\n")
    assert len(Path("here.csv").read_text().splitlines()) == 51


def test_the_command_says_why_transitions_are_missing(zoo, run):
    status, printed, _ = run("measure", "zoo:linear", "--data", "digits", "--points", 20)
    assert status == 0
    assert "transitions not counted: model has no activation whose boundaries are known" in printed
    assert Path("zoo.linear-digits-points.csv").exists()


def test_the_command_crops(zoo, run):
    MLP(initial_weights(layer_shapes(16, 5, 2, 10), "relu", 1.0, 1), "relu").save("net.safetensors")
    assert run("measure", "net.safetensors", "--data", "digits", "--crop", 4, "--points", 5)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zoo:seven", "--data", "digits"], "model does not take the points of digits: for points [2, 64] it gives [2, 7], not"),
        (["zoo:linear", "--data", "letters"], "the data set must be one of digits, "),
        (["zoo:linear", "--data", "digits", "--points", "501"], "points must be a whole number from 1 to 500; got 501"),
        (["zoo:linear", "--data", "digits", "--crop", "9"], "crop for digits must be a whole number from 1 to 8; got 9"),
        (["zoo:linear"], "Missing option '--data'"),
        (["net.pt", "--data", "digits"], "net.pt is a pickle of torch.nn.modules.linear.Linear, which can run any code when it"),
        (["text.pt", "--data", "digits", "--trust-pickle"], "text.pt is no model, or damaged: model must be a .pt2 file"),
        (["net.pt2", "--data", "digits"], "no model net.pt2: there is no such file"),
        (
            ["zoo:linear", "--data", "digits", "--points", "9", "--out", "none/x.csv"],
            "cannot write the points to none/x.csv: No such",
        ),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_makes_nothing(zoo, run, arguments, message):
    torch.save(torch.nn.Linear(3, 2), zoo / "net.pt")
    (zoo / "text.pt").write_text("no pickle")
    status, printed, errors = run("measure", *arguments)
    assert (status, printed) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1
    assert not list(zoo.glob("*.csv"))
