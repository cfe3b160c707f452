import math

import numpy as np
import pytest
from matplotlib.figure import Figure
from numpy.testing import assert_allclose
from scipy.stats import kendalltau

from sensitometer.errors import InvalidInputError, MissingDataError
from sensitometer.figures import catalogue
from sensitometer.figures.drawing import style
from sensitometer.figures.gap import against_jacobian, against_size_and_loss, against_transitions
from sensitometer.figures.gap.panels import _tau_line

MODULES = [against_jacobian, against_size_and_loss]


def markers(ax):
    """Where the points of each kind of labels are drawn, `[n, 2]`."""
    return {points.get_label(): np.asarray(points.get_offsets()) for points in ax.collections if points.get_label() in NAMES}


NAMES = {look.name for look in style.LABELS.values()}


def drawn(module, data, render=False):
    """The whole figure; where its parts come to lie is known only after it was rendered."""
    with style.drawing():
        figure = catalogue.compose(module, data)
        if render:
            figure.draw_without_rendering()
    return figure


def texts(figure):
    return [text.get_text() for ax in figure.axes for text in (*ax.texts, ax.title, ax.get_xaxis().label, ax.get_yaxis().label)]


def test_figure_5_is_mean_and_standard_error_of_the_fitted_seeds(store):
    points = against_jacobian.collect(store).tables[""]
    assert points["width"].tolist() == [16, 32, 64]
    assert points["labels"].tolist() == ["true", "true", "random"]
    assert points["seeds"].tolist() == [2, 1, 2]
    assert_allclose(points["jacobian_norm"], [0.2, 0.5, 30])
    assert_allclose(points["jacobian_norm_sem"], [0.1, math.nan, 10])
    assert_allclose(points["gap"], [0.03, 0.06, 0.9])
    assert_allclose(points["gap_sem"], [0.01, math.nan, 0.02])


def test_figure_5_correlations_are_over_networks(store):
    table = against_jacobian.collect(store).tables["_tau"]
    assert table["labels"].tolist() == ["true", "all"]
    assert table["networks"].tolist() == [3, 5]
    assert table["configurations"].tolist() == [2, 3]
    assert table["tau"].tolist() == [1, 1]
    assert math.isnan(table["low"][0]) and table["low"][1] == 1


def test_figure_1_is_one_point_a_fitted_network(store):
    data = against_size_and_loss.collect(store)
    assert data.tables[""]["id"].tolist() == ["network-0", "network-1", "network-3", "network-5", "network-6"]
    assert data.tables[""]["seed"].tolist() == [1, 2, 1, 1, 2]
    assert data.tables[""]["weights"].tolist() == [100, 100, 400, 900, 900]
    assert data.tables[""]["train_loss"].tolist() == [1e-3, 0, 1e-9, 1e-5, 1e-5]
    assert data.tables[""]["gap"].tolist() == [0.02, 0.04, 0.06, 0.88, 0.92]
    assert [panel.quantity for panel in data.panels] == ["weights", "train_loss"]
    table = data.tables["_tau"]
    expected = kendalltau([0.02, 0.04, 0.06, 0.88, 0.92], [1e-3, 0, 1e-9, 1e-5, 1e-5]).statistic
    assert table[(table["quantity"] == "train_loss") & (table["labels"] == "all")]["tau"].item() == pytest.approx(expected)


def test_figure_8_is_figure_5_with_transitions(make_store):
    values = {1: 300.0, 2: 500.0, 3: None}
    networks = [{"seed": seed, "transitions": value, "gap": seed / 10} for seed, value in values.items()]
    data = against_transitions.collect(make_store(*networks, {"width": 32, "transitions": 0.0, "gap": 0.5}))
    assert_allclose(data.tables[""]["transitions"], [400, 0])
    assert_allclose(data.tables[""]["transitions_sem"], [100, math.nan])
    assert_allclose(data.tables[""]["gap"], [0.15, 0.5])
    assert data.tables["_tau"]["networks"].tolist() == [3]
    figure = drawn(against_transitions, data)
    (ax,) = figure.axes
    assert "true labels: τ = −0.33 (no interval), n = 3" in texts(figure)
    assert ax.get_xlabel().startswith("Transitions")
    # No transitions at all: in the band beside the logarithmic axis.
    assert_allclose(markers(ax)["true labels"][0], [400, 0.15])
    assert ax.get_xlim()[0] < markers(ax)["true labels"][1, 0] < 400


def test_points_are_drawn_where_the_table_says(store):
    data = against_jacobian.collect(store)
    (ax,) = drawn(against_jacobian, data).axes
    found = markers(ax)
    assert_allclose(found["true labels"], [[0.2, 0.03], [0.5, 0.06]])
    assert_allclose(found["random labels"], [[30, 0.9]])


def test_bars_are_one_standard_error_each_way(store):
    (ax,) = drawn(against_jacobian, against_jacobian.collect(store)).axes
    (across, up) = [lines.get_segments()[0] for lines in ax.collections if hasattr(lines, "get_segments")][:2]
    assert_allclose(across, [[0.1, 0.03], [0.3, 0.03]])
    assert_allclose(up, [[0.2, 0.02], [0.2, 0.04]])


def test_a_loss_of_zero_is_drawn_left_of_all_others(store):
    (_, ax) = drawn(against_size_and_loss, against_size_and_loss.collect(store), render=True).axes
    x = markers(ax)["true labels"][:, 0]
    assert x[0] == 1e-3 and x[2] == 1e-9
    assert ax.get_xlim()[0] < x[1] < 1e-9
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels[0] == "0"
    assert all(tick > x[1] for tick in ax.get_xticks()[1:])


@pytest.mark.parametrize("losses", [(0.0, 0.0), (0.0, 1e-299), (1e-310, 1.0), (1e-299, 1e-300), (0.0, 1e30)])
def test_any_loss_survives_the_logarithmic_axis(make_store, losses):
    store = make_store(*({"train_loss": loss, "seed": seed} for seed, loss in enumerate(losses)))
    (_, ax) = drawn(against_size_and_loss, against_size_and_loss.collect(store), render=True).axes
    low, high = ax.get_xlim()
    x = markers(ax)["true labels"][:, 0]
    assert np.isfinite(x).all() and 0 < low < x.min() and x.max() < high < math.inf


def test_a_panel_a_data_set_by_name(make_store):
    store = make_store(
        *({"dataset": name, "gap": gap} for name in ("mnist", "cifar10", "digits", "cifar100") for gap in (0.1, 0.2))
    )
    data = against_jacobian.collect(store)
    assert [panel.dataset for panel in data.panels] == ["cifar10", "cifar100", "digits", "mnist"]
    assert data.columns == 2
    assert [ax.get_title(loc="left") for ax in drawn(against_jacobian, data).axes] == [
        "cifar10",
        "cifar100",
        "digits",
        "mnist",
    ]
    data = against_size_and_loss.collect(store)
    assert (len(data.panels), data.columns) == (8, 2)


def test_tau_is_written_in_the_panel(make_store):
    norms, gaps = [1.0, 2.0, 3.0, 4.0, 5.0], [0.5, 0.4, 0.3, 0.1, 0.2]
    store = make_store(
        *({"width": i + 1, "jacobian_norm": n, "gap": g} for i, (n, g) in enumerate(zip(norms, gaps, strict=True)))
    )
    data = against_jacobian.collect(store)
    low, high = (f"{data.tables['_tau'][end][0]:.2f}".replace("-", "−") for end in ("low", "high"))
    assert f"true labels: τ = −0.80 ({low} to {high}), n = 5" in texts(drawn(against_jacobian, data))


def test_a_tau_of_nearly_zero_has_no_sign(make_store):
    row = {"dataset": "digits", "quantity": "x", "labels": "true", "tau": -0.001, "low": -0.004, "high": 0.004, "networks": 9}
    assert _tau_line(row) == "true labels: τ = 0.00 (0.00 to 0.00), n = 9"


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("labels", ["true", "random"])
def test_one_network_is_drawn_without_tau(make_store, module, labels):
    figure = drawn(module, module.collect(make_store({"labels": labels})))
    assert f"{labels} labels: τ undefined, n = 1" in texts(figure)
    for ax in figure.axes:
        assert len(ax.get_xticks()) >= 2 and len(ax.get_yticks()) >= 2


def test_an_empty_stretch_of_the_gap_axis_is_shortened_and_said_to_be(store, make_store):
    shortened = drawn(against_jacobian, against_jacobian.collect(store))
    assert "axis shortened here" in texts(shortened)
    (ax,) = shortened.axes
    # A point is as long above the stretch as below it, and the order is kept.
    y = ax.transData.transform([(1, share) for share in (0.02, 0.03, 0.06, 0.88, 0.89, 0.92)])[:, 1]
    assert_allclose(y[1] - y[0], y[4] - y[3])
    assert (np.diff(y) > 0).all()
    assert all(not 0.1 < tick < 0.8 for tick in ax.get_yticks())


@pytest.mark.parametrize("gaps", [[i / 10 for i in range(9)], [0.1, 0.2], [0.1, 0.1]], ids=["even", "two", "a tie"])
def test_a_gap_axis_without_a_long_empty_stretch_is_even(make_store, gaps):
    store = make_store(*({"width": i + 1, "gap": gap} for i, gap in enumerate(gaps)))
    figure = drawn(against_jacobian, against_jacobian.collect(store))
    assert "axis shortened here" not in texts(figure)
    low, high = figure.axes[0].get_ylim()
    assert low < min(gaps) and max(gaps) < high and high - low > 0.0199


@pytest.mark.parametrize("module", MODULES)
def test_no_text_leaves_the_figure_or_meets_another_panel(store, make_store, module):
    many = [row | {"dataset": name} for name in ("mnist", "fashion-mnist", "cifar10") for row in store.frame().to_dict("records")]
    for each in (store, make_store(*many)):
        figure = drawn(module, module.collect(each), render=True)
        boxes = [ax.get_tightbbox() for ax in figure.axes] + [figure.legends[0].get_window_extent()]
        for box in boxes:
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def test_many_points_are_counted_in_cells(store, monkeypatch):
    for module, bars in ((against_jacobian, ", no bars"), (against_size_and_loss, "")):
        data = module.collect(store)
        for most, expected in ((len(data.tables[""]), False), (len(data.tables[""]) - 1, True)):
            monkeypatch.setattr(style, "MOST_POINTS", most)
            figure = drawn(module, data)
            assert any(text.endswith(f"\nmarkers: 1 (small) to 1 (large) points{bars}") for text in texts(figure)) == expected
            for ax in figure.axes:
                kinds = [artist for artist in ax.collections if artist.get_label() in NAMES]
                assert {artist.get_label() for artist in kinds} == NAMES
                assert {bool(artist.get_rasterized()) for artist in kinds} == {expected}
                assert not (expected and any(hasattr(artist, "get_segments") for artist in ax.collections))


@pytest.mark.parametrize("module", MODULES)
def test_many_points_are_near_their_markers(store, make_store, module, monkeypatch):
    monkeypatch.setattr(style, "MOST_POINTS", 0)
    generator = np.random.default_rng(0)
    gaps = {"true": generator.uniform(0.0, 0.1, 3000), "random": generator.uniform(0.8, 0.9, 3000)}
    # A configuration each: the points are then the networks in both figures. Half of them have both kinds of labels in one place.
    store = make_store(
        *(
            {
                "steps": i,
                "labels": labels,
                "gap": gap if i % 2 else 0.85,
                "jacobian_norm": norm,
                "train_loss": norm,
                "weights": norm,
            }
            for labels in gaps
            for i, (gap, norm) in enumerate(zip(gaps[labels], np.exp(generator.normal(size=3000)), strict=True))
        )
    )
    data = module.collect(store)
    for panel, ax in zip(data.panels, drawn(module, data).axes, strict=True):
        to_panel = ax.transScale + ax.transLimits
        most, centres = 0, {}
        for kind, look in style.LABELS.items():
            (artist,) = (artist for artist in ax.collections if artist.get_label() == look.name)
            centres[kind] = to_panel.transform(artist.get_offsets()) * style.CELLS
            own = data.tables[""][data.tables[""]["labels"] == kind]
            places = to_panel.transform(own[[panel.quantity, "gap"]].to_numpy()) * style.CELLS
            # In the cell of a marker: the distances along and across add up to half of a diagonal at most.
            distances = np.abs(places[:, None] - centres[kind]).sum(2)
            assert distances.min(1).max() <= 0.5 + 1e-9
            counts = np.bincount(distances.argmin(1), minlength=len(centres[kind]))
            assert counts.min() >= 1
            order = np.argsort(counts)
            assert (np.diff(artist.get_sizes()[order]) >= 0).all()
            most = max(most, counts.max())
        # The centres of the one kind are the corners of the other's cells.
        nearest = np.abs(centres["true"][:, None] - centres["random"]).max(2).min(1)
        assert nearest.min() == pytest.approx(0.5)
        assert any(f"markers: 1 (small) to {most:,} (large) points" in text.get_text() for text in ax.texts)


@pytest.mark.parametrize("module", MODULES)
def test_wrong_number_of_axes_is_refused(store, module):
    with pytest.raises(InvalidInputError, match=r"axes must be one for each of the \d panels; got 3"):
        module.draw(module.collect(store), list(Figure().subplots(1, 3)))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            {"jacobian_norm": None},
            "figure 5 needs jacobian_norm of fitted networks, which the presets large and small make; "
            "the survey has networks: 1, fitted: 1, with that: 0",
        ),
        (
            {"state": "unfitted"},
            "figure 5 needs gap and jacobian_norm of fitted networks, which the presets large and small make; "
            "the survey has networks: 1, fitted: 0, with that: 0",
        ),
    ],
)
def test_what_is_missing_is_said(make_store, network, message):
    with pytest.raises(MissingDataError) as caught:
        against_jacobian.collect(make_store(network))
    assert str(caught.value) == message


def test_what_figure_8_misses_is_said(make_store):
    with pytest.raises(MissingDataError) as caught:
        against_transitions.collect(make_store({}))
    assert str(caught.value) == (
        "figure 8 needs transitions of fitted networks, which the presets large and small make; "
        "the survey has networks: 1, fitted: 1, with that: 0"
    )


def test_what_is_missing_is_said_where_each_network_lacks_another(make_store):
    with pytest.raises(MissingDataError, match="figure 1 needs gap and weights and train_loss of fitted networks"):
        against_size_and_loss.collect(make_store({"weights": None}, {"train_loss": None}))


def test_an_empty_survey_has_nothing_to_draw(make_store):
    with pytest.raises(MissingDataError, match="the survey has networks: 0, fitted: 0, with that: 0"):
        against_jacobian.collect(make_store())
