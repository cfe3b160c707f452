"""Commands in odd surroundings work, or say on one line what is wrong; nothing that a file says does anything to a terminal."""

import ast
import os
import re
import shlex
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import pytest

import sensitometer.cli
from sensitometer.configuration import Configuration
from sensitometer.errors import printable
from sensitometer.store import Store, open_survey

SPEC = """
[survey]
name = "tiny µ"
keep_weights = true
[data]
name = "digits"
train_points = 100
[space]
width = [4]
depth = [2]
learning_rate = [0.1]
batch_size = [50]
[training]
steps = 3
"""


@pytest.fixture
def survey(tmp_path):
    """A survey of which nothing is stored."""
    Store.create(tmp_path / "survey", SPEC).close()
    return tmp_path / "survey"


def shell(arguments, redirections="", folder=None, **environment):
    """Run a command with its streams redirected, as a shell does."""
    words = " ".join(shlex.quote(str(word)) for word in (sys.executable, "-P", "-m", "sensitometer", *arguments))
    environment = {**os.environ, "PYTHONPATH": str(Path(sensitometer.__file__).parent.parent), **environment}
    environment = {name: value for name, value in environment.items() if value is not None}
    done = subprocess.run(
        f"{words} {redirections}", shell=True, cwd=folder, env=environment, capture_output=True, timeout=60, check=False
    )
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("redirections", ["2>&-", "2>/dev/full", ">&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_or_full(survey, redirections):
    status, output, _ = shell(["status", survey], redirections)
    assert status == 0
    assert (output == b"") == (">&-" in redirections.split())
    assert shell(["status", "nowhere"], redirections)[0] == 2


def test_a_full_disk_under_the_output_and_a_reader_that_ends(survey):
    assert shell(["status", survey], ">/dev/full") == (2, b"", b"sensitometer: No space left on device\n")
    assert shell(["status", survey], "| true") == (0, b"", b"")


@pytest.mark.parametrize(
    ("encoding", "name"), [("ascii", rb"tiny (\xc2\xb5|\\xb5)"), ("latin-1", rb"tiny \xb5"), ("utf-8", rb"tiny \xc2\xb5")]
)
def test_other_encodings(survey, encoding, name):
    status, output, errors = shell(["status", survey], PYTHONIOENCODING=encoding)
    assert (status, errors) == (0, b"")
    assert re.match(name, output)


def test_a_current_folder_that_was_removed(survey, tmp_path):
    (tmp_path / "gone").mkdir()
    arguments = f"-c 'rmdir ../gone && exec {sys.executable} -P -m sensitometer status {survey}'"
    environment = {**os.environ, "PYTHONPATH": str(Path(sensitometer.__file__).parent.parent)}
    command = ["sh", *shlex.split(arguments)]
    done = subprocess.run(command, cwd=tmp_path / "gone", env=environment, capture_output=True, text=True, check=False)
    expected = "sensitometer: there is no current folder, it has been removed: go to another one (No such file or directory)\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", expected)


@pytest.fixture
def homeless(tmp_path, monkeypatch):
    """Variables of a user whom the system does not know, in an empty current folder."""
    (tmp_path / "site").mkdir()
    unknown = "import pwd\ndef unknown(*_): raise KeyError('no such user')\npwd.getpwuid = pwd.getpwnam = unknown"
    (tmp_path / "site" / "sitecustomize.py").write_text(unknown)
    (tmp_path / "here").mkdir()
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(sensitometer.__file__).parent.parent)])
    return {"PYTHONPATH": path, "HOME": None, "XDG_CACHE_HOME": None, "SENSITOMETER_DATA": None, "folder": tmp_path / "here"}


def test_without_a_home_folder(survey, homeless):
    assert shell(["status", survey], **homeless)[0] == 0
    status, _, errors = shell(["data", "fetch", "mnist"], **homeless)
    expected = b"sensitometer: no folder of data sets: this user has no home folder; set $SENSITOMETER_DATA to one\n"
    assert (status, errors) == (2, expected)
    code = (
        "import sys; from sensitometer import matmul, load_dataset; print(matmul._library(), len(load_dataset('digits').test.y))"
    )
    environment = {name: value for name, value in {**os.environ, **homeless}.items() if isinstance(value, str)}
    command = [sys.executable, "-P", "-c", code]
    done = subprocess.run(command, cwd=homeless["folder"], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "None 500\n"
    # None of the name ~, above all.
    assert list(homeless["folder"].iterdir()) == []


def test_a_home_folder_of_nobody(run, monkeypatch, tmp_path):
    monkeypatch.setenv("SENSITOMETER_DATA", "~nosuchuser/data")
    expected = "$SENSITOMETER_DATA must begin with the name of a home folder that is there, or with /; got '~nosuchuser/data'"
    assert run("data", "fetch", "mnist") == (2, "", f"sensitometer: {expected}\n")
    (tmp_path / "own.toml").write_text(SPEC.replace('name = "digits"', 'file = "~nosuchuser/x.npz"'))
    status, _, errors = run("plan", tmp_path / "own.toml")
    assert status == 2
    assert "data.file: it must begin with the name of a home folder" in errors


@pytest.mark.parametrize("backend", ["module://nonsense.backend", "nonsense"])
def test_a_drawing_that_is_set_for_a_notebook(survey, backend):
    status, _, errors = shell(["figures", survey], MPLBACKEND=backend)
    assert status == 2
    assert errors.startswith(b"sensitometer: ")
    assert errors.count(b"\n") == 1
    assert b"backend" not in errors


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["run", "", "--out", "x"], "'SPEC'"),
        (["run", "quick", "--out", ""], "'--out'"),
        (["plan", ""], "'SPEC'"),
        (["status", ""], "'DIR'"),
        (["check", "", "--repair"], "'DIR'"),
        (["export", "x", ""], "'FILE'"),
        (["figures", ""], "'DIR'"),
        (["claims", ""], "'DIR'"),
        (["measure", "", "--data", "digits"], "'MODEL'"),
        (["measure", "a:b", "--data", ""], "'--data'"),
        (["measure", "a:b", "--data", "digits", "--out", ""], "'--out'"),
        (["measure", "a:b", "--data", "digits", "--weights", ""], "'--weights'"),
        (["compare", "a:b", "", "--data", "digits"], "'MODEL MODEL...'"),
        (["data", "fetch", ""], "'NAME'"),
    ],
)
def test_empty_names_are_refused(run, arguments, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, errors = run(*arguments)
    assert (status, printed) == (2, "")
    assert re.fullmatch(
        rf"sensitometer [a-z ]+: Invalid value for {re.escape(name)}: expected a \w+; got '', an empty \w+\n", errors
    )
    assert list(tmp_path.iterdir()) == []


def test_a_folder_whose_name_is_no_utf8(run, tmp_path):
    (tmp_path / "tiny.toml").write_text(SPEC)
    folder = tmp_path / os.fsdecode(b"na\xffme")
    status, printed, _ = run("run", tmp_path / "tiny.toml", "--out", folder, "--workers", 1)
    assert status == 0
    assert f"1 networks in {tmp_path}/na\\udcffme" in printed
    assert run("check", folder)[:2] == (0, f"{tmp_path}/na\\udcffme is sound\n")
    with open_survey(folder) as store:
        assert (folder / "weights" / f"{store.frame().id[0]}.safetensors").is_file()
    assert run("status", f"{folder}x")[0] == 2


def test_an_editor_of_windows_puts_a_mark_before_a_specification(run, tmp_path):
    (tmp_path / "marked.toml").write_text(SPEC, encoding="utf-8-sig")
    assert run("plan", tmp_path / "marked.toml")[0] == 0


# --- text of strangers

HOSTILE = "a\x1b[2J\x07b\r\n\u202ec\u2066\u2028d\udcff\x9b0m"


def test_text_of_strangers_is_one_line_that_only_shows():
    assert printable(HOSTILE) == r"a\x1b[2J\x07b\r\n\u202ec\u2066\u2028d\udcff\x9b0m"
    for code in [*range(0x3000), 0xD800, 0xDFFF, 0xE000, 0xFEFF, 0xFFF9, 0xFFFE, 0x1F600, 0xE0001, 0x10FFFF]:
        shown = printable(chr(code))
        assert shown.isprintable()
        assert (shown == chr(code)) == (unicodedata.category(chr(code))[0] not in "CZ" or code == 0x20)
    assert printable("naïve 模型 \\x1b") == "naïve 模型 \\x1b"


def test_what_a_survey_says_does_nothing_to_a_terminal(run, tmp_path):
    spec = SPEC.replace("tiny µ", "ti\\u202Eny\\u2066")
    configuration = Configuration("digits", 4, 2)
    row = {"id": configuration.id, **configuration.as_dict(), "state": "failed", "error": HOSTILE.replace("\udcff", "")}
    with Store.create(tmp_path / "survey", spec) as store:
        store.record(row)
    status, printed, errors = run("status", tmp_path / "survey")
    assert (status, errors) == (0, "")
    assert "\\u202eny\\u2066: 1 of 1 networks stored" in printed
    assert r"failed: 1, a\x1b[2J\x07b\r\n\u202ec" in printed
    assert all(line.isprintable() for line in printed.split("\n"))


@pytest.mark.parametrize("command", ["status", "check", "figures", "claims", "plan"])
def test_a_path_in_a_message_does_nothing_to_a_terminal(run, command):
    status, _, errors = run(command, f"nowhere{HOSTILE}")
    assert status == 2
    assert errors.count("\n") == 1
    assert errors.rstrip("\n").isprintable()


def test_a_warning_is_one_line(run, monkeypatch):
    def warn(_):
        warnings.simplefilter("always")
        warnings.warn(f"beware of {HOSTILE}", stacklevel=1)
        raise KeyboardInterrupt

    monkeypatch.setattr("sensitometer.survey.status.open_survey", warn)
    status, _, errors = run("status", "x")
    first, *_, last = errors.rstrip("\n").split("\n")
    assert status == 130
    assert first.startswith(r"sensitometer: warning: beware of a\x1b[2J")
    assert last.startswith("sensitometer: interrupted")


def test_one_function_prints():
    for path in Path(sensitometer.cli.__file__).parent.glob("*.py"):
        calls = [node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        names = [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]
        echoes = sum(name in ("echo", "secho", "print") for name in names)
        assert echoes == (path.name == "printing.py"), path


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (MemoryError(), "the memory is too small: MemoryError"),
        (PermissionError(13, "Permission denied", "a\nb"), r"a\\nb: Permission denied"),
        (OSError("something"), "something"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), "a text or a name cannot be read or written: 'utf-8' codec .*"),
        (SystemExit(0), r"code of a model or of data ended the program: SystemExit\(0\)"),
        (SystemExit("bye"), r"code of a model or of data ended the program: SystemExit\('bye'\)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_are_caught_by_kind(run, monkeypatch, error, line):
    def fail(_):
        raise error

    monkeypatch.setattr("sensitometer.survey.status.open_survey", fail)
    status, printed, errors = run("status", "x")
    assert (status, printed) == (2, "")
    assert re.fullmatch(f"sensitometer: {line}\n", errors)
