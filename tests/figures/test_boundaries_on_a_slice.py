import math

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

from sensitometer.errors import InvalidInputError, MissingDataError
from sensitometer.figures import boundaries_on_a_slice, catalogue, style

ANCHORS = 0.8 * np.array([[math.cos(angle), math.sin(angle)] for angle in (math.pi / 3, math.pi, 5 * math.pi / 3)])


def lines_on_square(count, generator):
    """Random lines through the square [-1, 1]^2, each from its left to its right border, float32 `[count, 2, 2]`."""
    heights = generator.uniform(-1, 1, (count, 2))
    return np.stack([np.stack([np.full(count, x), heights[:, end]], 1) for end, x in enumerate((-1, 1))], 1).astype(np.float32)


@pytest.fixture
def slices():
    """A function from the numbers of segments before and after training to the arrays of a slice."""

    def make(before=7, after=5, channels=1, side=4, seed=0):
        generator = np.random.default_rng(seed)
        found = {
            "slice.anchors": ANCHORS,
            "slice.images": generator.integers(0, 256, (3, channels, side, side), dtype=np.uint8),
            "slice.labels": np.array([3, 1, 4], np.int16),
        }
        for when, count, distance in (("before", before, 0.01), ("after", after, 0.2)):
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
def test_images_are_centred_on_their_points(make_store, slices, channels):
    arrays = slices(channels=channels)
    for ax in drawn(boundaries_on_a_slice.collect(make_store({}, arrays={"network-0": arrays}))).axes:
        assert len(ax.images) == 3
        for shown, image, anchor in zip(ax.images, arrays["slice.images"], ANCHORS, strict=True):
            left, right, bottom, top = shown.get_extent()
            assert_allclose([(left + right) / 2, (bottom + top) / 2], anchor, atol=1e-12)
            # Small enough to leave the points' neighbourhoods to be seen.
            assert 0 < right - left < 0.3
            assert right - left == pytest.approx(top - bottom)
            assert shown.origin == "upper"
            pixels = np.asarray(shown.get_array())
            assert_array_equal(pixels.reshape(4, 4, channels), image.transpose(1, 2, 0))


def test_numbers_and_distances_are_written_and_in_the_table(make_store, slices):
    network = {"state": "unfitted", "train_accuracy": 0.99998}
    data = boundaries_on_a_slice.collect(make_store(network, arrays={"network-0": slices()}))
    before, after = drawn(data).axes
    assert written(before) == ["boundary segments: 7", "distance: 0.02 at the points (mean), 0.005 elsewhere"]
    assert written(after) == [
        "boundary segments: 5, train accuracy 99.998%",
        "distance: 0.4 at the points (mean), 0.1 elsewhere",
    ]
    table = data.tables["_distances"]
    assert table["point"].tolist() == [1, 2, 3] * 2
    assert table["label"].tolist() == [3, 1, 4] * 2
    assert_allclose(table["distance"], [0.01, 0.02, 0.03, 0.2, 0.4, 0.6])
    assert_allclose(table["anywhere"], [0.005] * 3 + [0.1] * 3)
    assert_allclose(table[["x", "y"]], [*ANCHORS, *ANCHORS])
    assert set(table["id"]) == {"network-0"}


@pytest.mark.parametrize(
    ("networks", "chosen"),
    [
        ([{"seed": 1, "state": "unfitted"}, {"seed": 3}, {"seed": 2}, {"seed": 2}], "network-2"),
        ([{"seed": 2, "state": "unfitted"}, {"seed": 1, "state": "unfitted"}], "network-1"),
        # Fitted ones that have no slice do not count.
        (
            [{"seed": 3, "state": "unfitted"}, {"seed": 2}, {"seed": 1, "id": "bare"}, {"seed": 1, "id": "points only"}],
            "network-1",
        ),
    ],
)
def test_fitted_before_others_then_the_smallest_seed_then_the_id(make_store, slices, networks, chosen):
    arrays = {f"network-{number}": slices() for number in range(len(networks))}
    arrays["points only"] = {"points.label": np.zeros(3, np.int16)}
    # The order in which they were stored does not count.
    networks = [{"id": f"network-{number}"} | network for number, network in enumerate(networks)][::-1]
    assert set(boundaries_on_a_slice.collect(make_store(*networks, arrays=arrays)).distances["id"]) == {chosen}


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
        arrays={"network-1": {"points.label": np.zeros(3, np.int16)}, "network-2": slices()},
    )
    with pytest.raises(MissingDataError) as caught:
        boundaries_on_a_slice.collect(store)
    assert str(caught.value) == (
        "figure 3 needs the boundaries on a slice of a network, fitted or not, which the preset boundaries makes; "
        "the survey has networks: 3, with any arrays: 1, with that: 0"
    )
    with pytest.raises(MissingDataError, match="the survey has networks: 0"):
        boundaries_on_a_slice.collect(make_store())


@pytest.mark.parametrize(("before", "after"), [(0, 5), (5, 0), (0, 0)])
def test_a_slice_without_boundaries_says_so(make_store, slices, before, after):
    data = boundaries_on_a_slice.collect(make_store({}, arrays={"network-0": slices(before, after)}))
    for ax, count in zip(drawn(data).axes, (before, after), strict=True):
        assert len(boundaries(ax).get_segments()) == count
        assert (written(ax)[1] == "distance: no boundary") == (count == 0)
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
        arrays[f"slice.{when}.anywhere"] = np.array([0.000123456])
    figure = drawn(boundaries_on_a_slice.collect(make_store({}, long, arrays={"network-0": slices(), "network-1": arrays})))
    boxes = [ax.get_tightbbox() for ax in figure.axes] + [figure.legends[0].get_window_extent()]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_wrong_number_of_axes_is_refused(make_store, slices):
    data = boundaries_on_a_slice.collect(make_store({}, arrays={"network-0": slices()}))
    with pytest.raises(InvalidInputError, match="axes must be one for each of the 2 panels; got 3"):
        boundaries_on_a_slice.draw(data, list(Figure().subplots(1, 3)))
