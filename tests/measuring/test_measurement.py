"""Measures of one model, and the command that prints them."""

import csv
import io
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt
from reference import cross_entropy, forward, jacobian_norm
from safetensors.torch import save_model
from torch import nn
from trained_models import ZOO, convolutional

from sensitometer.data import Dataset, load_dataset
from sensitometer.errors import InvalidInputError
from sensitometer.measures.regions.transitions import transitions
from sensitometer.measuring import measure
from sensitometer.measuring.measurement import mean
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
    found = measure(network, digits, transitions=10)
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
    table = found.table()
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


def test_scores_are_judged_beside_the_norm(network, digits):
    found = measure(network, digits, points=60)
    assert found.transitions is None
    scores, correct = found.frame(), found.values.correct.numpy()
    assert list(found.detection.index) == ["Jacobian norm", "1 - max p", "entropy", "-margin", "energy"]
    for name, column in (("Jacobian norm", "jacobian_norm"), ("1 - max p", "one_minus_max_p"), ("-margin", "minus_margin")):
        wrong, right = scores[column][~correct], scores[column][correct]
        pairs = [(a > b) + (a == b) / 2 for a in wrong for b in right]
        assert found.detection.loc[name, "auroc"] == pytest.approx(sum(pairs) / len(pairs))
    np.testing.assert_allclose(scores.one_minus_max_p, 1 - found.values.confidence, atol=1e-12)
    assert "finds errors" in found.verdict
    assert "1 - max p" in found.verdict


def test_classes_have_their_means(network, digits):
    found = measure(network, digits, points=200)
    classes = found.per_class()
    assert classes.points.sum() == 200
    here = found.values.label == 3
    assert classes.accuracy[3] == float(found.values.correct[here].double().mean())
    assert classes.jacobian_norm[3] == pytest.approx(float(found.values.jacobian_norm[here].mean()))


def test_the_images_of_the_extremes_are_drawn(network, digits):
    found = measure(network, digits, points=60)
    axes = found.plot(network, most=3, least=2)
    assert len(axes) == 10
    norms = found.values.jacobian_norm.sort(descending=True).values
    texts = [text.get_text() for ax in axes for text in [*ax.texts, ax.title, ax.xaxis.label]]
    assert any(f"{norms[0]:.2g}" in text for text in texts), texts
    assert len(found.plot(most=100, least=5)) == 60
    plt.close("all")


def test_points_without_labels_are_measured_without_them(digits):
    model, x = nn.Linear(64, 10), digits.test.x[:20]
    found = measure(model, Dataset.from_arrays(x))
    assert (found.detection, found.verdict, found.bounds) == (None, "", None)
    assert list(found.table()) == ["Jacobian norm", "logit Jacobian norm"]
    columns = "point predicted confidence jacobian_norm logit_jacobian_norm one_minus_max_p entropy minus_margin energy"
    assert list(found.frame()) == columns.split()
    labelled = measure(model, Dataset.from_arrays(x, digits.test.y[:20], classes=10))
    assert labelled.values.jacobian_norm.tolist() == found.values.jacobian_norm.tolist()
    with pytest.raises(InvalidInputError, match="per_class needs a classifier and labels"):
        found.per_class()


def test_models_of_one_output_and_of_numbers_have_measures_of_their_own():
    torch.manual_seed(0)
    x, model = torch.randn(50, 6), nn.Linear(6, 1)
    y = (x[:, 0] > 0).long()
    binary = measure(model, Dataset.from_arrays(x, y), of="sigmoid")
    order, p = binary.points, model(x).sigmoid().detach()[:, 0].double()
    assert binary.table()["accuracy"].value == float(((p > 0.5) == (y == 1)).double().mean())
    loss = nn.functional.binary_cross_entropy(p, y.double())
    assert binary.table()["cross-entropy"].value == pytest.approx(float(loss), rel=1e-5)
    expected = p * (1 - p) * model.weight.detach().norm()
    torch.testing.assert_close(binary.values.jacobian_norm, expected[order], rtol=1e-5, atol=0)
    assert list(binary.detection.index) == ["Jacobian norm", "1 - max p", "entropy", "-margin"]
    target = torch.randn(50, 2)
    numbers = measure(nn.Linear(6, 2), Dataset.from_arrays(x, target), of="outputs")
    assert list(numbers.table()) == ["squared error", "Jacobian norm of the outputs"]
    softmax = nn.Sequential(nn.Linear(6, 3), nn.Softmax(1))
    data = Dataset.from_arrays(x, y, classes=3)
    ready, plain = measure(softmax, data, of="outputs"), measure(softmax[0], data)
    torch.testing.assert_close(ready.values.jacobian_norm, plain.values.jacobian_norm, rtol=1e-5, atol=0)
    torch.testing.assert_close(ready.values.cross_entropy, plain.values.cross_entropy, rtol=1e-5, atol=1e-7)


def test_further_inputs_and_outputs_by_name(digits):
    torch.manual_seed(0)
    head, shift = nn.Linear(64, 10), torch.randn(len(digits.test.y), 64)
    found = measure(lambda x, z: {"features": x, "scores": head(x + z)}, digits, points=9, output="scores", inputs={"z": shift})
    x = digits.test.x[found.points] + shift[found.points]
    torch.testing.assert_close(found.values.jacobian_norm, jacobian_norm(head.double(), x), rtol=1e-5, atol=0)


def test_a_better_normalisation_is_named(digits):
    torch.manual_seed(0)
    pixels = digits.renormalised("none")
    model = nn.Sequential(nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(pixels.train.x), pixels.train.y).backward()
        optimizer.step()
    # Far from pixels in [0, 1].
    (warning,) = measure(model, digits.renormalised("5/0.02"), points=300).notes
    assert warning.startswith("WARNING: the model was hardly trained on '5/0.02' inputs")
    assert warning.endswith("measure it with --normalise none")
    assert measure(model, pixels, points=300).notes == ()


def test_data_that_are_none_are_refused_and_labels_from_1_are_noted(refused, digits):
    model = nn.Linear(64, 10)
    with refused(r"data must be a Dataset, a known name or a path; got tuple: make a Dataset with Dataset.from_arrays\(x, y\)"):
        measure(model, (digits.test.x, digits.test.y))
    with refused("got Linear; model and data are swapped"):
        measure(digits, model)
    from_1 = Dataset.from_arrays(digits.test.x[:30], torch.arange(30) % 5 + 1)
    (note,) = measure(model, from_1).notes
    assert note.startswith("the model has 10 classes, and the highest label is 5, and none is 0: subtract 1 if they count from 1")
    with refused("none is 0: subtract 1"):
        measure(nn.Linear(64, 5), from_1)


def test_a_model_in_training_mode_is_left_as_it_was(refused, digits):
    model = nn.Sequential(nn.Linear(64, 10), nn.BatchNorm1d(10))
    with refused("must be in evaluation mode, but its layer '1' is in training mode"):
        measure(model, digits)
    assert model[1].num_batches_tracked == 0


def test_a_saturated_softmax_is_noted(digits):
    model = nn.Linear(64, 10)
    (note,) = measure(model, Dataset.from_arrays(1e4 * digits.test.x[:40], digits.test.y[:40], classes=10)).notes
    assert note.startswith("WARNING: the norm is exactly 0 at ")


def test_half_precision_is_measured_in_a_copy_that_the_notes_name(digits):
    model = nn.Linear(64, 10).bfloat16()
    found = measure(model, digits, points=5)
    assert found.notes == ("measured in a float32 copy of the bfloat16 model",)
    expected = jacobian_norm(model.double(), digits.test.x[found.points])
    torch.testing.assert_close(found.values.jacobian_norm, expected, rtol=1e-5, atol=0)


def test_an_image_model_is_measured_as_images(digits):
    model = convolutional()
    found = measure(model, digits, points=25, transitions=2, samples=400)
    x = digits.test.x[found.points].view(-1, 1, 8, 8)
    torch.testing.assert_close(found.values.jacobian_norm, jacobian_norm(convolutional().double(), x), rtol=1e-4, atol=1e-10)
    assert found.method == "400 samples"
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


def test_smooth_networks_are_sampled(digits):
    network = MLP(initial_weights(layer_shapes(64, 9, 2, 10), "tanh", 1.0, 1), "tanh")
    found = measure(network, digits, points=5, transitions=2, samples=500)
    assert found.transitions.shape == (2,)
    assert "transitions (500 samples)" in found.table()


def test_means_of_few_points():
    assert mean(torch.zeros(0, dtype=torch.bool)).count == 0
    assert math.isnan(mean(torch.zeros(0)).value)
    assert mean(torch.tensor([2.0])).value == 2
    assert math.isnan(mean(torch.tensor([2.0])).standard_error)


def test_points_are_written_with_all_their_digits(network, digits, tmp_path):
    found = measure(network, digits, points=4, transitions=2)
    found.write(tmp_path / "points.csv")
    with (tmp_path / "points.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(found.frame())
    assert [int(row["point"]) for row in rows] == found.points.tolist()
    for column in ("confidence", "cross_entropy", "jacobian_norm", "label_jacobian_norm", "logit_jacobian_norm"):
        assert [float(row[column]) for row in rows] == getattr(found.values, column).tolist()
    assert [row["transitions"] for row in rows] == [*map(str, found.transitions.tolist()), "", ""]
    found.write(tmp_path / "points.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "points.parquet"), found.frame())


@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        (
            nn.Linear(64, 7),
            {},
            "model must give 10 logits, one per class of digits; it gives 7",
        ),
        (
            nn.Linear(9, 10),
            {},
            r"model does not take torch.float32 points \[\d+, 1, 8, 8\]: mat1 and mat2 shapes cannot be multiplied",
        ),
        (lambda x: (x, x), {}, "output must name one of the model's outputs: 0 "),
        (lambda x: x.logits, {}, "'Tensor' object has no attribute 'logits'"),
        (lambda x: x.flatten(1)[:, :10] * x.flatten(1)[:1, :10], {}, "treat each point alone"),
        (nn.Linear(64, 10), {"points": 501}, "points must be a whole number from 1 to 500; got 501"),
        (nn.Linear(64, 10), {"points": 5, "transitions": 6}, "transitions must be a whole number from 0 to 5; got 6"),
        (nn.Linear(64, 10), {"points": 5, "transitions": 1}, "model has no activation"),
        (nn.Sequential(nn.Linear(64, 10), nn.ReLU()), {"samples": 1, "transitions": 1}, "samples must be a whole number"),
        (nn.Sequential(nn.Linear(64, 10), nn.Dropout()), {}, "must be in evaluation mode"),
        (MLP([torch.ones(10, 65)], "relu"), {}, r"x must be a torch.float32 tensor of points \[N, 65\]"),
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
    assert printed.startswith("measuring net.safetensors on digits\n")
    found = measure(network, digits, transitions=5)
    assert "net.safetensors on 500 of 500 test points of digits" in printed
    for name, row in found.table().items():
        assert re.search(
            rf"^{re.escape(name)} +{row.value:.4g} +{row.standard_error:.2g} +{row.count}$", printed, re.MULTILINE
        ), name
    assert re.search(rf"^Jacobian norm +{found.detection.auroc.iloc[0]:.3f} \[", printed, re.MULTILINE)
    assert found.verdict in printed
    assert "within (5)" in printed
    assert printed.endswith("points in net-digits-points.csv\n")
    with Path("net-digits-points.csv").open() as file:
        assert [int(row["point"]) for row in csv.DictReader(file)] == found.points.tolist()


def test_the_command_measures_a_factory_of_an_image_model(zoo, run):
    save_model(convolutional(), "w.safetensors")
    options = ["--data", "digits", "--points", 50, "--transitions", 2, "--samples", 300, "--out", "here.csv"]
    status, printed, errors = run("measure", "zoo:conv", "--weights", "w.safetensors", *options)
    assert (status, errors) == (0, "")
    assert "zoo:conv with the weights w.safetensors on 50 of 500 test points of digits" in printed
    assert re.search(r"^transitions \(300 samples\) +\d", printed, re.MULTILINE)
    assert printed.endswith("points in here.csv\n")
    assert len(Path("here.csv").read_text().splitlines()) == 51


def test_the_command_prints_json_or_the_points_for_programs(zoo, run):
    status, printed, errors = run("measure", "zoo:linear", "--data", "digits", "--points", 20, "--json")
    assert (status, errors) == (0, "points in zoo.linear-digits-points.csv\n")
    found = json.loads(printed)
    assert found["means"]["Jacobian norm"]["count"] == found["points"] == 20
    assert found["normalise"] == "sphere"
    status, printed, errors = run("measure", "zoo:linear", "--data", "digits", "--points", 20, "--out", "-")
    assert status == 0
    assert len(list(csv.DictReader(io.StringIO(printed)))) == 20
    assert "Jacobian norm" in errors


def test_the_command_crops(zoo, run):
    MLP(initial_weights(layer_shapes(16, 5, 2, 10), "relu", 1.0, 1), "relu").save("net.safetensors")
    assert run("measure", "net.safetensors", "--data", "digits", "--crop", 4, "--points", 5)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["zoo:seven", "--data", "digits"], "model must give 10 logits, one per class of digits; it gives 7"),
        (["zoo:linear", "--data", "letters"], "data must be a name (digits, "),
        (["zoo:linear", "--data", "digits", "--points", "501"], "points must be a whole number from 1 to 500; got 501"),
        (["zoo:linear", "--data", "digits", "--crop", "9"], "crop for digits must be a whole number from 1 to 8; got 9"),
        (
            ["zoo:linear", "--data", "digits", "--out", "x.xlsx"],
            "--out must end in .csv or .parquet, or be - for standard output; got x.xlsx",
        ),
        (["zoo:linear"], "Missing option '--data'"),
        (["net.pt", "--data", "digits"], "net.pt is a pickle of torch.nn.modules.linear.Linear, which can run any code when it"),
        (["text.pt", "--data", "digits", "--trust-pickle"], "text.pt is no model, or damaged: model must be a .pt2 file"),
        (["net.pt2", "--data", "digits"], "no model net.pt2: there is no such file"),
        (
            ["zoo:linear", "--data", "digits", "--points", "9", "--out", "none/x.csv"],
            "cannot write the points to none/x.csv: No such",
        ),
        (["zoo:linear", "--data", "digits", "--out", "."], "cannot write the points to .: it is a folder"),
        (["zoo:linear", "--data", "digits", "--out", "/proc/x.csv"], "cannot write the points to /proc/x.csv: "),
        (["sys:exit", "--data", "digits"], "sys:exit() failed: SystemExit: SystemExit"),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_makes_nothing(zoo, run, arguments, message):
    torch.save(torch.nn.Linear(3, 2), zoo / "net.pt")
    (zoo / "text.pt").write_text("no pickle")
    status, printed, errors = run("measure", *arguments)
    assert status == 2
    assert re.fullmatch(rf"(measuring {arguments[0]} on \w+\n)?", printed)
    assert message in errors
    assert errors.count("\n") == 1
    assert not list(zoo.glob("*.csv"))
