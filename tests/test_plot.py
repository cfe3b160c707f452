"""sm.plot: what is drawn is what was given, and no text meets another."""

import itertools
import math

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal

import sensitometer as sm
from sensitometer.analysis.rank_correlation import kendall
from sensitometer.measures import path_profile
from sensitometer.networks import initial_weights, layer_shapes

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture(autouse=True)
def _closed():
    yield
    pyplot.close("all")


def normals(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def network(seed=1):
    return sm.MLP(initial_weights(layer_shapes(12, 8, 3, 3), "relu", 1.5, seed), "relu")


STACK = sm.MLPStack([torch.stack(weights) for weights in zip(*(network(seed).weights for seed in range(4)), strict=True)], "relu")
ELLIPSE = sm.paths.fitted_ellipse(*normals(3, 12))
PLANE = sm.paths.Slice(*normals(3, 12))


def above(ax):
    """The name and the lines above a panel."""
    return ax.get_title(loc="left"), [text.get_text() for text in ax.texts]


def boxes(figure):
    figure.draw_without_rendering()
    return [ax.get_tightbbox() for ax in figure.axes]


def assert_apart(figure, more=()):
    drawn = [*boxes(figure), *(text.get_window_extent() for text in more)]
    for box in drawn:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for first, second in itertools.combinations(drawn, 2):
        assert not first.overlaps(second)


@pytest.mark.parametrize("quantity", ["jacobian_norm", "transition_density"])
def test_a_profile_is_the_mean_with_its_standard_error(quantity):
    profile = path_profile(STACK, ELLIPSE, bins=24)
    ax = sm.plot.profile(profile, quantity=quantity)
    values = getattr(profile, quantity).numpy()
    (line,) = ax.lines
    assert_allclose(line.get_xdata(), profile.angle)
    mean = values.mean(0)
    assert_allclose(np.asarray(line.get_ydata())[mean > 0], mean[mean > 0])
    (band,) = ax.collections
    top = band.get_paths()[0].vertices[:, 1].max()
    assert top == pytest.approx((mean + values.std(0, ddof=1) / 2).max())
    assert above(ax)[1] == ["mean over 4 networks, ± one standard error"]
    assert_apart(ax.get_figure())


def test_a_profile_of_one_network_has_no_band_and_may_have_anchors():
    ax = sm.plot.profile(path_profile(network(), ELLIPSE, bins=24), anchors=True)
    assert not ax.collections and len(ax.lines) == 4
    assert [label.get_text() for label in ax.get_xticklabels()][1:-1] == ["π/3\npoint 1", "π\npoint 2", "5π/3\npoint 3"]
    assert above(ax) == ("Jacobian norm", [])
    assert_apart(ax.get_figure())


def test_exact_boundaries_are_their_segments():
    found = sm.boundaries(network(), PLANE, layer="all")
    ax = sm.plot.slice(found)
    (lines,) = (collection for collection in ax.collections if isinstance(collection, LineCollection))
    assert_allclose(np.stack(lines.get_segments()), found.segments)
    assert above(ax)[1] == [f"{len(found.segments):,} segments of 2 layers, {found.faces:,} faces"]
    dots = [np.ravel([line.get_xdata(), line.get_ydata()]) for line in ax.lines]
    assert_allclose(dots, PLANE.anchors, atol=1e-15)
    assert_apart(ax.get_figure())


def test_sampled_boundaries_are_their_pixels_with_the_origin_below():
    found = sm.boundaries(network(), PLANE, method="sampled", resolution=40)
    ax = sm.plot.slice(found)
    (image,) = ax.images
    assert_array_equal(image.get_array(), found.pixels)
    assert (image.origin, tuple(image.get_extent())) == ("lower", (-1, 1, -1, 1))
    assert above(ax)[1] == ["sampled at 40 x 40 points, 1 layer"]


def test_a_slice_shows_the_images_of_its_points():
    images = np.arange(36.0).reshape(3, 3, 2, 2)
    ax = sm.plot.slice(sm.boundaries(network(), PLANE), images=images)
    assert [image.get_array().shape for image in ax.images] == [(2, 2, 3)] * 3
    # Each from its own smallest to its own largest number.
    assert all((image.get_array().min(), image.get_array().max()) == (0, 255) for image in ax.images)
    assert ax.get_xlim() == ax.get_ylim() == (-1, 1)


def test_a_scatter_says_tau_and_its_interval():
    generator = np.random.default_rng(0)
    x = pd.Series(10 ** generator.normal(0, 1, 60), name="jacobian_norm")
    y = pd.Series(np.log(x) + generator.normal(0, 1, 60), name="gap")
    clusters = np.arange(60) // 3
    ax = sm.plot.scatter(x, y, label_x="Jacobian norm", clusters=clusters)
    (markers,) = (collection for collection in ax.collections if isinstance(collection, PathCollection))
    assert_allclose(markers.get_offsets(), np.column_stack([x, y]))
    tau, low, high, *_ = kendall(x, y, clusters)
    assert above(ax)[1] == [f"τ = {tau:.2f} ({low:.2f} to {high:.2f}), n = 60"]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_xscale(), ax.get_yscale()) == ("Jacobian norm", "gap", "log", "linear")
    assert_apart(ax.get_figure())


@pytest.mark.parametrize(("x", "scale"), [([1.0, 2.0, 9.0], "linear"), ([-1.0, 1.0, 99.0], "linear"), ([0.0, 1.0, 99.0], "log")])
def test_the_horizontal_axis_of_a_scatter(x, scale):
    ax = sm.plot.scatter(x, [1.0, 2.0, 2.0])
    assert ax.get_xscale() == scale
    (markers,) = ax.collections
    places, shown = np.asarray(markers.get_offsets())[:, 0], np.array(x) != 0
    assert_allclose(places[shown], np.array(x)[shown])
    assert ax.get_xlim()[0] < places.min() and places.max() < ax.get_xlim()[1]


def test_axes_of_the_user_keep_their_looks_and_settings():
    before = dict(mpl.rcParams)
    figure = Figure()
    first, second = figure.add_axes((0.1, 0.1, 0.3, 0.8)), figure.subfigures(1, 2)[1].add_subplot()
    for ax in (first, second):
        ax.set_facecolor("red")
        assert sm.plot.profile(path_profile(network(), ELLIPSE, bins=8), ax=ax) is ax
        assert sm.plot.scatter([1.0, 2.0], [3.0, 4.0], ax=ax) is ax
        assert mpl.colors.to_hex(ax.get_facecolor()) == "#ff0000"
    assert dict(mpl.rcParams) == before
    assert not pyplot.get_fignums()


def test_new_figures_are_in_our_look_whatever_the_settings_when_they_are_drawn():
    with mpl.rc_context({"xtick.labelsize": 31, "axes.facecolor": "red"}):
        ax = sm.plot.scatter([1.0, 2.0], [3.0, 4.0])
        ax.get_figure().draw_without_rendering()
        assert {label.get_size() for label in (*ax.get_xticklabels(), *ax.get_yticklabels())} == {8.0}
        assert ax.get_facecolor()[:3] == (1, 1, 1)
    assert pyplot.get_fignums()


def made_up(count=24, channels=3, height=8, width=8):
    """Images of which each pixel is the image's number, their table with rising norms, and maps."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, channels, height, width), np.uint8)
    label = np.arange(count) % 10
    frame = pd.DataFrame(
        {
            "label": label,
            "predicted": np.where(np.arange(count) % 3 == 0, (label + 1) % 10, label),
            "confidence": np.linspace(0.4, 1.0, count),
            "jacobian_norm": 10.0 ** (np.arange(count) - 13),
        },
        index=np.arange(count)[::-1] + 100,
    )
    return images, frame, np.random.default_rng(0).random((count, height, width))


def shown(axes):
    return [int(np.ravel(ax.images[0].get_array())[0]) for ax in axes]


def test_the_points_of_the_highest_and_of_the_lowest_norms():
    images, frame, maps = made_up()
    axes = sm.plot.points(images, frame, maps, most=3, least=4, class_names=NAMES)
    assert len(axes) == 14
    assert shown(axes[:3]) == [23, 22, 21]
    assert shown(axes[6:10]) == [0, 1, 2, 3]
    for ax, place in zip((*axes[3:6], *axes[10:]), (23, 22, 21, 0, 1, 2, 3), strict=True):
        assert_array_equal(ax.images[0].get_array(), maps[place])
        low, high = ax.images[0].get_clim()
        assert (low, high) == (0, pytest.approx(np.quantile(maps[place], 0.99)))
        assert ax.images[0].get_cmap().name == "magma"
    assert axes[5].get_xlabel() == "automobile\n→ bird\n94.8%\nnorm $1.0\\times 10^{8}$"
    assert axes[3].get_xlabel() == "cat\n→ cat\n100.0%\nnorm $1.0\\times 10^{10}$"
    widths = [ax.spines["left"].get_linewidth() for ax in axes[:3]]
    assert widths == [0.8, 0.8, 2.0]


def test_maps_may_be_computed_of_the_images_drawn_alone():
    images, frame, maps = made_up()
    asked = []

    def compute(places):
        asked.append(places.tolist())
        return torch.from_numpy(maps[places])

    axes = sm.plot.points(images, frame, compute, most=2, least=1)
    assert asked == [[23, 22, 0]]
    for ax, place in zip((*axes[2:4], axes[5]), asked[0], strict=True):
        assert_array_equal(ax.images[0].get_array(), maps[place])


def test_points_of_a_small_set_are_shown_once():
    images, frame, _ = made_up(5)
    frame.iloc[[1, 3], 3] = math.nan, math.inf
    assert shown(sm.plot.points(images, frame)) == [4, 2, 0]
    assert shown(sm.plot.points(images, frame, most=2)) == [4, 2, 0]
    assert shown(sm.plot.points(images, frame, most=0, least=2)) == [0, 2]


def test_points_without_labels_have_predictions_alone():
    images, frame, _ = made_up(channels=1)
    axes = sm.plot.points(images, frame.assign(label=-1), most=2, least=0)
    assert [ax.get_xlabel().partition("\n")[0] for ax in axes] == ["→ 3", "→ 2"]
    assert {ax.spines["left"].get_linewidth() for ax in axes} == {0.8}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[0.2, 0.4], [0.0, 1.0]], [[0.2, 0.4], [0.0, 1.0]]),
        ([[-1.0, 3.0], [2.0, 2.0]], [[0.0, 1.0], [0.0, 0.0]]),
    ],
)
def test_images_of_any_range_are_shown(values, expected):
    images = np.array(values).reshape(2, 1, 1, 2)
    _, frame, _ = made_up(2)
    axes = sm.plot.points(images, frame)
    assert_allclose([ax.images[0].get_array().ravel() for ax in axes], expected[::-1])
    assert {ax.images[0].get_clim() for ax in axes} == {(0, 1)}


@pytest.mark.parametrize(
    ("most", "least", "shape"), [(8, 8, (3, 8, 8)), (8, 3, (1, 8, 8)), (2, 0, (1, 6, 12)), (1, 2, (3, 12, 6))]
)
@pytest.mark.parametrize("with_maps", [True, False])
def test_no_text_of_points_meets_another(most, least, shape, with_maps):
    images, frame, maps = made_up(24, *shape)
    frame["label"], frame["predicted"] = 1, 1
    frame["jacobian_norm"] *= 1e-13
    axes = sm.plot.points(images, frame, maps if with_maps else None, most=most, least=least, class_names=NAMES)
    figure = axes[0].figure.figure
    figure.draw_without_rendering()
    titles = [part._suptitle for part in figure.subfigs]
    drawn = [*(ax.get_tightbbox() for ax in axes), *(text.get_window_extent() for text in (*titles, figure._supxlabel))]
    for box in drawn:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for first, second in itertools.combinations(drawn, 2):
        assert not first.overlaps(second)


def test_points_on_axes_of_the_user():
    images, frame, maps = made_up()
    given = list(Figure().subplots(2, 2).ravel())
    assert sm.plot.points(images, frame, maps, most=2, least=0, axes=given) == given
    assert shown(given[:2]) == [23, 22]


PROFILE = path_profile(network(), ELLIPSE, bins=8)
IMAGES, FRAME, MAPS = made_up()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: sm.plot.profile([1.0]), "profile must be a PathProfile, which path_profile returns; got list"),
        (
            lambda: sm.plot.profile(PROFILE, quantity="loss"),
            "quantity must be one of jacobian_norm, transition_density; got 'loss'",
        ),
        (lambda: sm.plot.profile(PROFILE, ax=3), "ax must be matplotlib axes or None; got int"),
        (lambda: sm.plot.slice(PLANE), "boundaries must be what sm.boundaries returns; got Slice"),
        (lambda: sm.plot.slice(sm.boundaries(network(), PLANE), images=IMAGES[:2]), "images must be those of the three points"),
        (lambda: sm.plot.scatter([1.0], [1.0, 2.0]), "x and y must be two lists of equally many numbers"),
        (lambda: sm.plot.scatter([], []), "x and y must have at least one point"),
        (lambda: sm.plot.points(IMAGES[:, :2], FRAME), r"of 1 or 3 channels, numbers; got uint8 \[24, 2, 8, 8\]"),
        (lambda: sm.plot.points(IMAGES * math.nan, FRAME), "images must be finite; some are not"),
        (lambda: sm.plot.points(IMAGES, FRAME[:3]), "frame must be a table of 24 rows with the columns label, predicted"),
        (lambda: sm.plot.points(IMAGES, FRAME.drop(columns="label")), "got 24 rows of predicted, confidence, jacobian_norm"),
        (lambda: sm.plot.points(IMAGES, FRAME, MAPS[:, :3]), r"maps must be \[24, 8, 8\], one per image; got \[24, 3, 8\]"),
        (
            lambda: sm.plot.points(IMAGES, FRAME, lambda places: MAPS),
            r"maps must be \[16, 8, 8\], one per image; got \[24, 8, 8\]",
        ),
        (lambda: sm.plot.points(IMAGES, FRAME, most=0, least=0), "there is no image to draw"),
        (lambda: sm.plot.points(IMAGES, FRAME, most=-1), "most must be a whole number of at least 0; got -1"),
        (lambda: sm.plot.points(IMAGES, FRAME, MAPS, axes=[1, 2]), "axes must be 32: 2 for each of the 16 images; got 2"),
        (lambda: sm.plot.points(IMAGES, FRAME, class_names=["cat"]), "class_names must name every class; got 1 names"),
    ],
)
def test_bad_input_is_refused(refused, call, expected):
    with refused(expected):
        call()
