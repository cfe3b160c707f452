import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from sensitometer.errors import InvalidInputError, MissingDataError
from sensitometer.figures import catalogue, translation_and_boundaries
from sensitometer.figures.drawing import style
from sensitometer.figures.translation_and_boundaries import _spread


def loop(units=6, radius=10.0, channels=1, side=8, seed=0):
    """
    Return the arrays of a network along a translation loop: the shifts of an image, and random units' hyperplanes through 0.

    The curve is scaled to `radius`; the images are of one value each.
    """
    generator = np.random.default_rng(seed)
    image = np.exp(-((np.arange(side) - 2.5) ** 2) / 3) * np.linspace(1, 2, side)[:, None]
    vertices = np.stack([np.roll(image, shift, 1).ravel() for shift in range(side)])
    centred = vertices - vertices.mean(0)
    plane = np.linalg.svd(centred, full_matrices=False)[2][:2]
    projected = centred @ plane.T
    projected *= radius / np.linalg.norm(projected, axis=1).max()
    weights = generator.normal(size=(units, side * side))
    weights -= weights.mean(1, keepdims=True)
    before = vertices @ weights.T
    after, ends = np.roll(before, -1, 0), np.roll(projected, -1, 0)
    vertex, unit = np.nonzero((before > 0) != (after > 0))
    share = (before[vertex, unit] / (before[vertex, unit] - after[vertex, unit]))[:, None]
    normals = weights[unit] @ plane.T
    shown = np.arange(4) * side // 4
    values = np.array([10, 20, 30, 40], np.uint8)[:, None, None, None]
    arrays = {
        "curve": projected.astype(np.float32),
        "crossings": (projected[vertex] * (1 - share) + ends[vertex] * share).astype(np.float32),
        "directions": (np.stack([-normals[:, 1], normals[:, 0]], 1) / np.linalg.norm(normals, axis=1)[:, None]).astype(
            np.float32
        ),
        "unit": unit.astype(np.int32),
        "transitions": np.array([1000, 234]),
        "images": values * np.ones((4, channels, 4, 4), np.uint8),
        "places": projected[shown].astype(np.float32),
    }
    return {f"paths.translation.{name}": own for name, own in arrays.items()}


def drawn(data):
    with style.drawing():
        figure = catalogue.compose(translation_and_boundaries, data)
        figure.draw_without_rendering()
    return figure


def strokes(ax):
    """The two ends of each stroke, `[n, 2, 2]`."""
    (found,) = (found for found in ax.collections if isinstance(found, LineCollection))
    return np.array(found.get_segments()).reshape(-1, 2, 2)


def curve(ax):
    (found,) = (found.get_xydata() for found in ax.lines if len(found.get_xdata()) > 2)
    return found


def test_the_loop_is_drawn_closed_where_the_table_says(make_store):
    data = translation_and_boundaries.collect(make_store({}, arrays={"network-0": loop()}))
    assert_allclose(data.tables[""][["first", "second"]], loop()["paths.translation.curve"])
    (ax,) = drawn(data).axes
    assert_allclose(curve(ax)[:-1], data.tables[""][["first", "second"]])
    assert_array_equal(curve(ax)[-1], curve(ax)[0])
    assert ax.get_aspect() == 1
    assert ax.get_xlabel() == "First direction of the plane (units of the inputs)"
    assert ax.get_ylabel() == "Second direction of the plane\n(units of the inputs)"


@pytest.mark.parametrize("radius", [1e-3, 10.0])
def test_strokes_go_along_the_boundaries_and_are_centred_on_the_crossings(make_store, radius):
    arrays = loop(radius=radius)
    data = translation_and_boundaries.collect(make_store({}, arrays={"network-0": arrays}))
    (ax,) = drawn(data).axes
    ends = strokes(ax)
    assert_allclose(ends.mean(1), arrays["paths.translation.crossings"], rtol=1e-5, atol=1e-6 * radius)
    # 15% of the diameter.
    assert_allclose(ends[:, 1] - ends[:, 0], 0.3 * radius * arrays["paths.translation.directions"], rtol=1e-5)
    assert_allclose(data.tables["_crossings"][["first", "second"]], arrays["paths.translation.crossings"])
    assert_allclose(data.tables["_crossings"][["first_along", "second_along"]], arrays["paths.translation.directions"])
    assert_array_equal(data.tables["_crossings"]["unit"], arrays["paths.translation.unit"])


def test_crossings_units_and_transitions_are_counted(make_store):
    arrays = loop()
    arrays["paths.translation.unit"] = np.where(np.arange(len(arrays["paths.translation.unit"])) % 2, 5, 9).astype(np.int32)
    figure = drawn(translation_and_boundaries.collect(make_store({}, arrays={"network-0": arrays})))
    (ax,) = figure.axes
    assert ax.get_title(loc="left") == "digits"
    assert [found.get_text() for found in ax.texts] == [
        f"boundaries drawn: at {len(arrays['paths.translation.unit'])} crossings, of 2 units\n"
        "transitions of all hidden layers: 1,234"
    ]
    names = [found.get_text() for found in figure.legends[0].get_texts()]
    assert names == ["translation loop", "boundary crossed", "shift shown"]


@pytest.mark.parametrize("channels", [1, 3])
def test_images_stand_outside_the_strokes_joined_to_their_places(make_store, channels):
    arrays = loop(channels=channels)
    (ax,) = drawn(translation_and_boundaries.collect(make_store({}, arrays={"network-0": arrays}))).axes
    assert [int(image.get_array().flat[0]) for image in ax.images] == [10, 20, 30, 40]
    joins = [found.get_xydata() for found in ax.lines if len(found.get_xdata()) == 2]
    for image, join, place in zip(ax.images, joins, arrays["paths.translation.places"], strict=True):
        left, right, bottom, top = image.get_extent()
        assert_allclose(join, [place, ((left + right) / 2, (bottom + top) / 2)], rtol=1e-6, atol=1e-6)
        # The places are a quarter of a turn apart, and so are the images: each is straight outside its place.
        assert_allclose(join[1] / np.linalg.norm(join[1]), place / np.linalg.norm(place), atol=1e-5)
        assert np.hypot(np.clip(0, left, right), np.clip(0, bottom, top)) > 1.14 * 10
        assert ax.get_xlim()[0] < left and right < ax.get_xlim()[1]
        assert ax.get_ylim()[0] < bottom and top < ax.get_ylim()[1]
    places = [found.get_xydata()[0] for found in ax.lines if found.get_marker() == "o"]
    assert_allclose(places, arrays["paths.translation.places"])


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [
        ((90, 0, 270, 180), (90, 0, 270, 180)),
        # Both ways round, and the pairs part evenly.
        ((0, 0, 180, 180), (-22.5, 22.5, 157.5, 202.5)),
        ((0, 180, 0, 180), (-22.5, 157.5, 22.5, 202.5)),
        ((30, 30, 30, 30), (-37.5, 7.5, 52.5, 97.5)),
        # Across the half turn, where angles jump, and in the order of the places.
        ((190, 170, 0, 90), (202.5, 157.5, 0, 90)),
        ((350, 20, 200, 100), (342.5, 27.5, 200, 100)),
    ],
)
def test_images_keep_apart_near_their_places(degrees, expected):
    angles = np.radians(degrees)
    directions = _spread(3.0 * np.stack([np.cos(angles), np.sin(angles)], 1))
    assert_allclose(np.linalg.norm(directions, axis=1), 1)
    found = np.degrees(np.arctan2(directions[:, 1], directions[:, 0]))
    # Which of two that coincide goes which way is rounding's to say, so these are compared without order.
    difference = (np.sort(found % 360) - np.sort(np.array(expected) % 360) + 180) % 360 - 180
    assert_allclose(difference, 0, atol=1e-6)
    moved = (found - degrees + 180) % 360 - 180
    assert np.abs(moved).max() <= (67.5 if len(set(degrees)) == 1 else 22.5) + 1e-6


def test_the_smallest_seed_then_id_of_each_data_set_that_has_a_loop(make_store):
    settings = [
        {"id": "f", "seed": 1, "activation": "tanh"},
        {"id": "e", "seed": 1, "state": "unfitted"},
        {"id": "a1", "seed": 3},
        {"id": "c", "seed": 2},
        {"id": "b", "seed": 2},
        {"id": "a", "seed": 2, "dataset": "mnist"},
        {"id": "g", "seed": 1},
        {"id": "h", "seed": 1, "labels": "random"},
    ]
    arrays = {name: loop(seed=number) for number, name in enumerate(["a", "a1", "b", "c", "e", "h"])} | {
        "f": {"paths.random.jacobian_norm": np.ones(3)}
    }
    data = translation_and_boundaries.collect(make_store(*settings, arrays=arrays))
    assert [panel.dataset for panel in data.panels] == ["digits", "mnist"]
    assert data.columns == 2
    for ax, name in zip(drawn(data).axes, "ba", strict=True):
        assert_allclose(strokes(ax).mean(1), arrays[name]["paths.translation.crossings"], rtol=1e-5, atol=1e-5)
        own = data.tables["_crossings"][data.tables["_crossings"]["network"] == name]
        assert len(own) == len(arrays[name]["paths.translation.unit"])
    assert data.tables[""]["network"].unique().tolist() == ["b", "a"]


def test_a_loop_that_no_boundary_crosses_is_drawn(make_store):
    arrays = loop(units=0)
    assert len(arrays["paths.translation.crossings"]) == 0
    data = translation_and_boundaries.collect(make_store({}, arrays={"network-0": arrays}))
    (ax,) = drawn(data).axes
    assert len(strokes(ax)) == 0 and len(curve(ax)) == 9
    assert ax.texts[0].get_text().startswith("boundaries drawn: at 0 crossings, of 0 units\n")
    columns = ["dataset", "network", "unit", "first", "second", "first_along", "second_along"]
    assert list(data.tables["_crossings"]) == columns and data.tables["_crossings"].empty


def test_the_loop_of_an_image_without_contrast_is_a_point(make_store):
    arrays = loop(units=0)
    for name in ("curve", "places"):
        arrays[f"paths.translation.{name}"] = np.zeros_like(arrays[f"paths.translation.{name}"])
    # Identical limits would be a warning, and warnings are errors.
    (ax,) = drawn(translation_and_boundaries.collect(make_store({}, arrays={"network-0": arrays}))).axes
    assert_array_equal(curve(ax), np.zeros((9, 2)))
    assert ax.get_xlim()[0] < -1 and ax.get_xlim()[1] > 1
    assert len({tuple(image.get_extent()) for image in ax.images}) == 4


def test_what_is_missing_is_said(make_store):
    message = (
        "figure 7 needs the translation loop of a fitted, piecewise-linear network of true labels with the boundaries "
        "that cross it, which the preset trajectory makes; "
        "the survey has networks: 4, fitted of true labels: 2, with that: 0"
    )
    arrays = {"network-0": {"paths.random.jacobian_norm": np.ones(3)}, "network-2": loop(), "network-3": loop()}
    with pytest.raises(MissingDataError) as caught:
        translation_and_boundaries.collect(make_store({}, {}, {"state": "unfitted"}, {"labels": "random"}, arrays=arrays))
    assert str(caught.value) == message
    with pytest.raises(MissingDataError, match="networks: 0, fitted of true labels: 0, with that: 0"):
        translation_and_boundaries.collect(make_store())


def test_wrong_number_of_axes_is_refused(make_store):
    data = translation_and_boundaries.collect(make_store({}, arrays={"network-0": loop()}))
    with pytest.raises(InvalidInputError, match="axes must be one for each of the 1 panels; got 2"):
        translation_and_boundaries.draw(data, list(Figure().subplots(1, 2)))


def test_no_text_leaves_the_figure_or_meets_another_panel(make_store):
    for names in (["digits"], ["digits", "mnist"], ["cifar10", "cifar100", "digits", "fashion-mnist", "mnist"]):
        arrays = {f"network-{number}": loop(radius=123.0) for number in range(len(names))}
        figure = drawn(translation_and_boundaries.collect(make_store(*({"dataset": name} for name in names), arrays=arrays)))
        boxes = [ax.get_tightbbox() for ax in figure.axes] + [figure.legends[0].get_window_extent()]
        for box in boxes:
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[number + 1 :])
