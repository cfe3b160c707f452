"""Arrays that a survey keeps of a network, against the measures taken plainly, and what becomes of the files."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from reference import crossings

import sensitometer as sm
from sensitometer import paths
from sensitometer.data import Points
from sensitometer.errors import InvalidInputError, StoreError
from sensitometer.measures import boundaries, path_profile, point_values
from sensitometer.networks import MLP
from sensitometer.store.arrays import TOGETHER, write_arrays
from sensitometer.survey.checking import check_survey
from sensitometer.survey.job import arrays as network_arrays
from sensitometer.survey.job.arrays import UNITS, measure_arrays, training_anchors
from sensitometer.survey.scheduling.cost import Measures
from sensitometer.survey.spec import parse_spec
from sensitometer.training import train_stack

BINS = 21
SPEC = """
[survey]
name = "arrays"
[data]
name = "digits"
train_points = 200
[space]
width = [8]
depth = [3]
activation = ["relu", "hardtanh"]
learning_rate = [0.05, 1e9]
batch_size = [50]
seed = [1, 2]
[training]
steps = 60
[measure]
jacobian = 20
points = 7
paths = 21
slice = true
"""


@pytest.fixture(scope="module")
def digits():
    return sm.load_dataset("digits", train_points=200)


@pytest.fixture(scope="module")
def trained(digits):
    """A function from an activation to a trained network of it."""

    def train(activation="relu", seed=1, width=30, **options):
        plain = sm.Configuration(
            "digits", width, 4, activation=activation, learning_rate=0.05, batch_size=50, steps=60, seed=seed
        )
        return train_stack([replace(plain, **options)], digits)[0]

    return train


def kept(trained, dataset, **measures):
    return measure_arrays(trained, dataset, Measures(0, 0, 512, **measures))


def test_points_are_random_ones_of_the_seed_with_their_measures(trained, digits):
    one = trained()
    found = kept(one, digits, points=40)
    index = found.pop("points.index")
    assert len(set(index)) == 40
    # The network's own, not shared by its seed.
    for other in (trained(seed=2), trained(width=31)):
        assert index.tolist() != kept(other, digits, points=40)["points.index"].tolist()
    expected = vars(point_values(one.network, digits.test.x[index], digits.test.y[index]))
    assert {f"points.{name}" for name in TOGETHER["points"]} == {"points.index", *found}
    for name, values in found.items():
        assert_allclose(values, expected[name.removeprefix("points.")].numpy(), rtol=1e-12)
    logits = one.network(digits.test.x[index]).double()
    squares = (logits - torch.nn.functional.one_hot(digits.test.y[index], 10)).square().sum(1) / 2
    assert_allclose(found["points.l2_loss"], squares.numpy(), rtol=1e-4)


@pytest.mark.parametrize("alike", [True, False])
def test_anchors_are_of_one_class_or_of_three_and_of_their_seed(digits, alike):
    chosen = {seed: training_anchors(digits, seed, alike=alike).tolist() for seed in range(20)}
    for places in chosen.values():
        assert len(set(places)) == 3
        assert len({int(digits.train.y[place]) for place in places}) == (1 if alike else 3)
    assert len({tuple(places) for places in chosen.values()}) == 20
    # Classes are as likely as they are frequent: not always the same.
    assert len({int(digits.train.y[places[0]]) for places in chosen.values()}) > 4


def test_images_that_are_there_twice_are_not_taken_together(digits):
    x = digits.train.x[:4].repeat_interleave(torch.tensor([50, 50, 1, 1]), 0)
    same = replace(digits, train=Points(x, torch.zeros(len(x), dtype=torch.int64)))
    for seed in range(5):
        points = x[training_anchors(same, seed, alike=True)]
        assert len(points.unique(dim=0)) == 3


def test_points_that_do_not_exist_are_refused(digits):
    copies = replace(digits, train=Points(digits.train.x[:1].repeat(30, 1), digits.train.y[:30]))
    for alike, kind in ((True, "one class"), (False, "different classes")):
        with pytest.raises(
            InvalidInputError, match=f"digits must have three training points of {kind} that do not lie on one line"
        ):
            training_anchors(copies, 1, alike=alike)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_profiles_are_those_of_the_seeds_ellipses(trained, digits, activation):
    one = trained(activation)
    found = kept(one, digits, paths=BINS)
    method = "sampled" if activation == "tanh" else "exact"
    for kind in ("different", "same"):
        chosen = training_anchors(digits, 1, alike=kind == "same")
        ellipse = paths.fitted_ellipse(*digits.train.x[chosen])
        profile = path_profile(one.network, ellipse, bins=BINS, method=method, samples=512)
        assert_allclose(found[f"paths.{kind}.jacobian_norm"], profile.jacobian_norm[0].numpy())
        assert_allclose(found[f"paths.{kind}.transition_density"], profile.transition_density[0].numpy())
        # With 3 bins more than a multiple of 6 the points are in the middle of theirs.
        at_points = found[f"paths.{kind}.jacobian_norm"][[3, 10, 17]]
        assert_allclose(at_points, sm.jacobian_norm(one.network, digits.train.x[chosen]).numpy(), rtol=1e-3)
        assert found[f"paths.{kind}.labels"].tolist() == digits.train.y[chosen].tolist()
        images = digits.train.x[chosen].view(3, 1, 8, 8).numpy()
        low, high = images.min((1, 2, 3), keepdims=True), images.max((1, 2, 3), keepdims=True)
        assert_allclose(found[f"paths.{kind}.images"], 255 * (images - low) / (high - low), atol=0.51)
    assert found["paths.random.transition_density"].sum() > 0
    assert "paths.random.images" not in found
    assert ("paths.translation.curve" in found) == (activation == "relu")
    other = kept(trained(activation, seed=2), digits, paths=BINS)
    assert not np.array_equal(other["paths.random.jacobian_norm"], found["paths.random.jacobian_norm"])


def test_the_translation_loop_is_drawn_on_the_plane_of_its_two_strongest_waves(trained, digits):
    found = kept(trained(), digits, paths=BINS)
    curve = found["paths.translation.curve"].astype(np.float64)
    vertices = curve[:: len(curve) // 8]
    # Waves 1 to 3 of 8 shifts are those whose sums with cosines and sines are not the same twice.
    amplitudes = np.fft.fft(vertices[:, 0] + 1j * vertices[:, 1]) / 8
    strong = np.flatnonzero(abs(amplitudes) > 1e-5)
    assert len(strong) == 2
    assert set(strong) < {1, 2, 3}
    # Phase 0 is the image itself.
    assert_allclose(amplitudes[strong].imag, 0, atol=1e-5)
    assert (amplitudes[strong].real > 0).all()
    assert_allclose(found["paths.translation.places"], vertices[::2], atol=1e-5)
    # Straight from shift to shift.
    assert_allclose(curve[len(curve) // 16], (vertices[0] + vertices[1]) / 2, atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "hardtanh"])
def test_the_crossings_of_the_translation_loop_are_the_networks_own(trained, digits, activation):
    one = trained(activation)
    found = kept(one, digits, paths=BINS)
    loop = paths.translation(drawn_image(digits, found).view(1, 8, 8))
    counts = [len(layer) for layer in crossings(one.network.weights, activation, loop)]
    assert found["paths.translation.transitions"].tolist() == counts
    first = MLP([one.network.weights[0][:UNITS], torch.ones(2, UNITS)], activation)
    assert len(found["paths.translation.crossings"]) == len(crossings(first.weights, activation, loop)[0])
    assert_allclose(np.linalg.norm(found["paths.translation.directions"], axis=1), 1, rtol=1e-5)
    # In the plane drawn, two units of the same normal would have the same direction, whatever the level.
    for unit in np.unique(found["paths.translation.unit"]):
        own = found["paths.translation.directions"][found["paths.translation.unit"] == unit]
        assert_allclose(own, own[:1].repeat(len(own), 0), atol=1e-5)


@pytest.mark.parametrize("activation", ["relu", "relu6", "hardtanh", "hardsigmoid"])
def test_crossings_are_where_the_twin_finds_them(trained, digits, activation):
    one = trained(activation)
    found = kept(one, digits, paths=BINS)
    loop = paths.translation(drawn_image(digits, found).view(1, 8, 8))
    first = MLP([one.network.weights[0][:UNITS], torch.ones(2, UNITS)], activation)
    places = crossings(first.weights, activation, loop)[0]
    curve = torch.from_numpy(found["paths.translation.curve"]).double()
    expected = loop.combine(curve[:: len(curve) // 8], places)
    ordered = [
        torch.tensor(sorted(values.tolist())) for values in (expected, torch.from_numpy(found["paths.translation.crossings"]))
    ]
    assert_allclose(ordered[0].numpy(), ordered[1].numpy(), atol=1e-3)


def drawn_image(digits, found):
    """The test image whose translations a network was measured along."""
    shown = found["paths.translation.images"][0, 0]
    return next(image for image in digits.test.x if np.array_equal(picture(image), shown))


def picture(x):
    return np.rint(((x - x.min()) / (x.max() - x.min()) * 255).view(8, 8).numpy()).astype(np.uint8)


def test_directions_are_along_the_boundaries(trained, digits):
    """In the plane drawn, whose basis the shifts and their coordinates give, a unit's gradient is across them."""
    one = trained()
    found = kept(one, digits, paths=BINS)
    vertices = paths.translation(drawn_image(digits, found).view(1, 8, 8)).vertices.double()
    centred = vertices - vertices.mean(0)
    curve = torch.from_numpy(found["paths.translation.curve"]).double()
    basis = torch.linalg.pinv(centred) @ curve[:: len(curve) // 8]
    unit = torch.from_numpy(found["paths.translation.unit"]).long()
    gradient = (one.network.weights[0].double() @ basis)[unit]
    along = (gradient * torch.from_numpy(found["paths.translation.directions"])).sum(1)
    assert float((along / gradient.norm(dim=1)).abs().max()) < 1e-4


def test_a_slice_has_the_boundaries_before_and_after_training(trained, digits):
    one = trained("relu6", width=12)
    found = kept(one, digits, slice=True)
    before = trained("relu6", width=12, steps=0).network
    plane = paths.Slice(*digits.train.x[training_anchors(digits, 1, alike=False)])
    assert_allclose(found["slice.anchors"], plane.anchors.numpy())
    for when, network in (("before", before), ("after", one.network)):
        expected = boundaries(network, plane)
        assert_allclose(found[f"slice.{when}.segments"], expected.segments.numpy(), atol=1e-6)
        assert_allclose(found[f"slice.{when}.distance"], distances(plane.anchors, expected.segments), rtol=1e-6)
        anywhere = float(found[f"slice.{when}.anywhere"][0])
        assert anywhere == pytest.approx(distances(inside(plane.anchors), expected.segments).mean(), rel=0.1)


def test_a_slice_of_too_many_regions_is_not_kept(trained, digits, monkeypatch):
    monkeypatch.setattr(network_arrays, "MOST_FACES", 20)
    found = kept(trained("relu6", width=12), digits, slice=True, points=5)
    assert {name for name in found if name.startswith("slice.")} == {"slice.anchors", "slice.images", "slice.labels"}
    assert len(found["points.index"]) == 5


def inside(corners):
    """Random points of a triangle."""
    shares = torch.distributions.Dirichlet(torch.ones(3, dtype=torch.float64)).sample((2000,))
    return shares @ corners


def distances(points, segments):
    """The distance of each point from the nearest of 2,000 places on each segment."""
    places = torch.linspace(0, 1, 2000, dtype=torch.float64).view(-1, 1)
    nearest = torch.full((len(points),), math.inf, dtype=torch.float64)
    for start, end in segments:
        nearest = torch.minimum(nearest, torch.cdist(points, start + places * (end - start)).amin(1))
    return nearest.numpy()


def test_nothing_is_kept_that_was_not_asked_for_or_diverged(trained, digits):
    assert kept(trained(), digits) == {}
    diverged = trained(learning_rate=1e9)
    assert diverged.state == "diverged"
    assert kept(diverged, digits, points=5, paths=21, slice=True) == {}


# --- files


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a survey with arrays, trained by real workers."""
    folder = tmp_path_factory.mktemp("arrays")
    (folder / "spec.toml").write_text(SPEC)
    sm.run_survey(folder / "spec.toml", folder / "out", workers=1).close()
    return folder


def test_a_survey_keeps_the_arrays_of_all_that_did_not_diverge(done, digits):
    with sm.open_survey(done / "out") as store:
        frame = store.frame()
        sound = frame[frame.state != "diverged"]
        assert 0 < len(sound) < len(frame) == 8
        assert store.kept() == set(sound.id)
        for row in sound.itertuples():
            configuration = sm.Configuration(**{name: getattr(row, name) for name in sm.Configuration("x", 1, 2).as_dict()})
            (one,) = train_stack([configuration], digits)
            expected = kept(one, digits, points=7, paths=21, slice=True)
            found = store.arrays(row.id)
            assert found.keys() == expected.keys()
            for name, values in expected.items():
                assert found[name].dtype == values.dtype
                if "segments" not in name:  # of which there are more or fewer by rounding
                    assert_allclose(found[name], values, rtol=0.05, atol=0.05 * abs(values).max())
        some = store.arrays(sound.id.iloc[0], "points.")
        assert {name.partition(".")[0] for name in some} == {"points"}


def test_arrays_that_are_not_there_or_damaged_are_named(done, tmp_path):
    with sm.open_survey(done / "out") as store:
        with pytest.raises(StoreError, match=r"cannot read the arrays in .*arrays/nothing\.safetensors"):
            store.arrays("nothing")
        store.folder = tmp_path
        (tmp_path / "arrays").mkdir()
        (tmp_path / "arrays" / "damaged.safetensors").write_bytes(b"\0" * 100)
        with pytest.raises(StoreError, match="damaged"):
            store.arrays("damaged")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("points.label"), r"points\.label is missing"),
        (lambda arrays: arrays.pop("paths.same.jacobian_norm"), r"paths\.same\.jacobian_norm is missing"),
        (lambda arrays: arrays.update({"points.label": np.zeros(3, np.int16)}), "those of points are of different lengths"),
    ],
)
def test_what_was_measured_together_must_be_there_together(done, copy, change, message):
    out = copy(done / "out")
    with sm.open_survey(out) as store:
        id_ = min(store.kept())
        arrays = store.arrays(id_)
        change(arrays)
        write_arrays(out / "arrays" / f"{id_}.safetensors", arrays)
        with pytest.raises(StoreError, match=rf"{id_}\.safetensors: {message}"):
            store.arrays(id_, "slice.")
    (finding,) = check_survey(out, repair=True)
    assert finding.wrong == f"1 network have lost their arrays, such as {id_}: {message}".replace("\\", "")


def test_check_finds_rows_without_their_arrays_and_the_next_run_makes_them(done, copy):
    out = copy(done / "out")
    assert check_survey(out) == []
    with sm.open_survey(out) as store:
        lost, cut = sorted(store.kept())[:2]
        expected = store.arrays(lost)
    (out / "arrays" / f"{lost}.safetensors").unlink()
    file = out / "arrays" / f"{cut}.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    (out / "arrays" / f"{lost}.safetensors.new").write_bytes(b"")
    assert [one.wrong for one in check_survey(out, repair=True)] == [
        f"2 networks have lost their arrays, such as {lost}: it is not there",
        f"1 file is left over from a process that was killed: arrays/{lost}.safetensors.new",
    ]
    assert check_survey(out) == []
    with sm.run_survey(done / "spec.toml", out, workers=1) as store:
        assert len(store.frame()) == 8
        for name, values in store.arrays(lost).items():
            np.testing.assert_array_equal(values, expected[name])


@pytest.fixture
def copy(tmp_path):
    return lambda folder: shutil.copytree(folder, tmp_path / "copy")


# --- the specification


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("points = 7", "points = 501"), "measure.points: expected at most 500, the test points of digits; got 501"),
        (
            ("train_points = 200", "train_points = 20"),
            "data.train_points: expected at least 21 for digits, among which are three",
        ),
        (('"hardtanh"', '"tanh"'), "measure.slice: expected activations of linear pieces; got tanh in space.activation"),
        (('name = "digits"', 'name = "digits"\ncrop = 1'), "measure.paths: expected 0 for images of digits cut to 1 pixel"),
        (("paths = 21", "paths = 15"), "measure.paths: expected 0, or 16 to 100000; got 15"),
        (("paths = 21", "paths = 100001"), "measure.paths: expected int <= 100000; got 100001"),
    ],
)
def test_what_cannot_be_measured_is_refused(change, message):
    text = SPEC.replace("batch_size = [50]", "batch_size = [10]").replace(*change)
    with pytest.raises(InvalidInputError) as caught:
        parse_spec(text, "test")
    assert str(caught.value).startswith(f"test: {message}")
