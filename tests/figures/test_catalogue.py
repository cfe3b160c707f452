import subprocess
import sys

import pandas as pd
import pytest

from sensitometer.errors import InvalidInputError, MissingDataError, SensitometerError, StoreError
from sensitometer.figures import FORMATS, NUMBERS, catalogue, save_figures
from sensitometer.figures.interface import FigureData

STEMS = {
    "1": "figure_1_gap_against_size_and_loss",
    "4": "figure_4_paired_settings",
    "5": "figure_5_gap_against_jacobian",
    "8": "figure_8_gap_against_transitions",
}
SIGNATURES = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_all_figures_in_all_formats(full_store, tmp_path):
    saved = save_figures(full_store, tmp_path / "new" / "figures", formats=FORMATS)
    assert saved.skipped == {}
    assert tuple(STEMS) == NUMBERS
    expected = [
        stem + ending
        for number, stem in STEMS.items()
        for ending in (".png", ".svg", ".pdf", ".csv", "_share.csv" if number == "4" else "_tau.csv")
    ]
    assert [path.name for path in saved.paths] == expected
    assert names(tmp_path / "new" / "figures") == sorted(path.name for path in saved.paths)
    for path in saved.paths:
        assert path.read_bytes().startswith(SIGNATURES.get(path.suffix[1:], b""))


@pytest.mark.parametrize(("number", "stem"), STEMS.items())
def test_the_tables_are_the_data_drawn(full_store, tmp_path, number, stem):
    save_figures(full_store, tmp_path, only=[number], formats=["png"])
    data: FigureData = catalogue.figure_module(number).collect(full_store)
    for ending, table in data.tables.items():
        # Without this, a column of "true" alone is read as one of booleans.
        read = pd.read_csv(tmp_path / f"{stem}{ending}.csv", dtype={"labels": str, "better": str})
        pd.testing.assert_frame_equal(read, table, rtol=1e-15, check_dtype=False)


@pytest.mark.parametrize("number", ["4", "5"])
@pytest.mark.parametrize("suffix", FORMATS)
def test_the_same_survey_gives_the_same_bytes(full_store, tmp_path, number, suffix):
    first, second = (save_figures(full_store, tmp_path / name, only=[number], formats=[suffix]).paths for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]


def test_only_what_is_asked_for_once_and_over_what_was_there(store, tmp_path):
    old = tmp_path / f"{STEMS['5']}.svg"
    old.write_text("old")
    saved = save_figures(store, tmp_path, only=["5", "5"], formats=["svg", "svg"])
    assert saved.paths[0] == old and old.read_bytes().startswith(b"<?xml")
    assert names(tmp_path) == sorted(f"{STEMS['5']}{ending}" for ending in (".svg", ".csv", "_tau.csv"))


def test_without_data_a_figure_is_skipped_with_the_reason(make_store, tmp_path):
    saved = save_figures(make_store({"jacobian_norm": None}), tmp_path, formats=["svg"])
    assert list(saved.skipped) == ["4", "5", "8"]
    assert saved.skipped["4"].startswith("figure 4 needs pairs of fitted networks alike but for true or random labels")
    assert saved.skipped["5"].startswith("figure 5 needs jacobian_norm of fitted networks")
    assert saved.skipped["8"].startswith("figure 8 needs transitions of fitted networks")
    assert [path.name for path in saved.paths] == [f"{STEMS['1']}{ending}" for ending in (".svg", ".csv", "_tau.csv")]


def test_without_data_a_figure_asked_for_is_refused_and_nothing_written(make_store, tmp_path):
    with pytest.raises(MissingDataError, match="figure 5 needs jacobian_norm") as caught:
        save_figures(make_store({"jacobian_norm": None}), tmp_path / "figures", only=["1", "5"])
    assert isinstance(caught.value, SensitometerError)
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["1", "7"]}, "figure must be one of 1, 4, 5, 8; got '7'"),
        ({"only": []}, "at least one figure must be named, of 1, 4, 5, 8; got none"),
        ({"formats": ["jpg"]}, "format must be one of png, svg, pdf; got 'jpg'"),
        ({"formats": []}, "at least one format must be named, of png, svg, pdf; got none"),
    ],
)
def test_unknown_figures_and_formats_are_refused(store, tmp_path, options, message):
    with pytest.raises(InvalidInputError) as caught:
        save_figures(store, tmp_path / "figures", **options)
    assert str(caught.value) == message
    assert not (tmp_path / "figures").exists()


def test_a_figure_that_fails_leaves_the_old_one(store, tmp_path, monkeypatch):
    old = tmp_path / f"{STEMS['5']}.png"
    old.write_text("old")

    def fail(module, data):
        raise OSError("no space left")

    monkeypatch.setattr(catalogue, "compose", fail)
    with pytest.raises(StoreError, match=r"cannot write figures to .*: no space left"):
        save_figures(store, tmp_path, only=["5"])
    assert names(tmp_path) == [old.name] and old.read_text() == "old"


def test_unknown_module_is_refused():
    with pytest.raises(InvalidInputError, match="figure must be one of 1, 4, 5, 8; got '2'"):
        catalogue.figure_module("2")


def imported(code):
    command = f"import sys; {code}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_catalogue_is_cheap():
    assert not {"matplotlib", "pandas", "numpy", "scipy", "torch", "ray"} & imported("import sensitometer.figures.catalogue")


def test_drawing_needs_neither_torch_nor_pyplot():
    code = "from sensitometer.figures import catalogue; [catalogue.figure_module(n) for n in catalogue.NUMBERS]"
    loaded = imported(code + "; assert 'matplotlib.pyplot' not in sys.modules")
    assert "matplotlib" in loaded and not {"torch", "ray"} & loaded
