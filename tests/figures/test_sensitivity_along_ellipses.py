import math

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.testing import assert_allclose, assert_array_equal

from sensitometer.errors import InvalidInputError, MissingDataError
from sensitometer.figures import catalogue, sensitivity_along_ellipses
from sensitometer.figures.drawing import style

BINS = 12
KINDS = ("random", "different", "same")
NAMES = [sensitivity_along_ellipses.KINDS[kind].name for kind in KINDS]


def paths(norm=1.0, density=100.0, kinds=KINDS, bins=BINS, channels=1):
    """
    Return the arrays of a network along ellipses, rising from bin to bin.

    The Jacobian norms of the kinds are 1, 2 and 3 times `norm`, so the transition densities; the images are of one value each.
    """
    arrays = {}
    for place, kind in enumerate(KINDS, 1):
        if kind in kinds:
            arrays[f"paths.{kind}.jacobian_norm"] = place * norm * np.arange(1.0, bins + 1)
            arrays[f"paths.{kind}.transition_density"] = place * density * np.arange(1.0, bins + 1)
            if kind != "random":
                values = np.array([10, 20, 30], np.uint8)[:, None, None, None]
                arrays[f"paths.{kind}.images"] = values * np.ones((3, channels, 4, 4), np.uint8)
                arrays[f"paths.{kind}.labels"] = np.array([7, 0, 3] if kind == "different" else [4, 4, 4], np.int16)
    return arrays


@pytest.fixture
def ellipses(make_store):
    """A function from networks, each its settings and its arrays, to a store."""

    def make(*networks):
        arrays = {settings.get("id", f"network-{number}"): own for number, (settings, own) in enumerate(networks)}
        return make_store(
            *({"seed": number} | settings for number, (settings, _) in enumerate(networks, 1)),
            arrays={name: own for name, own in arrays.items() if own is not None},
        )

    return make


def drawn(data):
    with style.drawing():
        figure = catalogue.compose(sensitivity_along_ellipses, data)
        figure.draw_without_rendering()
    return figure


def line(ax, kind):
    (found,) = (found for found in ax.lines if found.get_label() == sensitivity_along_ellipses.KINDS[kind].name)
    return found


def bands(ax):
    """The lower and the upper edge of each band, by its name."""
    edges = {}
    for band in ax.collections:
        vertices = band.get_paths()[0].vertices
        # Forth along one edge and back along the other, with a vertex at each turn.
        edges[band.get_label()] = vertices[1 : BINS + 1, 1], vertices[BINS + 2 : 2 * BINS + 2, 1][::-1]
    return edges


def text(ax):
    return [found.get_text() for found in ax.texts]


def test_a_row_a_data_set_and_three_panels_side_by_side(ellipses):
    store = ellipses(*(({"dataset": name}, paths()) for name in ("mnist", "digits", "mnist")))
    data = sensitivity_along_ellipses.collect(store)
    contents = ["ellipse", "jacobian_norm", "transition_density"]
    assert [tuple(panel) for panel in data.panels] == [(name, content) for name in ("digits", "mnist") for content in contents]
    assert data.columns == 3
    figure = drawn(data)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == [name for row in ("digits", "mnist") for name in (row, "Jacobian norm", "Transition density")]
    assert [text(ax) for ax in figure.axes[1:3]] == [["n = 1 network"]] * 2
    assert [text(ax) for ax in figure.axes[4:]] == [["n = 2 networks"]] * 2
    assert [found.get_text() for found in figure.legends[0].get_texts()] == NAMES


def test_lines_and_bands_are_drawn_where_the_table_says(ellipses):
    store = ellipses(({}, paths(norm=1.0)), ({}, paths(norm=2.0)), ({}, paths(norm=6.0)))
    data = sensitivity_along_ellipses.collect(store)
    _, norms, densities = drawn(data).axes
    for place, kind in enumerate(KINDS, 1):
        own = data.tables[""][data.tables[""]["kind"] == kind]
        for ax, name in ((norms, "jacobian_norm"), (densities, "transition_density")):
            assert ax.get_yscale() == "log" and ax.get_xlim() == (0, 2 * math.pi)
            assert_allclose(line(ax, kind).get_xdata(), own["angle"])
            assert_allclose(line(ax, kind).get_ydata(), own[name])
            low, high = bands(ax)[sensitivity_along_ellipses.KINDS[kind].name]
            assert_allclose(low, own[name] - own[f"{name}_sem"])
            assert_allclose(high, own[name] + own[f"{name}_sem"])
        # The mean of 1, 2 and 6 is 3, the variance 14 / 2, over 3 networks.
        assert_allclose(own["jacobian_norm"], 3 * place * np.arange(1, BINS + 1))
        assert_allclose(own["jacobian_norm_sem"], math.sqrt(7 / 3) * place * np.arange(1, BINS + 1))
        assert_allclose(own["transition_density"], 100 * place * np.arange(1, BINS + 1))
        assert_allclose(own["transition_density_sem"], 0, atol=1e-12)


def test_kinds_differ_in_grey_in_shape_and_in_dashes():
    looks = sensitivity_along_ellipses.KINDS.values()
    assert len({look.marker for look in looks}) == len(set(sensitivity_along_ellipses.DASHES.values())) == len(looks)
    greys = sorted(np.dot([0.2126, 0.7152, 0.0722], np.array(to_rgb(look.colour)) ** 2.2) for look in looks)
    assert all(lighter + 0.05 > 2.2 * (darker + 0.05) for darker, lighter in zip(greys, [*greys[1:], 1.0], strict=True))


def test_no_line_has_its_markers_where_another_has(ellipses):
    for bins in (5, 12, 129):
        ax = drawn(sensitivity_along_ellipses.collect(ellipses(({}, paths(bins=bins))))).axes[1]
        marked = [set(range(start, bins, step)) for start, step in (line(ax, kind).get_markevery() for kind in KINDS)]
        assert all(marked)
        assert bins < 36 or not any(one & other for one, other in zip(marked, [*marked[1:], marked[0]], strict=True))


def test_the_angles_of_the_points_are_marked_and_named(ellipses):
    figure = drawn(sensitivity_along_ellipses.collect(ellipses(({}, paths()))))
    anchors = [math.pi / 3, math.pi, 5 * math.pi / 3]
    for ax in figure.axes[1:]:
        names = [label.get_text() for label in ax.get_xticklabels()]
        assert names == ["0", "π/3\npoint 1", "π\npoint 2", "5π/3\npoint 3", "2π"]
        assert_allclose(ax.get_xticks(), [0, *anchors, 2 * math.pi])
        assert [found.get_xdata()[0] for found in ax.lines if len(found.get_xdata()) == 2] == anchors
    (circle,) = (patch for patch in figure.axes[0].patches if isinstance(patch, Circle))
    assert circle.center == (0, 0) and circle.radius == 1
    points = [found.get_xydata()[0] for found in figure.axes[0].lines if found.get_marker() == "o"]
    assert_allclose(points, [(math.cos(angle), math.sin(angle)) for angle in anchors])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_images_stand_outside_beside_their_points(ellipses, channels):
    ax = drawn(sensitivity_along_ellipses.collect(ellipses(({}, paths(channels=channels))))).axes[0]
    assert [int(image.get_array().flat[0]) for image in ax.images] == [10, 20, 30]
    for image, angle in zip(ax.images, (math.pi / 3, math.pi, 5 * math.pi / 3), strict=True):
        left, right, bottom, top = image.get_extent()
        assert math.atan2((bottom + top) / 2, (left + right) / 2) % (2 * math.pi) == pytest.approx(angle)
        nearest = [np.clip(0, left, right), np.clip(0, bottom, top)]
        assert 1 < np.hypot(*nearest) < 1.3
    labels = [found for found in text(ax) if "label" in found]
    assert labels == ["point 1\nθ = π/3\nlabel 7", "point 2\nθ = π\nlabel 0", "point 3\nθ = 5π/3\nlabel 3"]


def test_an_image_is_drawn_upright_in_its_colours_and_its_shape(ellipses):
    arrays = paths()
    images = np.arange(3 * 3 * 2 * 4, dtype=np.uint8).reshape(3, 3, 2, 4)
    arrays["paths.different.images"] = images
    ax = drawn(sensitivity_along_ellipses.collect(ellipses(({}, arrays)))).axes[0]
    for shown, image in zip(ax.images, images, strict=True):
        assert shown.origin == "upper"
        # From channel, row and column to row, column and channel.
        assert_array_equal(shown.get_array(), np.einsum("crk->rkc", image))
        left, right, bottom, top = shown.get_extent()
        assert right - left == pytest.approx(2 * (top - bottom))


def test_the_sketch_shows_the_smallest_seed_then_id(ellipses):
    data = sensitivity_along_ellipses.collect(
        ellipses(
            ({"seed": 1, "id": "d"}, paths(kinds=["random", "same"])),
            ({"seed": 1, "id": "e", "state": "unfitted"}, paths()),
            ({"seed": 3, "id": "a"}, paths()),
            ({"seed": 2, "id": "c"}, paths()),
            ({"seed": 2, "id": "b"}, paths()),
        )
    )
    assert "seed 2" in "".join(text(drawn(data).axes[0]))
    table = data.tables["_points"]
    assert table[["network", "seed", "point", "label"]].to_numpy().tolist() == [["b", 2, 1, 7], ["b", 2, 2, 0], ["b", 2, 3, 3]]
    assert_allclose(table["angle"], [math.pi / 3, math.pi, 5 * math.pi / 3])


def test_only_fitted_networks_of_true_labels_count_and_each_once(ellipses):
    infinite = paths() | {"paths.random.transition_density": np.full(BINS, math.inf)}
    store = ellipses(
        ({"width": 8}, paths(norm=1.0)),
        ({"width": 8}, paths(norm=1.0)),
        ({"width": 16}, paths(norm=4.0)),
        ({"state": "unfitted"}, paths(norm=100.0)),
        ({"labels": "random"}, paths(norm=100.0)),
        ({}, None),
        ({}, {"points.index": np.arange(3)}),
        ({"width": 16}, infinite | paths(norm=6.0, kinds=["same"])),
    )
    first = sensitivity_along_ellipses.collect(store).tables[""].groupby("kind").first()
    # The last network's random ellipse is left out, and its other ones are not.
    assert first.loc["random", ["jacobian_norm", "networks"]].tolist() == [2, 3]
    assert first.loc["different", ["jacobian_norm", "networks"]].tolist() == [3.5, 4]
    assert first.loc["same", ["jacobian_norm", "networks"]].tolist() == [9, 4]


def test_kinds_that_are_missing_are_left_out(ellipses):
    data = sensitivity_along_ellipses.collect(
        ellipses(({}, paths(kinds=["same", "random"])), ({"dataset": "mnist"}, paths(kinds=["same"])))
    )
    profiles = data.tables[""][["dataset", "kind"]].drop_duplicates().to_numpy().tolist()
    assert profiles == [["digits", "random"], ["digits", "same"], ["mnist", "same"]]
    assert data.tables["_points"].empty and data.tables["_points"].columns[0] == "dataset"
    figure = drawn(data)
    assert [found.get_text() for found in figure.legends[0].get_texts()] == [NAMES[0], NAMES[2]]
    for sketch in (figure.axes[0], figure.axes[3]):
        assert not sketch.images and "point 2\nθ = π" in text(sketch)
    assert [found.get_label() for found in figure.axes[4].lines if found.get_label() in NAMES] == [NAMES[2]]


def test_different_numbers_of_networks_are_said_by_kind(ellipses):
    store = ellipses(({}, paths()), ({}, paths(kinds=["random", "different"])), ({}, paths(kinds=["random"])))
    for ax in drawn(sensitivity_along_ellipses.collect(store)).axes[1:]:
        assert text(ax) == ["n = 3 random, 2 different, 1 same"]
        # One network has a line, and no band.
        assert len(line(ax, "same").get_ydata()) == BINS
        assert list(bands(ax)) == NAMES[:2]


def test_bands_that_reach_to_0_are_cut_at_the_edge(ellipses):
    nearly = {name: values * (np.arange(BINS) != 2) for name, values in paths().items() if values.shape == (BINS,)}
    ax = drawn(sensitivity_along_ellipses.collect(ellipses(({}, nearly), ({}, nearly), ({}, paths())))).axes[1]
    bottom = ax.get_ylim()[0]
    # The mean of 0, 0 and 3 is 1, and so is the error.
    low, high = bands(ax)[NAMES[0]]
    assert low[2] == pytest.approx(bottom) and high[2] == pytest.approx(2)
    # The lowest of all is 1, at bin 0 and at bin 2: cut bands take no more of the axis than half a value.
    assert bottom > 0.2


def test_means_of_zero_are_drawn_at_the_tick_0(ellipses):
    arrays = paths() | {"paths.random.transition_density": np.arange(BINS, dtype=np.float64)}
    ax = drawn(sensitivity_along_ellipses.collect(ellipses(({}, arrays), ({}, arrays)))).axes[2]
    assert ax.get_yticklabels()[0].get_text() == "0"
    zero = ax.get_yticks()[0]
    assert_allclose(line(ax, "random").get_ydata(), [zero, *range(1, BINS)])
    assert ax.get_ylim()[0] < zero < 1
    low, high = bands(ax)[NAMES[0]]
    assert low[0] == high[0] == pytest.approx(zero)


def test_no_transitions_at_all_are_drawn(ellipses):
    ax = drawn(sensitivity_along_ellipses.collect(ellipses(({}, paths(density=0.0))))).axes[2]
    assert_array_equal(line(ax, "same").get_ydata(), np.full(BINS, ax.get_yticks()[0]))


def test_what_is_missing_is_said(ellipses):
    message = (
        "figure 2 needs Jacobian norms and transition densities along ellipses of fitted networks of true labels, "
        "which the preset trajectory makes; "
        "the survey has networks: 4, fitted of true labels: 2, with that: 0"
    )
    without = {"paths.translation.curve": np.zeros((3, 2)), "paths.same.jacobian_norm": np.ones(BINS)}
    store = ellipses(({}, None), ({}, without), ({"labels": "random"}, paths()), ({"state": "unfitted"}, paths()))
    with pytest.raises(MissingDataError) as caught:
        sensitivity_along_ellipses.collect(store)
    assert str(caught.value) == message
    with pytest.raises(MissingDataError, match="networks: 0, fitted of true labels: 0, with that: 0"):
        sensitivity_along_ellipses.collect(ellipses())


def test_different_numbers_of_bins_are_refused(ellipses):
    with pytest.raises(InvalidInputError, match=r"of one number of bins, \[B\] each; got \[12\] and \[15\]"):
        sensitivity_along_ellipses.collect(ellipses(({}, paths()), ({}, paths(bins=15))))


def test_wrong_number_of_axes_is_refused(ellipses):
    data = sensitivity_along_ellipses.collect(ellipses(({}, paths())))
    with pytest.raises(InvalidInputError, match="axes must be one for each of the 3 panels; got 2"):
        sensitivity_along_ellipses.draw(data, list(Figure().subplots(1, 2)))


def test_no_text_leaves_the_figure_or_meets_another_panel(ellipses):
    networks = [({"dataset": name, "seed": 1000 + seed}, paths()) for name in ("digits", "fashion-mnist") for seed in (1, 2)]
    figure = drawn(sensitivity_along_ellipses.collect(ellipses(*networks, ({}, paths(kinds=["random", "same"])))))
    boxes = [ax.get_tightbbox() for ax in figure.axes] + [figure.legends[0].get_window_extent()]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_the_table_has_one_row_a_data_set_kind_and_bin(ellipses):
    data = sensitivity_along_ellipses.collect(ellipses(({}, paths()), ({"dataset": "mnist"}, paths())))
    assert list(data.tables[""]) == [
        "dataset",
        "kind",
        "angle",
        "jacobian_norm",
        "jacobian_norm_sem",
        "transition_density",
        "transition_density_sem",
        "networks",
    ]
    assert len(data.tables[""]) == 2 * 3 * BINS
    assert not data.tables[""].duplicated(["dataset", "kind", "angle"]).any()
