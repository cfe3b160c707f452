import itertools
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from sensitometer.analysis.points import error_auroc
from sensitometer.errors import InvalidInputError, MissingDataError
from sensitometer.figures import catalogue, jacobian_against_loss, jacobian_against_loss_elsewhere
from sensitometer.figures.drawing import style

# From linear sRGB to what is seen of it without the long, middle or short cones (Machado, Oliveira and Fernandes, 2009).
BLINDNESS = {
    "none": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def points(losses, norms, wrong, **others):
    """The arrays of a network whose points have these losses, each of the two kinds, and norms."""
    count = len(losses)
    return {
        "points.index": np.arange(count, dtype=np.int32) + 7,
        "points.label": np.zeros(count, dtype=np.int16),
        "points.predicted": np.array(wrong, dtype=np.int16) * 3,
        "points.confidence": np.full(count, 0.9),
        "points.cross_entropy": np.array(losses, dtype=np.float64),
        "points.l2_loss": 10 * np.array(losses, dtype=np.float64),
        "points.jacobian_norm": np.array(norms, dtype=np.float64),
        **others,
    }


THREE = points([1e-9, 1e-3, 4.0], [1e-8, 1e-2, 3.0], [False, False, True])


@pytest.fixture
def make_kept(make_store):
    """A function from pairs of a network and its arrays to a store."""

    def make(*pairs):
        arrays = {f"network-{number}": own for number, (_, own) in enumerate(pairs)}
        return make_store(*(network for network, _ in pairs), arrays=arrays)

    return make


@pytest.fixture
def both_losses(make_kept):
    """Networks of four data sets and both losses."""
    datasets = ("mnist", "cifar100", "cifar10", "fashion-mnist")
    return make_kept(*(({"dataset": name, "loss": loss}, THREE) for name in datasets for loss in ("l2", "cross-entropy")))


def drawn(data, module=jacobian_against_loss):
    with style.drawing():
        figure = catalogue.compose(module, data)
        figure.draw_without_rendering()
    return figure


def markers(ax, name):
    """Where the points of a kind are drawn, `[n, 2]`, and their colours, `[n, 4]`, from the left."""
    (found,) = (one for one in ax.collections if one.get_label() == name)
    offsets = np.asarray(found.get_offsets())
    order = np.argsort(offsets[:, 0], kind="stable")
    colours = np.broadcast_to(found.get_facecolors() if len(found.get_facecolors()) else found.get_edgecolors(), (len(order), 4))
    return offsets[order], colours[order]


def lines(ax):
    return [line for text in ax.texts for line in text.get_text().split("\n")]


def test_a_row_a_loss_and_a_column_a_data_set(both_losses):
    data = jacobian_against_loss.collect(both_losses)
    expected = [(dataset, loss) for loss in ("cross-entropy", "l2") for dataset in ("cifar10", "mnist")]
    assert [tuple(panel) for panel in data.panels] == expected
    assert data.columns == 2
    axes = drawn(data).axes
    assert [ax.get_title(loc="left") for ax in axes] == [
        "cifar10, cross-entropy",
        "mnist, cross-entropy",
        "cifar10, l2 loss",
        "mnist, l2 loss",
    ]
    assert [ax.get_xlabel().split()[0] for ax in axes] == ["Cross-entropy", "Cross-entropy", r"$\ell_2$", r"$\ell_2$"]
    assert [bool(ax.get_ylabel()) for ax in axes] == [True, False, True, False]


def test_the_other_data_sets_are_those_of_the_appendix(both_losses):
    data = jacobian_against_loss_elsewhere.collect(both_losses)
    assert [panel.dataset for panel in data.panels] == ["cifar100", "fashion-mnist"] * 2
    assert len(drawn(data, jacobian_against_loss_elsewhere).axes) == 4
    assert jacobian_against_loss_elsewhere.CAPTION == jacobian_against_loss.CAPTION


def test_points_are_drawn_where_the_table_says_by_kind_and_the_loss_is_the_networks_own(make_kept):
    store = make_kept(({"loss": "cross-entropy"}, THREE), ({"loss": "l2"}, THREE))
    data = jacobian_against_loss.collect(store)
    for ax, factor in zip(drawn(data).axes, (1, 10), strict=True):
        assert ax.get_xscale() == ax.get_yscale() == "log"
        assert_allclose(markers(ax, "correctly classified")[0], [[factor * 1e-9, 1e-8], [factor * 1e-3, 1e-2]])
        assert_allclose(markers(ax, "wrongly classified")[0], [[factor * 4.0, 3.0]])
        assert all(one.get_rasterized() for one in ax.collections)
        # The wrong ones are drawn last.
        assert [one.get_label() for one in ax.collections] == ["correctly classified", "wrongly classified"]
    table = data.tables[""]
    assert table["point_loss"].tolist() == [1e-9, 1e-3, 4.0, 1e-8, 1e-2, 40.0]
    assert table["index"].tolist() == [7, 8, 9] * 2
    assert table["correct"].tolist() == [True, True, False] * 2
    assert table["predicted"].tolist() == [0, 0, 3] * 2 and table["label"].tolist() == [0] * 6
    assert list(table.columns[:8]) == ["dataset", "loss", "id", "width", "depth", "activation", "optimizer", "learning_rate"]


def test_each_network_has_its_colour_and_the_legend_is_neutral(make_kept):
    # Losses that say which network a point is of.
    store = make_kept(*(({"width": 10 + k}, points([10.0**-k, 2 * 10.0**-k], [1, 2], [False, True])) for k in range(5)))
    data = jacobian_against_loss.collect(store)
    figure = drawn(data)
    colour_of = dict(zip(data.tables["_auroc"]["width"], style.NETWORKS, strict=True))
    for name in ("correctly classified", "wrongly classified"):
        _, colours = markers(figure.axes[0], name)
        assert_allclose(colours[:, :3], [to_rgba(colour_of[10 + k])[:3] for k in reversed(range(5))])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["correctly classified", "wrongly classified"]
    assert [handle.get_marker() for handle in legend.legend_handles] == ["o", "x"]
    assert {handle.get_color() for handle in legend.legend_handles} == {style.GREY}


def test_points_of_networks_are_mixed(make_kept):
    store = make_kept(*(({"width": 10 + k}, points(np.full(50, 0.1), np.ones(50), [False] * 50)) for k in range(2)))
    (found,) = (
        one for one in drawn(jacobian_against_loss.collect(store)).axes[0].collections if one.get_label().startswith("corr")
    )
    changes = (np.diff(found.get_facecolors(), axis=0) != 0).any(axis=1).sum()
    assert changes > 20


def test_five_networks_are_the_same_in_any_order_of_storage_and_mostly_when_others_come(make_store):
    networks = [{"width": width} for width in range(1, 41)]
    arrays = {f"network-{number}": THREE for number in range(40)}

    def ids(store):
        return jacobian_against_loss.collect(store).tables["_auroc"]["id"].tolist()

    store = make_store(*networks, arrays=arrays)
    chosen = ids(store)
    assert len(set(chosen)) == 5
    # Not the first in the order of ids.
    assert sorted(chosen) != sorted(arrays)[:5]
    store._frame = store._frame.iloc[::-1]
    assert ids(store) == chosen
    one_more = make_store(*networks, {"width": 99}, arrays=arrays | {"network-40": THREE})
    assert len(set(ids(one_more)) & set(chosen)) >= 4
    assert len(ids(make_store(*networks[:3], arrays=arrays))) == 3


def test_only_fitted_networks_of_true_labels_with_points_are_drawn(make_store):
    store = make_store(
        {"state": "unfitted"},
        {"labels": "random"},
        {"width": 3},
        {"width": 4},
        {"width": 5},
        arrays={
            "network-0": THREE,
            "network-1": THREE,
            "network-2": {"paths.random.jacobian_norm": np.ones(3)},
            "network-4": THREE,
        },
    )
    assert jacobian_against_loss.collect(store).tables["_auroc"]["id"].tolist() == ["network-4"]


def test_what_stands_above_a_panel(make_kept):
    mixed = points([1e-3, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 1.5], [False, False, True, True])
    all_correct = points([1e-3] * 4, [1.0, 2.0, 3.0, 4.0], [False] * 4)
    data = jacobian_against_loss.collect(make_kept(({"width": 1}, mixed), ({"width": 2}, all_correct)))
    auroc = error_auroc(mixed["points.jacobian_norm"], np.array([False, False, True, True]))
    by_width = data.tables["_auroc"].set_index("width")
    assert by_width["auroc"][1] == auroc == 0.75 and math.isnan(by_width["auroc"][2])
    assert by_width["wrong"].to_dict() == {1: 2, 2: 0} and by_width["points"].tolist() == [4, 4]
    assert lines(drawn(data).axes[0]) == ["n = 2 networks, 25% of 8 points wrong", "AUROC = 0.75 (mean over 1)"]


def test_the_area_is_the_mean_over_networks_and_not_of_their_points_together(make_kept):
    first, second = points([1, 2], [1, 2], [False, True]), points([1, 2], [40, 30], [False, True])
    data = jacobian_against_loss.collect(make_kept(({"width": 1}, first), ({"width": 2}, second)))
    assert sorted(data.tables["_auroc"]["auroc"]) == [0.0, 1.0]
    assert lines(drawn(data).axes[0])[1] == "AUROC = 0.50"


@pytest.mark.parametrize(("wrong", "share", "name"), [(False, "0%", "correctly"), (True, "100%", "wrongly")])
def test_points_of_one_kind_alone(make_kept, wrong, share, name):
    data = jacobian_against_loss.collect(make_kept(({}, points([0.1, 0.2], [1.0, 1.0], [wrong] * 2))))
    figure = drawn(data)
    assert lines(figure.axes[0]) == [f"n = 1 network, {share} of 2 points wrong", "AUROC = undefined"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [f"{name} classified"]


def test_losses_and_norms_of_zero_have_a_place_and_tiny_ones_their_own(make_kept):
    data = jacobian_against_loss.collect(
        make_kept(({}, points([0.0, 1e-200, 1e-30, 2.0], [0.0, 1e-190, 1e-40, 3.0], [False] * 4)))
    )
    ax = drawn(data).axes[0]
    (zero, *rest), _ = markers(ax, "correctly classified")
    assert_allclose(rest, [[1e-200, 1e-190], [1e-30, 1e-40], [2.0, 3.0]])
    assert (zero < 1e-190).all() and (zero > 0).all()
    for axis, place in ((ax.xaxis, zero[0]), (ax.yaxis, zero[1])):
        labels = [label for label in axis.get_ticklabels() if label.get_text()]
        assert labels[0].get_text() == "0" and axis.get_ticklocs()[0] == place
        boxes = [label.get_window_extent() for label in labels]
        assert len(boxes) > 2
        assert not any(a.overlaps(b) for a, b in itertools.pairwise(boxes))


def test_points_that_are_all_zero_are_drawn(make_kept):
    data = jacobian_against_loss.collect(make_kept(({}, points([0.0, 0.0], [0.0, 0.0], [False, True]))))
    ax = drawn(data).axes[0]
    assert_allclose(markers(ax, "wrongly classified")[0], markers(ax, "correctly classified")[0])


def test_what_is_no_number_is_left_out(make_kept):
    broken = points([math.nan, 1.0, math.inf, 3.0], [1.0, math.inf, 1.0, 2.0], [True, False, False, False])
    nothing = points([math.nan], [math.nan], [True])
    data = jacobian_against_loss.collect(make_kept(({"width": 1}, broken), ({"width": 2}, nothing)))
    assert data.tables[""]["point_loss"].tolist() == [3.0]
    assert data.tables["_auroc"][["width", "points", "wrong"]].to_numpy().tolist() == [[1, 1, 0]]


@pytest.mark.parametrize(
    ("present", "expected", "columns"),
    [
        (["mnist/l2"], ["mnist/l2"], 1),
        (["mnist/l2", "digits/cross-entropy"], ["digits/cross-entropy", "mnist/l2"], 1),
        (
            ["cifar10/cross-entropy", "mnist/cross-entropy", "mnist/l2"],
            ["mnist/cross-entropy", "cifar10/cross-entropy", "mnist/l2"],
            2,
        ),
        (["cifar10/l2", "mnist/l2", "mnist/cross-entropy"], ["mnist/l2", "cifar10/l2", "mnist/cross-entropy"], 2),
    ],
)
def test_panels_without_data_are_left_out_and_no_panel_is_in_another_column(make_kept, present, expected, columns):
    data = jacobian_against_loss.collect(
        make_kept(*((dict(zip(("dataset", "loss"), name.split("/"), strict=True)), THREE) for name in present))
    )
    assert ["/".join(panel) for panel in data.panels] == expected
    assert data.columns == columns
    assert len(drawn(data).axes) == len(expected)


def test_what_is_missing_is_said(make_store, make_kept):
    store = make_store({}, {"labels": "random"}, {"state": "unfitted"}, arrays={"network-1": THREE, "network-2": THREE})
    with pytest.raises(MissingDataError) as caught:
        jacobian_against_loss.collect(store)
    assert str(caught.value) == (
        "figure 6 needs measures of single points of fitted networks of true labels and data sets "
        "other than fashion-mnist and cifar100, which the presets per-point and per-point-l2 make; "
        "the survey has networks: 3, fitted of true labels: 1, with that: 0"
    )
    with pytest.raises(MissingDataError, match=r"figure 9 needs .* data sets fashion-mnist or cifar100, .* networks: 1, fitted"):
        jacobian_against_loss_elsewhere.collect(make_kept(({}, THREE)))
    with pytest.raises(MissingDataError, match="figure 6 needs"):
        jacobian_against_loss.collect(make_kept(({"dataset": "cifar100"}, THREE)))
    with pytest.raises(MissingDataError, match="networks: 0, fitted of true labels: 0"):
        jacobian_against_loss.collect(make_store())


def test_wrong_number_of_axes_is_refused(both_losses):
    with pytest.raises(InvalidInputError, match="axes must be one for each of the 4 panels; got 3"):
        jacobian_against_loss.draw(jacobian_against_loss.collect(both_losses), list(Figure().subplots(1, 3)))


@pytest.mark.parametrize("module", [jacobian_against_loss, jacobian_against_loss_elsewhere])
@pytest.mark.parametrize("datasets", [["digits", "fashion-mnist"], ["mnist", "cifar10", "digits", "fashion-mnist", "cifar100"]])
def test_no_text_leaves_the_figure_or_meets_another_panel(make_kept, module, datasets):
    store = make_kept(*(({"dataset": name, "loss": loss}, THREE) for name in datasets for loss in ("cross-entropy", "l2")))
    figure = drawn(module.collect(store), module)
    boxes = [ax.get_tightbbox() for ax in figure.axes] + [figure.legends[0].get_window_extent()]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_the_tables_survive_a_csv(both_losses, tmp_path):
    paths = catalogue.save_figures(both_losses, tmp_path, only=["6", "9"], formats=["svg"]).paths
    tables = jacobian_against_loss.collect(both_losses).tables
    assert [path.name for path in paths] == [
        f"figure_{stem}{ending}"
        for stem in ("6_jacobian_against_loss", "9_jacobian_against_loss_elsewhere")
        for ending in (".svg", ".csv", "_auroc.csv")
    ]
    for ending, table in tables.items():
        read = pd.read_csv(tmp_path / f"figure_6_jacobian_against_loss{ending}.csv")
        pd.testing.assert_frame_equal(read, table, rtol=1e-15, check_dtype=False)


def lab(colour, blindness):
    """CIELAB coordinates of a colour, as somebody with a kind of colour blindness sees it."""
    rgb = np.array(to_rgba(colour)[:3])
    linear = np.clip(BLINDNESS[blindness] @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(to_xyz @ linear / [0.9505, 1, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLINDNESS)
def test_colours_of_networks_are_told_apart(blindness):
    for a, b in itertools.combinations(style.NETWORKS, 2):
        # 2.3 is a just noticeable difference.
        assert np.linalg.norm(lab(a, blindness) - lab(b, blindness)) > 25
        assert abs(lab(a, "none")[0] - lab(b, "none")[0]) > 5
