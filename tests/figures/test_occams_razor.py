import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose, assert_array_equal
from scipy.integrate import quad

from sensitometer.errors import InvalidInputError
from sensitometer.figures import catalogue, occams_razor
from sensitometer.figures.drawing import style


@pytest.fixture
def data(make_store):
    return occams_razor.collect(make_store())


def drawn(data):
    with style.drawing():
        figure = catalogue.compose(occams_razor, data)
        figure.draw_without_rendering()
    return figure


def at_the_data_set(data, panel):
    """The evidence of the small and of the large model for the data set of interest."""
    (position,) = data.tables["_marked"].loc[data.tables["_marked"]["panel"] == panel, "position"]
    curves = data.tables[""][data.tables[""]["panel"] == panel]
    own = (curves[curves["model"] == model] for model in ("small", "large"))
    return [np.interp(position, curve["position"], curve["evidence"]) for curve in own]


def test_the_store_does_not_matter(make_store, full_store):
    first, second = (occams_razor.collect(store) for store in (make_store(), full_store))
    for name, table in first.tables.items():
        assert_array_equal(table, second.tables[name])


@pytest.mark.parametrize("models", occams_razor.SHAPES)
@pytest.mark.parametrize("model", ["small", "large"])
def test_evidence_is_a_density_that_falls_from_left_to_right(models, model):
    area, _ = quad(lambda x: occams_razor.evidence(models[model], np.array(x)).item(), 0, np.inf)
    assert area == pytest.approx(1)
    assert (np.diff(occams_razor.evidence(models[model], np.linspace(0, 6, 100))) < 0).all()


def test_the_small_model_peaks_higher_in_both_panels(data):
    peaks = data.tables[""].groupby(["panel", "model"])["evidence"].max().unstack()
    assert (peaks["small"] > peaks["large"]).all()


def test_expected_is_the_small_model_and_near_the_crossing_it_may_be_the_large_one(data):
    expectation, reality = data.panels
    small, large = at_the_data_set(data, expectation)
    assert small > 2 * large
    small, large = at_the_data_set(data, reality)
    # Close to the crossing, where a step to the left turns the preference round.
    assert small < large < 1.1 * small
    data.tables["_marked"]["position"] -= 0.2
    small, large = at_the_data_set(data, reality)
    assert large < small


def test_the_curves_of_neural_networks_cross_at_a_smaller_angle(data):
    angles = []
    for panel in data.panels:
        curves = data.tables[""][data.tables[""]["panel"] == panel].pivot(index="position", columns="model", values="evidence")
        difference = (curves["small"] - curves["large"]).to_numpy()
        crossing = int(np.flatnonzero(difference < 0)[0])
        slopes = np.diff(curves.to_numpy(), axis=0)[crossing - 1] / np.diff(curves.index)[crossing - 1]
        angles.append(abs(np.subtract(*np.arctan(slopes))))
    assert angles[1] < angles[0] / 1.5


def test_curves_and_the_data_set_are_drawn_where_the_tables_say(data):
    figure = drawn(data)
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["Occam's razor: expectation", "Neural networks: reality?"]
    for ax, panel, position in zip(figure.axes, data.panels, data.tables["_marked"]["position"], strict=True):
        small, large, marked = ax.lines
        for line, model in ((small, "small"), (large, "large")):
            curve = data.tables[""][(data.tables[""]["panel"] == panel) & (data.tables[""]["model"] == model)]
            assert_allclose(line.get_xydata(), curve[["position", "evidence"]])
            assert line.get_marker() == occams_razor.LOOKS[model].marker
        assert_allclose(marked.get_xdata(), position)
        assert [label.get_text() for label in ax.get_xticklabels()] == ["$D$"]
        assert_allclose(ax.get_xticks(), position)
        assert len(ax.get_yticks()) == 0
    # The two panels are to be compared.
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_the_caption_says_that_nothing_was_measured(data):
    (legend,) = drawn(data).legends
    assert "nothing here was measured" in legend.get_title().get_text()
    assert [text.get_text() for text in legend.get_texts()] == ["small model $H_s$", "large model $H_l$"]


def test_no_text_leaves_the_figure_or_meets_another_panel(data):
    figure = drawn(data)
    boxes = [ax.get_tightbbox() for ax in figure.axes] + [figure.legends[0].get_window_extent()]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_wrong_number_of_axes_is_refused(data):
    with pytest.raises(InvalidInputError, match="axes must be one for each of the 2 panels; got 3"):
        occams_razor.draw(data, list(Figure().subplots(1, 3)))
