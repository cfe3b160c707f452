"""The command line as its user meets it: what it prints, its exit status, and one line for every mistake."""

import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from sensitometer.store import open_survey

SPEC = """
[survey]
name = "tiny"
[data]
name = "digits"
train_points = 100
[space]
width = [32, 64]
depth = [2]
learning_rate = [0.03, 0.06, 0.1]
batch_size = [50]
labels = ["true", "random"]
seed = [1, 2]
[training]
steps = 1500
stop_at_accuracy = 1.0
[measure]
transitions = 2
"""


@pytest.fixture(scope="module")
def survey(tmp_path_factory):
    """A small survey, run by the command."""
    folder = tmp_path_factory.mktemp("survey")
    (folder / "tiny.toml").write_text(SPEC)
    command = [sys.executable, "-m", "sensitometer", "run", folder / "tiny.toml", "--out", folder / "out"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return folder / "out", done


def test_a_run_shows_its_progress_and_ends_with_the_states_and_the_correlations(survey):
    out, done = survey
    printed = done.stdout
    assert "24/24 networks" in done.stderr
    assert f"24 networks in {out}: 24 fitted, 0 unfitted, 0 diverged, 0 failed" in printed.replace("\n", "")
    for quantity in ("Jacobian norm", "logit Jacobian norm", "number of weights", "train loss"):
        lines = re.findall(rf"^  {quantity} +[+-]\d\.\d\d  \[[+-]\d\.\d\d, [+-]\d\.\d\d\]$", printed, re.MULTILINE)
        assert len(lines) == 2, quantity
    for labels in ("true", "random"):
        assert f"Kendall's tau of the generalization gap, 12 networks fitted to {labels} labels" in printed
    assert "by resampling the 6 configurations" in printed


def test_too_few_fitted_networks_are_said_to_be_too_few(tmp_path, run):
    (tmp_path / "tiny.toml").write_text(SPEC.replace("[32, 64]", "[64]").replace("[0.03, 0.06, 0.1]", "[0.1]"))
    status, printed, _ = run("run", tmp_path / "tiny.toml", "--out", tmp_path / "out", "--limit", 2, "--workers", 1)
    assert status == 0
    assert "networks fitted to true labels" in printed
    assert printed.count("[too few configurations]") == 5 * printed.count("Kendall's tau")


def test_figures_say_where_they_are(survey, run):
    status, printed, errors = run("figures", survey[0], "--format", "svg")
    assert status == 0
    # A survey of whole networks has no arrays.
    assert errors == "not drawn, for lack of data: 2, 3, 6, 7, 9, 11 (--only 2 says what 2 needs)\n"
    assert "which the preset trajectory makes" in run("figures", survey[0], "--only", "2")[2]
    paths = printed.split()
    assert {path.rpartition(".")[2] for path in paths} == {"svg", "csv"}
    assert sum("figure_5" in path for path in paths) == sum("figure_1_" in path for path in paths) == 3
    paths = run("figures", survey[0], "--only", "5", "--format", "png,svg,pdf")[1].split()
    assert sorted(path.rpartition(".")[2] for path in paths) == ["csv", "csv", "pdf", "png", "svg"]
    status, printed, _ = run("figures", survey[0], "--only", "4,8", "--format", "svg")
    assert status == 0
    folder = survey[0] / "figures"
    four = [f"{folder}/figure_4_paired_settings{ending}" for ending in (".svg", ".csv", "_share.csv")]
    assert printed.split() == [
        *four,
        *(f"{folder}/figure_8_gap_against_transitions{ending}" for ending in (".svg", ".csv", "_tau.csv")),
    ]


def test_status_counts_the_states(survey, run):
    status, printed, _ = run("status", survey[0])
    assert status == 0
    assert "tiny: 24 of 24 networks stored" in printed
    assert re.search(r"fitted +24", printed)
    assert "left" not in printed


def test_status_of_an_unfinished_survey_says_the_rate_and_the_time_left(tmp_path, run):
    (tmp_path / "tiny.toml").write_text(SPEC)
    assert run("run", tmp_path / "tiny.toml", "--out", tmp_path / "out", "--limit", 5, "--workers", 1)[0] == 0
    _, printed, _ = run("status", tmp_path / "out")
    assert "5 of 24 networks stored" in printed
    assert re.search(r"\S+ networks a second in the last run; .* left, by predicted cost", printed)


def test_a_sound_survey_is_said_to_be_and_another_is_mended(survey, run, tmp_path):
    out = shutil.copytree(survey[0], tmp_path / "out")
    assert run("check", out) == (0, f"{out} is sound\n", "")
    (out / "spec.toml.sensitometer-new").mkdir()
    said = "1 file is left over from a process that was killed: spec.toml.sensitometer-new; "
    assert run("check", out) == (1, f"{said}--repair would remove them\n", "")
    assert run("check", out, "--repair") == (0, f"{said}done: remove them\n", "")
    assert run("check", out)[0] == 0


def test_a_survey_is_exported_as_it_is_read(survey, run, tmp_path):
    frame = open_survey(survey[0]).frame()
    for name, read in (("all.csv", pd.read_csv), ("all.parquet", pd.read_parquet)):
        assert run("export", survey[0], tmp_path / name) == (0, f"24 networks in {tmp_path / name}\n", "")
        exported = read(tmp_path / name)
        assert list(exported.columns) == list(frame.columns)
        assert exported.pop("error").isna().all()
        pd.testing.assert_frame_equal(exported, frame.drop(columns="error"), check_dtype=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.csv", "all.parquet"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("all.xlsx", "the file to export to must end in .parquet or .csv; got 'all.xlsx'"),
        ("nowhere/all.csv", "cannot write to .*all.csv: .*"),
        ("nowhere/all.parquet", "cannot write to .*all.parquet: .*"),
    ],
)
def test_an_export_that_cannot_be_is_one_line(survey, run, tmp_path, name, message):
    status, printed, errors = run("export", survey[0], tmp_path / name)
    assert (status, printed) == (2, "")
    assert re.fullmatch(f"sensitometer: {message}\n", errors)
    assert not list(tmp_path.iterdir())


def test_a_plan_trains_nothing(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, _ = run("plan", "quick", "--workers", 3)
    assert status == 0
    assert re.search(r"networks +432", printed)
    assert re.search(r"operations +\S+ FLOP at most: networks stop early", printed)
    assert "with 3 workers" in printed
    assert list(tmp_path.iterdir()) == []


def test_the_data_sets_are_listed_with_where_they_are(tmp_path, run, monkeypatch):
    monkeypatch.setenv("SENSITOMETER_DATA", str(tmp_path))
    status, printed, _ = run("data", "list")
    assert status == 0
    assert re.search(r"digits +1,297 +500 +10  1 x 8 x 8 +part of scikit-learn", printed)
    assert f"{tmp_path}/cifar100 (not there: sensitometer data fetch cifar100)" in printed


def test_digits_need_no_fetching(run):
    assert run("data", "fetch", "digits") == (0, "digits is part of a library and needs no fetching\n", "")


def test_the_doctor_measures_the_matrix_products(run, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SENSITOMETER_MATMUL")
    monkeypatch.setattr("sensitometer.matmul.PROBE_ROUNDS", 1)
    status, printed, _ = run("doctor")
    assert status == 0
    assert re.search(r"^torch +\d", printed, re.MULTILINE)
    assert re.search(r"^  stock +\d+ +\d+ +\d+ +\d+ +\d+ +\d\.\de-07$", printed, re.MULTILINE)
    assert re.search(r"^path used +(stock|mkl-as-intel): ", printed, re.MULTILINE)
    assert re.search(r"^an operation +\d\.\d\d µs of torch", printed, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "quack", "--out", "x"], "sensitometer: no specification 'quack': expected a TOML file, or one of "),
        (["run", "quick"], "sensitometer run: Missing option '--out'."),
        (["run", "quick", "--out", "x", "--workers", "none"], "'--workers': 'none' is not a valid integer range."),
        (["run", "quick", "--out", "x", "--executor", "slurm"], "'--executor': 'slurm' is not"),
        (["run", "quick", "--out", "/dev/null/x"], "sensitometer: cannot write to /dev/null/x: Not a directory"),
        (["run", "quick", "--out", "x", "--device", "tpu"], "sensitometer: device must be cpu or cuda; got 'tpu'"),
        (["walk"], "sensitometer: No such command 'walk'."),
        (["status", "nowhere"], "sensitometer: no survey in nowhere: expected the file survey.sqlite"),
        (["figures", "nowhere"], "sensitometer: no survey in nowhere: expected the file survey.sqlite"),
        (["plan", "nothing.toml"], "sensitometer: no specification 'nothing.toml': expected a TOML file, or one of "),
        (["data", "fetch", "imagenet"], "sensitometer: the data set must be one of digits, mnist, "),
    ],
)
def test_bad_input_is_one_line_and_status_2_and_makes_nothing(arguments, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, errors = run(*arguments)
    assert (status, printed) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--only", "12"], "sensitometer: figure must be one of 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11; got '12'"),
        (["--only", ""], "sensitometer: at least one figure must be named"),
        (["--format", "bmp"], "sensitometer: format must be one of png, svg, pdf; got 'bmp'"),
    ],
)
def test_unknown_figures_and_formats_are_named(survey, options, message, run):
    status, _, errors = run("figures", survey[0], *options)
    assert status == 2
    assert errors.startswith(message)


def test_figures_that_cannot_be_written_are_one_line(survey, run, tmp_path):
    shutil.copytree(survey[0], tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "figures", ignore_errors=True)
    (tmp_path / "copy" / "figures").write_text("in the way")
    status, printed, errors = run("figures", tmp_path / "copy")
    assert (status, printed) == (2, "")
    assert errors == f"sensitometer: {tmp_path}/copy/figures must be a folder; got a file: remove it\n"


def test_output_that_cannot_be_written_is_one_line(survey):
    command = f"{sys.executable} -m sensitometer status {survey[0]} > /dev/full"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr


def test_figures_without_data_say_why(tmp_path, run):
    (tmp_path / "tiny.toml").write_text(SPEC.replace("steps = 1500", "steps = 0"))
    assert run("run", tmp_path / "tiny.toml", "--out", tmp_path / "out", "--limit", 2, "--workers", 1)[0] == 0
    status, printed, errors = run("figures", tmp_path / "out")
    assert (status, printed) == (2, "")
    assert "figure 5" in errors
    assert "fitted" in errors


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["data", "--help"], ["-h"], ["--version"]])
def test_help_is_quick_and_loads_neither_torch_nor_the_plots(arguments):
    code = (
        "import sys\nfrom sensitometer.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as exit:\n    assert not exit.code\n"
        "print(sorted({'torch', 'ray', 'pandas', 'matplotlib', 'numpy'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "ensitometer" in done.stdout


def test_no_arguments_show_the_help(run):
    status, printed, _ = run()
    assert status == 2
    assert "Commands:" in printed
