import math
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from sensitometer.analysis.points import approximation, lower_bound, upper_bound
from sensitometer.errors import InvalidInputError, MissingDataError
from sensitometer.figures import catalogue, jacobian_against_loss, jacobian_and_bounds
from sensitometer.figures.drawing import style


def points(losses, label_norms, norms, logit_norms, wrong):
    """The arrays of a network whose points have these values."""
    count = len(losses)
    values = {
        "cross_entropy": losses,
        "label_jacobian_norm": label_norms,
        "jacobian_norm": norms,
        "logit_jacobian_norm": logit_norms,
    }
    return {
        "points.index": np.arange(count, dtype=np.int32) + 7,
        "points.label": np.zeros(count, dtype=np.int16),
        "points.predicted": np.array(wrong, dtype=np.int16) * 3,
        "points.confidence": np.full(count, 0.9),
        "points.l2_loss": np.ones(count),
        **{f"points.{name}": np.array(one, dtype=np.float64) for name, one in values.items()},
    }


def on_the_bounds(classes, M=2.0):
    """Points between the bounds (5) and on (7), but for the last one, below all of them."""
    losses = np.array([1e-12, 1e-6, 1e-2, 0.5, 3.0, 1.0])
    below = np.array([1, 1, 1, 1, 1, 0.1])
    middle = np.sqrt(lower_bound(losses, M, classes) * upper_bound(losses, M, classes))
    logit_norms = np.full(6, math.sqrt(M * classes))
    return points(losses, below * middle, below * approximation(losses, M, classes), logit_norms, losses > math.log(2))


@pytest.fixture
def two_datasets(make_store):
    """A network of 10 classes and one of 100."""
    return make_store(
        {"dataset": "mnist", "width": 50, "depth": 5, "activation": "tanh", "optimizer": "adam"},
        {"dataset": "cifar100"},
        arrays={"network-0": on_the_bounds(10), "network-1": on_the_bounds(100)},
    )


def drawn(data):
    with style.drawing():
        figure = catalogue.compose(jacobian_and_bounds, data)
        figure.draw_without_rendering()
    return figure


def markers(ax, name):
    """Where the points of a kind are drawn, `[n, 2]`, from the left."""
    (found,) = (one for one in ax.collections if one.get_label() == name)
    offsets = np.asarray(found.get_offsets())
    return offsets[np.argsort(offsets[:, 0])]


def lines(ax):
    return [line for text in ax.texts for line in text.get_text().split("\n")]


def test_a_column_a_data_set_and_a_row_a_norm(two_datasets):
    data = jacobian_and_bounds.collect(two_datasets)
    quantities = ("label_jacobian_norm", "jacobian_norm")
    assert [tuple(panel) for panel in data.panels] == [(name, norm) for norm in quantities for name in ("cifar100", "mnist")]
    assert data.columns == 2
    axes = drawn(data).axes
    assert [ax.get_title(loc="left") for ax in axes] == ["cifar100", "mnist"] * 2
    assert [ax.get_ylabel().split("\n")[0] for ax in axes] == [
        *("Jacobian norm of the true class", ""),
        *("Jacobian norm of all classes", ""),
    ]
    assert [ax.get_xlabel() for ax in axes] == ["", ""] + ["Cross-entropy of the point (nats)"] * 2


def test_points_are_drawn_where_the_table_says(two_datasets):
    data = jacobian_and_bounds.collect(two_datasets)
    for panel, ax in zip(data.panels, drawn(data).axes, strict=True):
        assert ax.get_xscale() == ax.get_yscale() == "log"
        own = data.tables[""][data.tables[""]["dataset"] == panel.dataset].sort_values("cross_entropy")
        assert len(own) == 6
        for correct, name in ((True, "correctly classified"), (False, "wrongly classified")):
            expected = own[own["correct"] == correct][["cross_entropy", panel.quantity]].to_numpy()
            assert len(expected) > 1
            assert_allclose(markers(ax, name), expected)


def test_lines_are_the_bounds_over_the_points_with_m_and_n_of_the_network(two_datasets):
    data = jacobian_and_bounds.collect(two_datasets)
    functions = {"lower bound (5), (6)": lower_bound, "upper bound (5)": upper_bound, "approximation (7)": approximation}
    names = {
        "label_jacobian_norm": {"lower bound (5), (6)", "upper bound (5)"},
        "jacobian_norm": {"lower bound (5), (6)", "approximation (7)"},
    }
    for (dataset, quantity), ax in zip(data.panels, drawn(data).axes, strict=True):
        assert {line.get_label() for line in ax.lines} == names[quantity]
        for line in ax.lines:
            x, y = line.get_xydata().T
            assert x[0] == pytest.approx(1e-12) and x[-1] == pytest.approx(3.0)
            assert_allclose(np.diff(np.log(x)), np.log(3e12) / (len(x) - 1))
            assert_allclose(y, functions[line.get_label()](x, 2.0, {"mnist": 10, "cifar100": 100}[dataset]), rtol=1e-12)
            assert line.get_zorder() > max(one.get_zorder() for one in ax.collections)
    assert list(data.tables["_bounds"].columns) == ["dataset", "cross_entropy", "lower", "upper", "approximation"]


def test_each_kind_of_line_is_in_the_legend_above(two_datasets):
    figure = drawn(jacobian_and_bounds.collect(two_datasets))
    above, below = sorted(figure.legends, key=lambda legend: -legend.get_window_extent().y0)
    assert [text.get_text() for text in above.get_texts()] == ["lower bound (5), (6)", "upper bound (5)", "approximation (7)"]
    assert [text.get_text() for text in below.get_texts()] == ["correctly classified", "wrongly classified"]
    # In the legend as in the panels, and each in its own way.
    drawn_as = {line.get_label(): (line.get_color(), line._dash_pattern) for ax in figure.axes for line in ax.lines}
    assert {line.get_label(): (line.get_color(), line._dash_pattern) for line in above.get_lines()} == drawn_as
    assert len(set(map(str, drawn_as.values()))) == 3


def test_what_stands_above_the_panels(two_datasets):
    data = jacobian_and_bounds.collect(two_datasets)
    axes = drawn(data).axes
    within = "within (5): 83.3%, or a factor of two of it: 83.3%"
    assert lines(axes[1]) == ["tanh, depth 5, width 50, adam", "33.3% of 6 points wrong", within]
    assert lines(axes[3]) == ["above (6): 83.3%", "within a factor of two of (7): 83.3%"]
    shares = data.tables["_share"].set_index("dataset").loc["mnist"]
    assert shares[["points", "wrong", "classes"]].tolist() == [6, 2, 10]
    assert shares["mean_square"] == pytest.approx(2.0)
    assert shares[["inside", "around", "above", "near"]].tolist() == pytest.approx([5 / 6] * 4)


def test_one_network_of_cross_entropy_true_labels_and_fitted_is_chosen(make_store):
    networks = [{"loss": "l2"}, {"labels": "random"}, {"state": "unfitted"}, {"width": 3}, *({"width": 4 + k} for k in range(9))]
    own = on_the_bounds(10)
    arrays = {f"network-{number}": own for number in range(len(networks)) if number != 3}
    store = make_store(*networks, arrays=arrays)
    (chosen,) = jacobian_and_bounds.collect(store).tables["_share"]["id"]
    assert chosen in {f"network-{number}" for number in range(4, 13)}
    store._frame = store._frame.iloc[::-1]
    assert jacobian_and_bounds.collect(store).tables["_share"]["id"].tolist() == [chosen]
    # One of those of Figure 6.
    assert chosen in set(jacobian_against_loss.collect(store).tables["_auroc"]["id"])


def test_a_point_of_zero_loss_and_norm_has_a_place_and_no_part_in_the_lines(make_store):
    own = points([0.0, 1e-20, 2.0], [0.0, 1e-20, 0.3], [0.0, 1e-20, 0.4], [3.0] * 3, [False, False, True])
    data = jacobian_and_bounds.collect(make_store({}, arrays={"network-0": own}))
    assert data.tables["_bounds"]["cross_entropy"].min() == pytest.approx(1e-20)
    for ax in drawn(data).axes:
        zero, tiny = markers(ax, "correctly classified")
        assert_allclose(tiny, [1e-20, 1e-20])
        assert (zero < 1e-20).all()
        assert ax.get_xticklabels()[0].get_text() == ax.get_yticklabels()[0].get_text() == "0"


@pytest.mark.parametrize("losses", [[0.0, 0.0], [0.5, 0.5]])
def test_losses_that_are_all_alike_are_drawn(make_store, losses):
    own = points(losses, [0.0, 0.1], [0.0, 0.2], [1.0, 1.0], [False, False])
    data = jacobian_and_bounds.collect(make_store({}, arrays={"network-0": own}))
    figure = drawn(data)
    assert len(figure.axes) == 2 and np.isfinite(data.tables["_bounds"]["lower"]).all()
    assert [text.get_text() for legend in figure.legends for text in legend.get_texts()].count("wrongly classified") == 0


def test_what_is_missing_is_said(make_store):
    store = make_store({}, {"loss": "l2"}, {"state": "unfitted"}, arrays={"network-1": on_the_bounds(10)})
    with pytest.raises(MissingDataError) as caught:
        jacobian_and_bounds.collect(store)
    assert str(caught.value) == (
        "figure 11 needs measures of single points of a fitted network of true labels and cross-entropy, "
        "which the preset bounds makes; "
        "the survey has networks: 3, fitted of true labels and cross-entropy: 1, with that: 0"
    )
    with pytest.raises(MissingDataError, match="networks: 0, fitted of true labels and cross-entropy: 0"):
        jacobian_and_bounds.collect(make_store())


def test_wrong_number_of_axes_is_refused(two_datasets):
    with pytest.raises(InvalidInputError, match="axes must be one for each of the 4 panels; got 3"):
        jacobian_and_bounds.draw(jacobian_and_bounds.collect(two_datasets), list(Figure().subplots(1, 3)))


@pytest.mark.parametrize("datasets", [["cifar10"], ["cifar10", "mnist"], ["cifar10", "cifar100", "fashion-mnist", "mnist"]])
def test_no_text_leaves_the_figure_or_meets_another_panel(make_store, datasets):
    networks = [{"dataset": name, "optimizer": "rmsprop", "activation": "hardsigmoid", "width": 1000} for name in datasets]
    arrays = {f"network-{number}": on_the_bounds(10) for number in range(len(datasets))}
    figure = drawn(jacobian_and_bounds.collect(make_store(*networks, arrays=arrays)))
    boxes = [ax.get_tightbbox() for ax in figure.axes] + [legend.get_window_extent() for legend in figure.legends]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_the_tables_survive_a_csv(two_datasets, tmp_path):
    paths = catalogue.save_figures(two_datasets, tmp_path, only=["11"], formats=["svg"]).paths
    stem = "figure_11_jacobian_and_bounds"
    assert [path.name for path in paths] == [f"{stem}{ending}" for ending in (".svg", ".csv", "_bounds.csv", "_share.csv")]
    for ending, table in jacobian_and_bounds.collect(two_datasets).tables.items():
        read = pd.read_csv(tmp_path / f"{stem}{ending}.csv")
        pd.testing.assert_frame_equal(read, table, rtol=1e-15, check_dtype=False)


def test_drawing_waits_for_no_torch():
    code = "import sys, sensitometer.figures.jacobian_and_bounds; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"
