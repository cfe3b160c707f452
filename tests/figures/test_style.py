import threading

import matplotlib as mpl
import pytest
from matplotlib.colors import to_rgb

from sensitometer.figures import style


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
    assert style._short_number(tick) == text
