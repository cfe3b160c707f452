import math
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose

from sensitometer.errors import InvalidInputError, MissingDataError
from sensitometer.figures import catalogue, paired_settings
from sensitometer.figures.drawing import style


def drawn(data):
    with style.drawing():
        figure = catalogue.compose(paired_settings, data)
        figure.draw_without_rendering()
    return figure


def markers(ax, name="digits"):
    """Where the pairs of a data set are drawn, `[n, 2]`."""
    (points,) = (points for points in ax.collections if points.get_label() == name)
    return np.asarray(points.get_offsets())


def lines(ax):
    return [line for text in ax.texts for line in text.get_text().split("\n")]


def test_a_row_a_setting_and_a_panel_a_quantity(full_store):
    data = paired_settings.collect(full_store)
    assert data.columns == 3
    quantities = ["gap", "jacobian_norm", "transitions"]
    factors = ["labels", "augmentation", "activation", "optimizer"]
    assert [tuple(panel) for panel in data.panels] == [(factor, name) for factor in factors for name in quantities]
    assert data.tables[""]["factor"].tolist() == [factor for factor in factors for _ in range(5)]
    axes = drawn(data).axes
    assert [ax.get_title(loc="left") for ax in axes] == ["Gap (percentage points)", "Jacobian norm", "Transitions"] * 4
    across = ["true labels", "with augmentation", "ReLU", "SGD + Momentum"]
    assert [ax.get_xlabel() for ax in axes] == [name for name in across for _ in range(3)]
    up = ["random labels", "without augmentation", "HardSigmoid", "L-BFGS"]
    assert [ax.get_ylabel() for ax in axes] == [name for first in up for name in (first, "", "")]


def test_pairs_are_drawn_where_the_table_says_and_the_share_is_written(full_store):
    data = paired_settings.collect(full_store)
    for ax, (_, quantity), scale in zip(drawn(data).axes, data.panels, [0.1, 1, 100] * 4, strict=True):
        # Horizontally the better setting, vertically the worse one.
        assert_allclose(markers(ax), scale * np.array([[1, 2], [1, 3], [2, 1], [1, 1], [2, 5]]))
        assert ax.get_xlim() == ax.get_ylim()
        assert ax.get_xscale() == ax.get_yscale() == ("linear" if quantity == "gap" else "log")
        # Wilson's interval of 3.5 in 5.
        assert lines(ax) == ["above diagonal: 70% (29.9 to 92.7%), n = 5"]
        (diagonal,) = ax.lines
        assert_allclose(
            ax.transAxes.inverted().transform(diagonal.get_transform().transform(diagonal.get_xydata())), [[0, 0], [1, 1]]
        )
    assert data.tables["_share"]["share"].tolist() == [0.7] * 12
    assert data.tables["_share"]["configurations"].tolist() == [5] * 12


@pytest.mark.parametrize("factor", ["labels", "augmentation", "activation", "optimizer"])
def test_rows_and_columns_without_data_are_left_out(make_store, paired_networks, factor):
    networks = paired_networks(factor, ({"jacobian_norm": 2.0}, {"jacobian_norm": 1.0}))
    data = paired_settings.collect(make_store(*networks))
    assert [tuple(panel) for panel in data.panels] == [(factor, "gap"), (factor, "jacobian_norm")]
    figure = drawn(data)
    assert len(figure.axes) == 2
    assert lines(figure.axes[1]) == ["above diagonal: 100% (20.7 to 100%), n = 1"]
    # A pair with equal gaps, and still an axis.
    assert len(figure.axes[0].get_xticks()) >= 2


def test_only_augmentation_takes_networks_that_are_not_fitted(make_store, paired_networks):
    networks = [
        network | {"state": "unfitted", "depth": depth}
        for depth, factor in enumerate(("labels", "augmentation"), 2)
        for network in paired_networks(factor, ({}, {}))
    ]
    assert paired_settings.collect(make_store(*networks)).tables[""]["factor"].tolist() == ["augmentation"]


def test_pairs_of_random_labels_are_of_labels_alone(make_store, paired_networks):
    networks = [
        network | {"depth": depth, "labels": "random"}
        for depth, factor in enumerate(("augmentation", "activation", "optimizer"), 2)
        for network in paired_networks(factor, ({}, {}))
    ]
    with pytest.raises(MissingDataError, match="such pairs: 0"):
        paired_settings.collect(make_store(*networks))
    pairs = paired_settings.collect(make_store(*networks, {"depth": 3, "width": 1, "activation": "relu"})).tables[""]
    assert pairs["factor"].tolist() == ["labels"]


def test_what_is_missing_is_said(make_store):
    message = (
        "figure 4 needs pairs of fitted networks alike but for true or random labels, relu or hardsigmoid, "
        "momentum or lbfgs, which the preset large makes, or (fitted or not) augmentation or none, "
        "which the preset augmentation makes; "
        "the survey has networks: 3, fitted: 2, such pairs: 0"
    )
    store = make_store({}, {"width": 2, "labels": "random"}, {"labels": "random", "state": "unfitted"})
    with pytest.raises(MissingDataError) as caught:
        paired_settings.collect(store)
    assert str(caught.value) == message
    with pytest.raises(MissingDataError, match="the survey has networks: 0, fitted: 0, such pairs: 0"):
        paired_settings.collect(make_store())


def test_each_data_set_has_its_look(make_store, paired_networks):
    networks = [
        network | {"dataset": name} for name in ("mnist", "digits") for network in paired_networks("labels", ({"gap": 0.9}, {}))
    ]
    figure = drawn(paired_settings.collect(make_store(*networks)))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["digits", "mnist"]
    for name in ("digits", "mnist"):
        assert_allclose(markers(figure.axes[0], name), [[0.1, 0.9]])
    assert lines(figure.axes[0]) == ["above diagonal: 100% (34.2 to 100%), n = 2"]


def test_values_of_zero_are_drawn_before_all_others_on_both_axes(make_store, paired_networks):
    values = [({"jacobian_norm": 0.0}, {"jacobian_norm": 1e-3}), ({"jacobian_norm": 10.0}, {"jacobian_norm": 1e-18})]
    ax = drawn(paired_settings.collect(make_store(*paired_networks("labels", *values)))).axes[1]
    (first, second) = markers(ax)
    zero = first[1]
    assert second[0] == zero and ax.get_xlim()[0] < zero < 1e-3
    assert first[0] == 1e-3 and second[1] == 10.0
    for labels in (ax.get_xticklabels(), ax.get_yticklabels()):
        assert labels[0].get_text() == "0"


def test_many_pairs_are_counted_in_cells(make_store, paired_networks):
    generator = np.random.default_rng(0)
    values = [
        tuple({"jacobian_norm": norm, "gap": norm / 50} for norm in pair) for pair in np.exp(generator.normal(size=(3000, 2)))
    ]
    networks = [network | {"dataset": name} for name in ("digits", "mnist") for network in paired_networks("labels", *values)]
    data = paired_settings.collect(make_store(*networks))
    for ax in drawn(data).axes:
        most = int(lines(ax)[1].removeprefix("markers: 1 (small) to ").removesuffix(" (large) pairs"))
        places = {
            name: (ax.transScale + ax.transLimits).transform(markers(ax, name)) * style.CELLS for name in ("digits", "mnist")
        }
        assert all(len(own) < 3000 for own in places.values()) and most > 1
        # The same pairs of two data sets, and no marker on another.
        assert np.abs(places["digits"][:, None] - places["mnist"]).max(2).min() == pytest.approx(0.5)


def test_no_text_leaves_the_figure_or_meets_another_panel(full_store):
    figure = drawn(paired_settings.collect(full_store))
    boxes = [ax.get_tightbbox() for ax in figure.axes] + [figure.legends[0].get_window_extent()]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_nearly_all_is_not_called_all(make_store, paired_networks):
    data = paired_settings.collect(make_store(*paired_networks("labels", ({}, {}))))
    shares = data.tables["_share"].assign(share=0.998, low=0.9, high=0.99984, pairs=12345)
    figure = drawn(replace(data, tables={**data.tables, "_share": shares}))
    assert lines(figure.axes[0]) == ["above diagonal: 99.8% (90 to 100%), n = 12,345"]


def test_wrong_number_of_axes_is_refused(full_store):
    with pytest.raises(InvalidInputError, match="axes must be one for each of the 12 panels; got 3"):
        paired_settings.draw(paired_settings.collect(full_store), list(Figure().subplots(1, 3)))


def test_the_table_has_both_networks_values_and_what_they_share(full_store):
    pairs = paired_settings.collect(full_store).tables[""]
    first = pairs.iloc[0]
    assert first[["factor", "worse", "better", "width", "seed"]].tolist() == ["labels", "random", "true", 1, 1]
    assert first[["gap_worse", "gap_better", "transitions_worse", "transitions_better"]].tolist() == [0.2, 0.1, 200, 100]
    # Settings that the two do not share are null, but for the settings of the momentum network.
    assert pairs["labels"].isna().tolist() == [True] * 5 + [False] * 15
    assert pairs[pairs["factor"] == "optimizer"][
        ["learning_rate", "batch_size", "steps"]
    ].drop_duplicates().to_numpy().tolist() == [[0.005, 256, 1000]]
    assert not math.isnan(pairs["steps"].min())
