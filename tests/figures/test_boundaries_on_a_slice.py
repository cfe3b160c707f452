import math

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.testing import assert_allclose, assert_array_equal

from sensitometer.errors import InvalidInputError, MissingDataError
from sensitometer.figures import boundaries_on_a_slice, catalogue
from sensitometer.figures.drawing import style

ANCHORS = 0.8 * np.array([[math.cos(angle), math.sin(angle)] for angle in (math.pi / 3, math.pi, 5 * math.pi / 3)])


def lines_on_square(count, generator):
    """Random lines through the square [-1, 1]^2, each from its left to its right border, float32 `[count, 2, 2]`."""
    heights = generator.uniform(-1, 1, (count, 2))
    return np.stack([np.stack([np.full(count, x), heights[:, end]], 1) for end, x in enumerate((-1, 1))], 1).astype(np.float32)


@pytest.fixture
def slices():
    """A function from the numbers of segments before and after training, and the change of distance, to arrays of a slice."""

    def make(before=7, after=5, channels=1, side=4, seed=0, change=20.0):
        generator = np.random.default_rng(seed)
        found = {
            "slice.anchors": ANCHORS,
            "slice.images": generator.integers(0, 256, (3, channels, side, side), dtype=np.uint8),
            "slice.labels": np.array([3, 1, 4], np.int16),
        }
        for when, count, distance in (("before", before, 0.01), ("after", after, 0.01 * change)):
            found[f"slice.{when}.segments"] = lines_on_square(count, generator)
            found[f"slice.{when}.distance"] = np.array([1.0, 2.0, 3.0]) * distance if count else np.full(3, np.inf)
            found[f"slice.{when}.anywhere"] = np.array([distance / 2 if count else np.inf])
        return found

    return make


def drawn(data):
    with style.drawing():
        figure = catalogue.compose(boundaries_on_a_slice, data)
        figure.draw_without_rendering()
    return figure


def boundaries(ax):
    """The collection of the boundaries."""
    (lines,) = (collection for collection in ax.collections if isinstance(collection, LineCollection))
    return lines


def written(ax):
    return [line for text in ax.texts for line in text.get_text().split("\n")]


def test_before_and_after_side_by_side_a_row_a_data_set(make_store, slices):
    store = make_store({"dataset": "mnist"}, {}, arrays={"network-0": slices(), "network-1": slices()})
    data = boundaries_on_a_slice.collect(store)
    assert data.columns == 2
    assert [tuple(panel) for panel in data.panels] == [
        (name, when) for name in ("digits", "mnist") for when in ("before", "after")
    ]
    titles = [ax.get_title(loc="left") for ax in drawn(data).axes]
    assert titles == [
        "digits, before training",
        "digits, after training",
        "mnist, before training",
        "mnist, after training",
    ]


def test_segments_are_drawn_where_the_survey_and_the_table_have_them(make_store, slices):
    arrays = slices()
    data = boundaries_on_a_slice.collect(make_store({}, arrays={"network-0": arrays}))
    assert data.tables[""].columns.tolist() == ["dataset", "when", "x0", "y0", "x1", "y1"]
    for ax, when in zip(drawn(data).axes, ("before", "after"), strict=True):
        ends = np.array(boundaries(ax).get_segments())
        assert_allclose(ends, arrays[f"slice.{when}.segments"], atol=1e-7)
        table = data.tables[""]
        assert_array_equal(ends.reshape(-1, 4), table.loc[table["when"] == when, ["x0", "y0", "x1", "y1"]])
        assert ax.get_xlim() == ax.get_ylim() == (-1, 1)
        assert ax.get_aspect() == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_points_are_ringed_and_joined_to_images_that_hide_neither_them_nor_their_neighbourhood(make_store, slices, channels):
    arrays = slices(channels=channels)
    for ax in drawn(boundaries_on_a_slice.collect(make_store({}, arrays={"network-0": arrays}))).axes:
        rings = [patch for patch in ax.patches if isinstance(patch, Circle)]
        joins = [line.get_xydata() for line in ax.lines if len(line.get_xdata()) == 2]
        dots = [line.get_xydata()[0] for line in ax.lines if len(line.get_xdata()) == 1]
        assert_allclose([ring.center for ring in rings], ANCHORS)
        assert_allclose(dots, ANCHORS)
        assert not any(ring.get_fill() for ring in rings)
        for shown, ring, join, image in zip(ax.images, rings, joins, arrays["slice.images"], strict=True):
            left, right, bottom, top = shown.get_extent()
            centre = np.array([(left + right) / 2, (bottom + top) / 2])
            assert_allclose(join[1], centre)
            # From the ring on, straight away from the point.
            away = join[0] - ring.center
            assert np.linalg.norm(away) == pytest.approx(ring.radius)
            assert away @ (centre - ring.center) == pytest.approx(ring.radius * np.linalg.norm(centre - ring.center))
            assert right - left == pytest.approx(top - bottom)
            assert min(left, bottom) > -1 and max(right, top) < 1
            # No point is nearer to the image than boundaries may be to the point; nor is the triangle.
            nearest = np.clip(ANCHORS, [left, bottom], [right, top])
            assert (np.linalg.norm(nearest - ANCHORS, axis=1) > 0.2).all()
            corners = np.array([(x, y) for x in (left, right) for y in (bottom, top)])
            assert ((corners @ -ANCHORS.T).max(1) > 0.32).all()
            assert shown.origin == "upper"
            assert_array_equal(np.asarray(shown.get_array()).reshape(4, 4, channels), image.transpose(1, 2, 0))


def test_numbers_and_distances_are_written_and_in_the_table(make_store, slices):
    network = {"state": "unfitted", "train_accuracy": 0.99998}
    data = boundaries_on_a_slice.collect(make_store(network, arrays={"network-0": slices()}))
    before, after = drawn(data).axes
    assert written(before)[1:] == ["segments: 7", "distance: 0.02 at the points, 0.005 elsewhere"]
    assert written(after)[1:] == ["segments: 5, train accuracy 99.998%", "distance: 0.4 at the points, 0.1 elsewhere"]
    table = data.tables["_distances"]
    assert table["point"].tolist() == [1, 2, 3] * 2
    assert table["label"].tolist() == [3, 1, 4] * 2
    assert_allclose(table["distance"], [0.01, 0.02, 0.03, 0.2, 0.4, 0.6])
    assert_allclose(table["anywhere"], [0.005] * 3 + [0.1] * 3)
    assert_allclose(table[["x", "y"]], [*ANCHORS, *ANCHORS])
    assert set(table["id"]) == {"network-0"}


def chosen(make_store, networks, arrays):
    """The row of the network that is drawn of one data set, whatever the order in which they were stored."""
    orders = (networks, networks[::-1])
    tables = [boundaries_on_a_slice.collect(make_store(*order, arrays=arrays)).tables["_distances"] for order in orders]
    assert tables[0].equals(tables[1])
    assert tables[0]["id"].nunique() == 1
    return tables[0].iloc[0]


@pytest.mark.parametrize(
    ("changes", "median"),
    [
        ({"a": 3.0}, "a"),
        ({"a": 9.0, "b": 2.0, "c": 5.0}, "c"),
        # The second of four, not the third, nor the one nearest to the mean.
        ({"a": 90.0, "b": 4.0, "c": 3.0, "d": 1.0}, "c"),
        ({"c": 2.0, "b": 2.0, "a": 2.0, "d": 2.0}, "b"),
    ],
)
def test_the_network_of_median_change_is_drawn(make_store, slices, changes, median):
    arrays = {id_: slices(change=change) for id_, change in changes.items()}
    found = chosen(make_store, [{"id": id_} for id_ in changes], arrays)
    assert found["id"] == median
    assert found["change"] == pytest.approx(changes[median])
    assert found["networks"] == len(changes)


def test_the_change_is_that_of_the_mean_distance(make_store, slices):
    arrays = {id_: slices() for id_ in "abc"}
    # Its points' ratios are 1, 1 and 100, those of the means 10 and a little: more than 9, less than 12.
    arrays["a"] |= {
        "slice.before.distance": np.array([0.1, 0.9, 0.1]),
        "slice.after.distance": np.array([0.1, 0.9, 10.0]),
    }
    arrays["b"]["slice.after.distance"] = 9 * arrays["b"]["slice.before.distance"]
    arrays["c"]["slice.after.distance"] = 12 * arrays["c"]["slice.before.distance"]
    found = chosen(make_store, [{"id": id_} for id_ in "abc"], arrays)
    assert found["id"] == "a" and found["change"] == pytest.approx(10.0)


def test_fitted_networks_of_true_labels_come_before_unfitted_ones(make_store, slices):
    networks = [
        {"id": "unfitted", "state": "unfitted"},
        {"id": "fitted"},
        {"id": "random", "labels": "random"},
        {"id": "diverged", "state": "diverged"},
    ]
    arrays = {name: slices(change=change) for change, name in enumerate(("diverged", "unfitted", "random", "fitted"), 1)}
    assert chosen(make_store, networks, arrays)["id"] == "fitted"
    # A fitted one that has points alone, or was too dense, does not count.
    for lacks in ({"points.label": np.zeros(3, np.int16)}, {n: v for n, v in slices().items() if n.count(".") == 1}):
        found = chosen(make_store, networks, arrays | {"fitted": lacks})
        assert (found["id"], found["state"], found["networks"]) == ("unfitted", "unfitted", 1)


def test_networks_without_a_boundary_are_drawn_only_if_there_are_no_others(make_store, slices):
    networks = [{"id": id_} for id_ in "abcd"]
    touching = slices() | {"slice.before.distance": np.zeros(3)}
    arrays = {"a": slices(before=0), "b": slices(after=0), "c": touching, "d": slices(change=2.0)}
    found = chosen(make_store, networks, arrays)
    assert (found["id"], found["networks"]) == ("d", 1)
    del arrays["d"]
    found = chosen(make_store, networks, arrays)
    assert (found["id"], found["networks"]) == ("b", 3) and math.isnan(found["change"])
    assert lines_of(make_store, networks, arrays) == "seed 1, one of 3 networks"


def lines_of(make_store, networks, arrays):
    """The line above both panels that says which network is drawn."""
    before, after = drawn(boundaries_on_a_slice.collect(make_store(*networks, arrays=arrays))).axes
    assert written(before)[0] == written(after)[0]
    return written(before)[0]


@pytest.mark.parametrize(
    ("count", "state", "expected"),
    [
        (1, "fitted", "seed 7, the only network"),
        (1, "unfitted", "seed 7, the only unfitted network"),
        (3, "fitted", "seed 8, the median of 3 networks"),
        (4, "unfitted", "seed 8, the median of 4 unfitted networks"),
    ],
)
def test_which_network_it_is_is_written(make_store, slices, count, state, expected):
    networks = [{"id": f"n{number}", "seed": 7 + number, "state": state} for number in range(count)]
    arrays = {f"n{number}": slices(change=2.0 + number) for number in range(count)}
    assert lines_of(make_store, networks, arrays) == expected


def test_only_the_network_that_is_drawn_needs_its_segments(make_store, slices):
    arrays = {id_: slices(change=change) for change, id_ in enumerate("abc", 1)}
    some = {id_: {n: v for n, v in own.items() if not n.endswith(".segments")} for id_, own in arrays.items()}
    networks = [{"id": id_, "seed": 3} for id_ in "abc"]
    whole, copy = (
        boundaries_on_a_slice.collect(make_store(*networks, arrays=own)) for own in (arrays, some | {"b": arrays["b"]})
    )
    assert all(whole.tables[name].equals(copy.tables[name]) for name in ("", "_distances"))
    with pytest.raises(MissingDataError) as caught:
        boundaries_on_a_slice.collect(make_store(*networks, arrays=some | {"a": arrays["a"]}))
    assert str(caught.value) == (
        "figure 3 needs the boundaries on the slice of network b, the one of digits of median change of distance, "
        "which the preset boundaries makes; the survey has their distances alone"
    )


def test_each_data_set_has_its_own_choice(make_store, slices):
    networks = [{"state": "unfitted"}, {"dataset": "mnist", "seed": 2}]
    store = make_store(*networks, arrays={"network-0": slices(3, 3), "network-1": slices(9, 9)})
    data = boundaries_on_a_slice.collect(store)
    assert [len(boundaries(ax).get_segments()) for ax in drawn(data).axes] == [3, 3, 9, 9]


def test_what_is_missing_is_said(make_store, slices):
    store = make_store(
        {},
        {"seed": 2},
        {"seed": 3, "state": "diverged"},
        {"labels": "random"},
        arrays={"network-1": {"points.label": np.zeros(3, np.int16)}, "network-2": slices(), "network-3": slices()},
    )
    with pytest.raises(MissingDataError) as caught:
        boundaries_on_a_slice.collect(store)
    assert str(caught.value) == (
        "figure 3 needs the boundaries on a slice of a network of true labels, fitted or not, and not too many to be kept, "
        "which the preset boundaries makes; "
        "the survey has networks: 4, of true labels with any arrays: 1, with that: 0"
    )
    with pytest.raises(MissingDataError, match="the survey has networks: 0"):
        boundaries_on_a_slice.collect(make_store())


@pytest.mark.parametrize(("before", "after"), [(0, 5), (5, 0), (0, 0)])
def test_a_slice_without_boundaries_says_so(make_store, slices, before, after):
    data = boundaries_on_a_slice.collect(make_store({}, arrays={"network-0": slices(before, after)}))
    for ax, count in zip(drawn(data).axes, (before, after), strict=True):
        assert len(boundaries(ax).get_segments()) == count
        assert (written(ax)[2] == "distance: no boundary") == (count == 0)
        assert len(ax.images) == 3
        assert ax.get_xlim() == ax.get_ylim() == (-1, 1)


def pens(make_store, arrays):
    lines = [boundaries(ax) for ax in drawn(boundaries_on_a_slice.collect(make_store({}, arrays={"network-0": arrays}))).axes]
    return [(line.get_linewidth()[0], line.get_alpha(), line.get_rasterized()) for line in lines]


def test_many_lines_are_thinner_and_lighter_but_seen(make_store, slices):
    few, more, most = (pens(make_store, slices(count, count))[0] for count in (10, 150, 5000))
    assert few[0] > more[0] > most[0] >= 0.3 and few[1] > more[1] > most[1] >= 0.3


def test_before_and_after_are_drawn_with_one_pen(make_store, slices):
    few = pens(make_store, slices(10, 10))[0]
    for counts in ((10, 400), (400, 10)):
        before, after = pens(make_store, slices(*counts))
        assert before == after and before < few


def test_only_very_many_segments_are_a_bitmap(make_store, slices):
    assert [pen[2] for pen in pens(make_store, slices(20_000, 20_001))] == [False, True]


def test_no_text_leaves_the_figure_or_meets_another_panel(make_store, slices):
    long = {"dataset": "fashion-mnist", "state": "unfitted", "train_accuracy": 0.99998}
    arrays = slices(12_345, 54_321)
    for when in ("before", "after"):
        arrays[f"slice.{when}.distance"] = np.full(3, 0.00123456)
        arrays[f"slice.{when}.anywhere"] = np.array([0.00123456])
    figure = drawn(boundaries_on_a_slice.collect(make_store({}, long, arrays={"network-0": slices(), "network-1": arrays})))
    boxes = [ax.get_tightbbox() for ax in figure.axes] + [figure.legends[0].get_window_extent()]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
    # Nor does it come near to the figure's edge.
    assert max(box.x1 for box in boxes) < 0.98 * figure.bbox.x1


def test_wrong_number_of_axes_is_refused(make_store, slices):
    data = boundaries_on_a_slice.collect(make_store({}, arrays={"network-0": slices()}))
    with pytest.raises(InvalidInputError, match="axes must be one for each of the 2 panels; got 3"):
        boundaries_on_a_slice.draw(data, list(Figure().subplots(1, 3)))
