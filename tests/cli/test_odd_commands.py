"""Odd command lines: each ends with 0 or 2, and says on one line what is wrong."""

import itertools
import os

import pytest

from sensitometer.store import Store

SPEC = """
[survey]
name = "tiny"
[data]
name = "digits"
train_points = 100
[space]
width = [4]
depth = [2]
[training]
steps = 3
"""
# Paths that are no surveys, specifications or models: of each kind that a user may type, or that a stranger may send.
ODD_PATHS = [
    "nowhere",
    "a folder",
    "empty.toml",
    "text.toml",
    "binary.pt",
    "pipe",
    "/dev/null",
    "/proc/self/mem",
    "link to nowhere",
    "link to itself",
    "empty.toml/below",
    "x" * 300,
    "new\nline",
    "esc\x1b[2J",
    os.fsdecode(b"no\xffutf8"),
    "--",
    "~nosuchuser/x",
    "%s%n{0}",
    "survey.sqlite",
]
ODD_WORDS = ["", "0", "-1", "1e9", "nan", "9" * 30, "\x1b[2J", "a:b", "a:", ":", "os:getcwd", "\u202e"]
# Options by command, of which each odd word is a value.
OPTIONS = {
    "run": ["--workers", "--device", "--limit", "--executor", "--address"],
    "plan": ["--workers", "--like"],
    "figures": ["--only", "--format"],
    "measure": ["--normalise", "--crop", "--size", "--of", "--output", "--points", "--transitions", "--samples", "--weights"],
}


@pytest.fixture
def odd(tmp_path, monkeypatch):
    """A current folder with a survey and all that is odd."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SENSITOMETER_DATA", str(tmp_path / "data"))
    (tmp_path / "a folder").mkdir()
    (tmp_path / "empty.toml").touch()
    (tmp_path / "text.toml").write_text("a = [" * 9)
    (tmp_path / "binary.pt").write_bytes(bytes(range(256)))
    (tmp_path / "survey.sqlite").write_bytes(b"SQLite format 3\0" + bytes(99))
    (tmp_path / "link to nowhere").symlink_to("nowhere")
    (tmp_path / "link to itself").symlink_to("link to itself")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "tiny.toml").write_text(SPEC)
    Store.create(tmp_path / "survey", SPEC).close()
    return tmp_path


def check(run, *arguments):
    """Run a command, which must end well or say on one line what is wrong; return its status."""
    status, printed, errors = run(*arguments)
    assert status in ((0, 1, 2) if arguments[0] == "check" else (0, 2)), arguments
    assert errors.count("\n") == (status == 2), (arguments, errors)
    assert all(line.isprintable() for line in [*printed.split("\n"), *errors.split("\n")]), arguments
    return status


@pytest.mark.parametrize("command", ["status", "claims", "figures", "check", "plan", "export", "measure", "compare", "data"])
def test_odd_paths(odd, run, command):
    before = sorted(odd.rglob("*"))
    for path in ODD_PATHS:
        after = {
            "export": [path, "out.csv"],
            "measure": [path, "--data", "digits"],
            "compare": [path, "a:b", "--data", path],
            "data": ["fetch", path],
        }
        assert check(run, command, *after.get(command, [path])) == 2, path
    assert sorted(odd.rglob("*")) == before


def test_odd_places_to_write_to(odd, run):
    before = sorted(odd.rglob("*"))
    for path in ODD_PATHS:
        if path not in ("--", "nowhere", "new\nline", "esc\x1b[2J", os.fsdecode(b"no\xffutf8"), "%s%n{0}", "~nosuchuser/x"):
            assert check(run, "export", "survey", path) == 2, path
    for path in (
        "empty.toml",
        "pipe",
        "/dev/null",
        "link to nowhere",
        "link to itself",
        "empty.toml/below",
        "/proc/new",
        "x" * 300,
    ):
        assert check(run, "run", "tiny.toml", "--out", path) == 2, path
    assert sorted(odd.rglob("*")) == before


@pytest.mark.parametrize(("command", "option"), [(command, option) for command in OPTIONS for option in OPTIONS[command]])
def test_odd_words(odd, run, command, option, monkeypatch):
    # Where a word is taken after all, nothing begins.
    monkeypatch.setattr("sensitometer.survey.execution.local.LocalExecutor.start", lambda *_: pytest.fail("workers started"))
    target = {"run": ["tiny.toml", "--out", "/proc/x"], "plan": ["tiny.toml"], "figures": ["survey"]}
    rest = target.get(command, ["nowhere:nothing", "--data", "digits"])
    for word in ODD_WORDS:
        check(run, command, *rest, f"{option}={word}")


def test_options_that_do_not_go_together(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in itertools.permutations(["--json", "--nothing", "x", "--out", "-"], 3):
        check(run, "measure", *words)
        check(run, "claims", *words)
    for words in (["measure"], ["compare", "--data"], ["data", "fetch"], ["run"], ["check", "a", "b"], ["--nothing"]):
        assert check(run, *words) == 2
