import functools
import threading

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from sensitometer.figures import catalogue
from sensitometer.figures.drawing import scales, style


def luminance(colour):
    """Relative luminance of an sRGB colour, from 0 to 1 (WCAG 2)."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_labels_differ_in_grey_and_in_shape():
    true, random = style.LABELS["true"], style.LABELS["random"]
    assert contrast(true.colour, random.colour) > 2.5
    assert true.marker != random.marker
    for look in (true, random):
        assert contrast(look.colour, "white") > 2


def test_data_sets_differ_in_grey_and_in_shape():
    looks = style.dataset_looks(["mnist", "cifar10", "cifar100", "digits", "fashion-mnist"])
    assert list(looks) == ["cifar10", "cifar100", "digits", "fashion-mnist", "mnist"]
    assert all(look.name == name for name, look in looks.items())
    assert len({look.marker for look in looks.values()}) == len({look.colour for look in looks.values()}) == 5
    first, second, *_ = looks.values()
    assert contrast(first.colour, second.colour) > 2.5
    assert all(contrast(look.colour, "white") > 2 for look in looks.values())
    assert not {look.colour for look in looks.values()} & {look.colour for look in style.LABELS.values()}


def test_any_number_of_data_sets_has_looks():
    assert len(style.dataset_looks(f"set-{number}" for number in range(12))) == 12


def test_settings_are_restored():
    before = dict(mpl.rcParams)
    with pytest.raises(ZeroDivisionError), style.drawing():
        assert mpl.rcParams["svg.hashsalt"] == "sensitometer"
        raise ZeroDivisionError
    assert dict(mpl.rcParams) == before


def test_the_users_settings_do_not_show():
    with mpl.rc_context({"font.size": 31, "axes.facecolor": "red"}), style.drawing():
        assert mpl.rcParams["font.size"] == 9
        assert mpl.rcParams["axes.facecolor"] == "white"


def test_one_thread_at_a_time():
    inside, most = [], []

    def draw():
        for _ in range(20):
            with style.drawing():
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and len(most) == 80


@pytest.mark.parametrize(
    ("tick", "text"),
    [
        (0.002, "0.002"),
        (1.0, "1"),
        (50000.0, "50000"),
        (1e5, "$10^{5}$"),
        (2e-11, r"$2\times 10^{-11}$"),
        (5e6, r"$5\times 10^{6}$"),
    ],
)
def test_short_numbers(tick, text):
    assert scales._short_number(tick) == text


@functools.cache
def composed(number, store, *, paper=False):
    """The figure, drawn, its numbers along the axes written; to be looked at only."""
    module = catalogue.figure_module(number)
    with style.drawing(paper=paper):
        figure = catalogue.compose(module, module.collect(store))
        figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("number", ["1", "4", "5"])
def test_in_the_papers_look_frames_are_closed_and_captions_are_left_to_the_paper(full_store, number):
    ours, papers = composed(number, full_store), composed(number, full_store, paper=True)
    assert papers.get_figwidth() == 5.5 != ours.get_figwidth()
    for ax in ours.axes:
        assert ax.texts
        assert not ax.spines["top"].get_visible()
        assert ax.xaxis.get_gridlines()[0].get_visible()
    for ax in papers.axes:
        assert not ax.texts
        assert all(spine.get_visible() and spine.get_linewidth() <= 0.5 for spine in ax.spines.values())
        assert not ax.xaxis.get_gridlines()[0].get_visible()
        assert {text.get_fontname() for text in (ax.xaxis.label, *ax.get_xticklabels())} == {"DejaVu Serif"}
    names = [[text.get_text() for text in figure.legends[0].get_texts()] for figure in (ours, papers)]
    assert names[0] == names[1] != []
    assert [bool(figure.legends[0].get_title().get_text()) for figure in (ours, papers)] == [True, False]


@pytest.mark.parametrize("number", catalogue.NUMBERS)
def test_in_the_papers_look_no_text_meets_another_panel(full_store, number):
    figure = composed(number, full_store, paper=True)
    boxes = [ax.get_tightbbox() for ax in figure.axes] + [figure.legends[0].get_window_extent()]
    for box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
    for index, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[index + 1 :])


def test_in_the_papers_look_gaps_are_shares_on_a_plain_axis(store):
    ours, papers = (composed("5", store, paper=paper).axes[0] for paper in (False, True))
    assert (ours.get_ylabel(), papers.get_ylabel()) == ("Generalization gap\n(percentage points)", "Generalization gap")
    # Between true and random labels there is nothing.
    assert (ours.get_yscale(), papers.get_yscale()) == ("function", "linear")
    assert {"4", "90"} <= {label.get_text() for label in ours.get_yticklabels()}
    assert [label.get_text() for label in papers.get_yticklabels()][1:-1] == ["0", "0.2", "0.4", "0.6", "0.8"]
    low, high = papers.get_ylim()
    assert low < 0.02 < 0.92 < high


def test_in_the_papers_look_both_axes_of_pairs_are_shares(full_store):
    ours, papers = (composed("4", full_store, paper=paper).axes[0] for paper in (False, True))
    assert (ours.get_title(loc="left"), papers.get_title(loc="left")) == ("Gap (percentage points)", "Gap")
    for axis, other in ((ours.xaxis, papers.xaxis), (ours.yaxis, papers.yaxis)):
        assert "20" in [label.get_text() for label in axis.get_ticklabels()]
        assert {"0.2", "0.4"} <= {label.get_text() for label in other.get_ticklabels()}


def test_markers_shrink_with_the_panels(full_store):
    (ours,), (papers,) = (
        [points.get_sizes()[0] for points in composed("4", full_store, paper=paper).axes[0].collections]
        for paper in (False, True)
    )
    assert papers == pytest.approx(ours * (5.5 / 10.5) ** 2)


def test_narrow_panels_have_fewer_numbers(make_store, paired_networks):
    values = [({"jacobian_norm": 30.0}, {"jacobian_norm": 1.0})]
    store = make_store(*paired_networks("labels", *values, transitions=1.0))
    ticks = [
        [label.get_text() for label in composed("4", store, paper=paper).axes[1].get_xticklabels()] for paper in (False, True)
    ]
    assert {"1", "2", "5", "10", "20"} <= set(ticks[0])
    assert {"1", "3", "10", "30"} <= set(ticks[1]) and not {"2", "5"} & set(ticks[1])


def test_the_papers_look_does_not_stay(full_store, tmp_path):
    saved = [
        catalogue.save_figures(full_store, tmp_path / name, only=["5"], formats=["svg"], paper_style=name == "paper").paths
        for name in ("before", "paper", "after")
    ]
    before, paper, after = ([path.read_bytes() for path in paths] for paths in saved)
    assert before == after
    # The picture is another one, and the tables are the same.
    assert before[0] != paper[0] and before[1:] == paper[1:]


def test_the_papers_look_ends_with_the_drawing():
    before = dict(mpl.rcParams)
    with pytest.raises(ZeroDivisionError), style.drawing(paper=True):
        assert style.in_paper() and mpl.rcParams["pdf.fonttype"] == 42
        raise ZeroDivisionError
    assert not style.in_paper() and dict(mpl.rcParams) == before


def test_another_thread_does_not_see_the_papers_look():
    seen = []
    with style.drawing(paper=True):
        thread = threading.Thread(target=lambda: seen.append(style.in_paper()))
        thread.start()
        thread.join()
    assert seen == [False]


@pytest.mark.parametrize(
    ("label", "columns", "short"),
    [
        ("Jacobian norm\n(mean over test points)", 1, "Jacobian norm"),
        ("", 3, ""),
        ("Cross-entropy of the point (nats)", 2, "Cross-entropy of the point (nats)"),
        ("Cross-entropy of the point (nats)", 4, "Cross-entropy of\nthe point (nats)"),
        ("Antidisestablishmentarianism of it", 4, "Antidisestablishmentarianism\nof it"),
        # Broken inside, the mathematics could not be read; its commands' names are not seen.
        (r"Loss, $\| f - \mathrm{onehot}(y) \|^2 / 2$", 4, "Loss,\n" r"$\| f - \mathrm{onehot}(y) \|^2 / 2$"),
        (r"Loss, $\mathrm{onehot}(y)^{2}$", 4, r"Loss, $\mathrm{onehot}(y)^{2}$"),
    ],
)
def test_labels_of_the_papers_look(label, columns, short):
    assert style.fitting(label, columns) == label
    with style.drawing(paper=True):
        assert style.fitting(label, columns) == short


@pytest.mark.parametrize("paper", [False, True])
def test_a_figure_without_looks_has_its_caption_alone(paper):
    with style.drawing(paper=paper):
        figure, _ = style.new_figure(1, 1)
        style.add_legend(figure, [], "what it shows")
        figure.draw_without_rendering()
    assert [legend.get_title().get_text() for legend in figure.legends] == ([] if paper else ["what it shows"])


@pytest.mark.parametrize("paper", [False, True])
def test_markers_that_do_not_fit_side_by_side_stand_one_above_the_other(paper):
    with style.drawing(paper=paper):
        figure, _ = style.new_figure(1, 1)
        looks = [style.Look(f"{number} {'long name ' * 4}", "black", "o") for number in range(4)]
        style.add_legend(figure, looks, "what it shows")
        figure.draw_without_rendering()
        (legend,) = figure.legends
        assert len({text.get_window_extent().y0 for text in legend.get_texts()}) == 4
        assert legend.get_window_extent().width <= figure.bbox.width


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        # Which powers, differs between versions of Matplotlib.
        ([0.0, 1e-300, 3e-299, 1.0], ["10^{-"] * 4),
        ([0.0, 2e-300, 5e-300], [r"2\times 10^{-300}", r"5\times 10^{-300}"]),
        ([0.0, 1e-5, 1.0], ["10^{-5}", "10^{-4}", "10^{-3}", "10^{-2}", "10^{-1}", "10^{0}"]),
    ],
)
def test_logarithmic_axes_of_any_length_have_numbers_beside_the_zero(values, shown):
    column = pd.Series(values)
    with style.drawing():
        figure, (ax,) = style.new_figure(1, 1)
        scales.log_axes(ax, column, column)
        figure.draw_without_rendering()
    for axis in (ax.xaxis, ax.yaxis):
        zero, *numbers = [label.get_text() for label in axis.get_ticklabels()]
        assert zero == "0"
        assert all(sum(power in number for number in numbers) >= shown.count(power) for power in shown)
        low, high = axis.get_view_interval()
        assert low < scales.log_positions(column).min() and high > max(values)


def test_the_sketch_of_an_ellipse_has_room_in_the_papers_look(full_store):
    ours, papers = (composed("2", full_store, paper=paper).axes for paper in (False, True))
    assert [text.get_text() for text in papers[0].texts] == ["θ", "θ = 0", "point 1", "point 2", "point 3"]
    whole = ["point 1\nθ = π/3\nlabel 3", "point 2\nθ = π\nlabel 1", "point 3\nθ = 5π/3\nlabel 4"]
    assert [text.get_text() for text in ours[0].texts][2:5] == whole
    sizes = [line.get_markersize() for axes in (ours, papers) for line in axes[1].lines if line.get_marker() == "s"]
    assert sizes[1] == pytest.approx(sizes[0] * 5.5 / 10.5)
    images = [image.get_window_extent() for image in papers[0].images]
    names = [text.get_window_extent() for text in papers[0].texts]
    assert not any(name.overlaps(image) for name in names for image in images)
