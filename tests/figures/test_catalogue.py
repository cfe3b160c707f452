import re
import subprocess
import sys
from importlib import resources

import pandas as pd
import pytest

from sensitometer.errors import InvalidInputError, MissingDataError, SensitometerError, StoreError
from sensitometer.figures import FORMATS, NUMBERS, catalogue, save_figures
from sensitometer.figures.drawing.interface import FigureData

STEMS = {
    "1": "figure_1_gap_against_size_and_loss",
    "2": "figure_2_sensitivity_along_ellipses",
    "3": "figure_3_boundaries_on_a_slice",
    "4": "figure_4_paired_settings",
    "5": "figure_5_gap_against_jacobian",
    "6": "figure_6_jacobian_against_loss",
    "7": "figure_7_translation_and_boundaries",
    "8": "figure_8_gap_against_transitions",
    "9": "figure_9_jacobian_against_loss_elsewhere",
    "10": "figure_10_occams_razor",
    "11": "figure_11_jacobian_and_bounds",
}
# Endings of the tables beside the main one.
ENDINGS = {
    "1": ["_tau"],
    "2": ["_points"],
    "3": ["_distances"],
    "4": ["_share"],
    "5": ["_tau"],
    "6": ["_auroc"],
    "7": ["_crossings"],
    "8": ["_tau"],
    "9": ["_auroc"],
    "10": ["_marked"],
    "11": ["_bounds", "_share"],
}
LISTED = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"
SIGNATURES = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def drawn(full_store, tmp_path_factory):
    """All figures of the full store, as SVG, and the folder that was made for them."""
    folder = tmp_path_factory.mktemp("drawn") / "new" / "figures"
    return save_figures(full_store, folder, formats=["svg"]), folder


def test_all_figures(drawn):
    saved, folder = drawn
    assert saved.skipped == {}
    assert tuple(STEMS) == NUMBERS
    endings = {number: (".svg", ".csv", *(f"{name}.csv" for name in ENDINGS[number])) for number in STEMS}
    assert [path.name for path in saved.paths] == [stem + end for number, stem in STEMS.items() for end in endings[number]]
    assert names(folder) == sorted(path.name for path in saved.paths)
    assert all(path.read_bytes().startswith(b"<?xml") for path in saved.paths if path.suffix == ".svg")


@pytest.mark.parametrize(("number", "endings"), ENDINGS.items())
def test_the_endings_of_the_tables_are_documented(number, endings):
    documented = set(re.findall(r"`(_\w+)\.csv`\s+\(([^)]*)\)", save_figures.__doc__))
    assert {ending for ending, figures in documented if number in re.findall(r"\d+", figures)} == set(endings)


@pytest.mark.parametrize(("number", "stem"), STEMS.items())
def test_the_tables_are_the_data_drawn(full_store, drawn, number, stem):
    data: FigureData = catalogue.figure_module(number).collect(full_store)
    for ending, table in data.tables.items():
        # Without this, a column of "true" alone is read as one of booleans.
        read = pd.read_csv(drawn[1] / f"{stem}{ending}.csv", dtype={"labels": str, "better": str})
        pd.testing.assert_frame_equal(read, table, rtol=1e-15, check_dtype=False)


@pytest.mark.parametrize("number", ["2", "3", "4", "5", "7", "10", "11"])
def test_the_same_survey_gives_the_same_bytes(full_store, drawn, tmp_path, number):
    for path in save_figures(full_store, tmp_path, only=[number], formats=["svg"]).paths:
        assert path.read_bytes() == (drawn[1] / path.name).read_bytes()


def test_the_bytes_of_a_format_do_not_depend_on_the_others(full_store, drawn, tmp_path):
    together = save_figures(full_store, tmp_path / "together", only=["6"], formats=FORMATS).paths
    assert [path.suffix[1:] for path in together[:3]] == list(FORMATS)
    for path in together[:3]:
        assert path.read_bytes().startswith(SIGNATURES[path.suffix[1:]])
    assert together[1].read_bytes() == (drawn[1] / together[1].name).read_bytes()
    for place in (0, 2):
        alone = save_figures(full_store, tmp_path / "alone", only=["6"], formats=[FORMATS[place]]).paths[0]
        assert alone.read_bytes() == together[place].read_bytes()


def test_only_what_is_asked_for_once_and_over_what_was_there(store, tmp_path):
    old = tmp_path / f"{STEMS['5']}.svg"
    old.write_text("old")
    saved = save_figures(store, tmp_path, only=["5", "5"], formats=["svg", "svg"])
    assert saved.paths[0] == old and old.read_bytes().startswith(b"<?xml")
    assert names(tmp_path) == sorted(f"{STEMS['5']}{ending}" for ending in (".svg", ".csv", "_tau.csv"))


def test_without_data_a_figure_is_skipped_with_the_reason(make_store, tmp_path):
    saved = save_figures(make_store({"jacobian_norm": None}), tmp_path, formats=["svg"])
    assert list(saved.skipped) == ["2", "3", "4", "5", "6", "7", "8", "9", "11"]
    assert saved.skipped["4"].startswith("figure 4 needs pairs of fitted networks alike but for true or random labels")
    assert saved.skipped["5"].startswith("figure 5 needs jacobian_norm of fitted networks")
    assert saved.skipped["8"].startswith("figure 8 needs transitions of fitted networks")
    drawn = [
        f"{STEMS[number]}{ending}"
        for number, more in (("1", "_tau"), ("10", "_marked"))
        for ending in (".svg", ".csv", f"{more}.csv")
    ]
    assert [path.name for path in saved.paths] == drawn


PRESETS = {
    "1": ["large", "small"],
    "2": ["trajectory"],
    "3": ["boundaries"],
    "4": ["large", "augmentation"],
    "5": ["large", "small"],
    "6": ["per-point", "per-point-l2"],
    "7": ["trajectory"],
    "8": ["large", "small"],
    "9": ["per-point", "per-point-l2"],
    "11": ["bounds"],
}


@pytest.mark.parametrize(("number", "presets"), PRESETS.items())
def test_what_is_missing_is_said_alike_with_the_presets_that_make_it(make_store, tmp_path, number, presets):
    with pytest.raises(MissingDataError) as caught:
        save_figures(make_store(), tmp_path, only=[number])
    message = str(caught.value)
    assert re.fullmatch(
        rf"figure {number} needs [^\n]+, which the presets? [^\n]+ makes?; the survey has networks: 0, [^\n]+: 0", message
    )
    named = re.findall(r"presets? (\S+)(?: and (\S+))? makes?", message)
    assert [name for names in named for name in names if name] == presets
    folder = resources.files("sensitometer") / "experiments"
    assert all((folder / f"{name}.toml").is_file() for name in presets)


def test_a_survey_with_nothing_to_draw_but_the_sketch_is_refused(make_store, tmp_path):
    for store in (make_store(), make_store({"state": "unfitted"})):
        with pytest.raises(MissingDataError, match=r"^no figure can be drawn; figure 1 needs .*; figure 11 needs "):
            save_figures(store, tmp_path / "figures")
        assert not (tmp_path / "figures").exists()
    # Asked for, it is drawn of any survey.
    assert len(save_figures(make_store(), tmp_path / "figures", only=["10"], formats=["svg"]).paths) == 3


def test_an_error_of_one_figure_is_not_a_lack_of_data(full_store, tmp_path, monkeypatch):
    def fail(store):
        raise InvalidInputError("values must be finite")

    monkeypatch.setattr(catalogue.figure_module("8"), "collect", fail)
    with pytest.raises(InvalidInputError, match="values must be finite"):
        save_figures(full_store, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_without_data_a_figure_asked_for_is_refused_and_nothing_written(make_store, tmp_path):
    with pytest.raises(MissingDataError, match="figure 5 needs jacobian_norm") as caught:
        save_figures(make_store({"jacobian_norm": None}), tmp_path / "figures", only=["1", "5"])
    assert isinstance(caught.value, SensitometerError)
    assert not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"only": ["1", "12"]}, f"figure must be one of {LISTED}; got '12'"),
        ({"only": []}, f"at least one figure must be named, of {LISTED}; got none"),
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
    with pytest.raises(InvalidInputError, match=f"figure must be one of {LISTED}; got '12'"):
        catalogue.figure_module("12")


def imported(code):
    command = f"import sys; {code}; print(*{{name.split('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True).stdout.split())


def test_importing_the_catalogue_is_cheap():
    assert not {"matplotlib", "pandas", "numpy", "scipy", "torch", "ray"} & imported("import sensitometer.figures.catalogue")


def test_drawing_needs_neither_torch_nor_pyplot():
    code = "from sensitometer.figures import catalogue; [catalogue.figure_module(n) for n in catalogue.NUMBERS]"
    loaded = imported(code + "; assert 'matplotlib.pyplot' not in sys.modules")
    assert "matplotlib" in loaded and not {"torch", "ray"} & loaded
