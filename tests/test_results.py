"""The surveys in docs/results: their figures can be drawn again, the page says what they say, and they are the evidence."""

import functools
import importlib.util
import shutil
from pathlib import Path

import pytest

from sensitometer.claims import HOLDS, check_claims
from sensitometer.figures import save_figures
from sensitometer.store import open_survey
from sensitometer.survey import load_spec, preset_names
from sensitometer.survey.checking import check_survey

DOCS = Path(__file__).parent.parent / "docs"
# Bytes of all that is attached: it is downloaded with every clone.
MOST = 20_000_000


def load_script():
    spec = importlib.util.spec_from_file_location("make_results", DOCS / "make_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
NAMES = [experiment.name for experiment in SCRIPT.EXPERIMENTS]


@pytest.fixture(scope="module")
def stores():
    """The stores of all experiments, by name."""
    opened = {name: open_survey(DOCS / "results" / name) for name in NAMES}
    yield opened
    for store in opened.values():
        store.close()


@functools.cache
def checked(name):
    with open_survey(DOCS / "results" / name) as store:
        return check_claims(store)


def claims(name, number, subject=""):
    return [claim for claim in checked(name) if claim.number == number and subject in claim.subject]


def test_every_experiment_and_every_figure_of_the_paper_is_there():
    assert {f"{name}-reduced" for name in NAMES} == {name for name in preset_names() if name.endswith("-reduced")}
    assert set(NAMES) <= set(preset_names())
    assert {number for experiment in SCRIPT.EXPERIMENTS for number in experiment.figures} == set(map(str, range(1, 12)))
    assert {number for experiment in SCRIPT.EXPERIMENTS for number in experiment.claims} == set(range(1, 7))


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_survey_is_the_reduced_preset_as_it_is_now(name, stores):
    assert stores[name].specification == load_spec(f"{name}-reduced")[1]
    assert sum(stores[name].counts().values()) == len(load_spec(f"{name}-reduced")[0])


@pytest.mark.parametrize("experiment", SCRIPT.EXPERIMENTS, ids=NAMES)
def test_all_figures_are_drawn_again_from_the_stored_survey(experiment, stores, tmp_path):
    saved = save_figures(stores[experiment.name], tmp_path, experiment.figures, ["png"])
    pictures = [path.name for path in saved.paths if path.suffix == ".png"]
    assert len(pictures) == len(experiment.figures)
    for name in pictures:
        assert (tmp_path / name).stat().st_size > 10_000
        assert (DOCS / "results" / experiment.name / name).stat().st_size > 10_000
    assert {path.name for path in (DOCS / "results" / experiment.name).glob("*.png")} == set(pictures)


def test_the_page_says_what_the_surveys_say():
    assert SCRIPT.page() == (DOCS / "results.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_nothing_says_where_a_survey_was_made(name, stores):
    assert stores[name].frame(["host"]).host.isna().all()
    assert stores[name].last_run().writer == ""


def test_what_is_attached_is_small():
    assert sum(file.stat().st_size for file in (DOCS / "results").rglob("*") if file.is_file()) < MOST


@pytest.mark.parametrize("name", NAMES)
def test_the_stored_surveys_are_sound(name, tmp_path):
    assert check_survey(shutil.copytree(DOCS / "results" / name, tmp_path / name)) == []


# --- the evidence


@pytest.mark.parametrize("dataset", ["mnist", "fashion-mnist", "cifar10"])
def test_the_gap_rises_with_the_jacobian_norm_on_each_data_set(dataset):
    (claim,) = [claim for claim in claims("small", 4) if claim.subject == dataset]
    assert claim.low > 0


@pytest.mark.parametrize(("name", "factor", "share"), [("large", "labels", 0.9), ("augmentation", "augmentation", 0.7)])
def test_pairs_go_the_papers_way(name, factor, share):
    for claim in claims(name, 3, factor):
        assert claim.value >= share, claim.quantity
        assert claim.configurations >= 10


def test_sensitivity_dips_at_the_training_points():
    found = claims("trajectory", 1, "classes") + claims("trajectory", 1, "one class")
    assert len(found) == 6
    assert all(claim.verdict == HOLDS for claim in found)


def test_boundaries_keep_away_from_training_points_after_training():
    found = claims("boundaries", 2)
    assert [claim.verdict for claim in found] == [HOLDS, HOLDS]


def test_the_norm_tells_errors_on_mnist():
    (claim,) = [claim for claim in claims("per-point", 6, "mnist") if (claim.subject, claim.statistic) == ("mnist", "AUROC")]
    assert claim.low > 0.8
