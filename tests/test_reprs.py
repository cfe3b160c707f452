"""Objects that hold many numbers have a repr of one short line, without the numbers."""

import pytest
import torch

import sensitometer as sm
from sensitometer.data import Points
from sensitometer.measures import jacobian_norm_estimate, path_profile, point_values
from sensitometer.measuring import measure
from sensitometer.store import Store


def normals(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


NETWORK = sm.MLP([normals(6, 5), normals(3, 6)], "relu")
WIDE = sm.MLP([normals(9, 5)], "relu")
X = normals(4, 5)
LOOP, PLANE = sm.paths.Polyline(X), sm.paths.Slice(*X[:3])
IMAGES = normals(3, 1, 4, 6)
SINGLE = sm.MLP([torch.eye(2)] * 2, "relu")
BIG = sm.Dataset("mnist", *(Points(torch.zeros(n, 1), torch.zeros(n).long()) for n in (60_000, 10_000)), 10, (1, 28, 28))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: BIG, "Dataset(mnist, 60,000 train and 10,000 test points, 1 x 28 x 28, 10 classes, none)"),
        (lambda: BIG.train, "Points(60,000 points of 1 input)"),
        (lambda: LOOP, "Polyline(4 vertices, closed, 5 inputs)"),
        (lambda: sm.paths.Polyline(IMAGES, closed=False), "Polyline(3 vertices, open, 1 x 4 x 6 inputs)"),
        (lambda: sm.paths.Ellipse(*X[:3]), "Ellipse(5 inputs)"),
        (lambda: PLANE, "Slice(5 inputs)"),
        (lambda: sm.paths.Slice(*IMAGES), "Slice(1 x 4 x 6 inputs)"),
        (lambda: sm.transitions(SINGLE, sm.paths.Polyline(-torch.eye(2))), "TransitionCount(0 transitions of 1 activation)"),
        (lambda: sm.boundaries(NETWORK, PLANE, method="sampled", resolution=12), "SampledBoundaries(12 x 12 pixels, 1 layer)"),
        (lambda: path_profile(NETWORK, LOOP, bins=16), "PathProfile(1 network, 16 bins)"),
        (lambda: point_values(NETWORK, X, torch.tensor([0, 1, 2, 0])), "PointValues(4 points)"),
        (lambda: sm.Monitor(NETWORK, X, every=1), "Monitor(4 points, every 1 step, 0 records)"),
        (lambda: jacobian_norm_estimate(WIDE, X, projections=8), "JacobianNormEstimate(4 points, 8 projections)"),
    ],
    ids=lambda value: value.partition("(")[0] if isinstance(value, str) else "",
)
def test_results_are_shown_in_one_short_line(make, expected):
    assert repr(make()) == expected


def test_a_measurement_says_how_much_was_measured(toy):
    network = sm.MLP([normals(4, 6), normals(3, 4)], "relu")
    assert repr(measure(network, toy, points=12, transitions=2)) == "Measurement(12 points of toy, transitions on 2 loops)"
    assert repr(measure(network, toy, points=1, transitions=0)) == "Measurement(1 point of toy)"


def test_a_trained_network_says_which_it_is_and_how_it_ended(toy):
    configuration = sm.Configuration("toy", 4, 2, batch_size=10, steps=3)
    (result,) = sm.train([configuration], toy)
    assert repr(result) == f"Result({configuration.id}, unfitted, MLP(6-4-3, relu, 36 weights))"


def test_a_survey_says_where_it_is_and_how_many_networks_it_has(tmp_path):
    with Store.create(tmp_path / "quick", "") as store:
        assert repr(store) == f"Survey({str(tmp_path / 'quick')!r}, 0 networks)"
        store.record({**sm.Configuration("toy", 4, 2).as_dict(), "id": "a", "state": "fitted"})
        assert repr(store) == f"Survey({str(tmp_path / 'quick')!r}, 1 network)"
    assert repr(store) == f"Survey({str(tmp_path / 'quick')!r}, closed or damaged)"
