"""The documentation does what it says: its example runs, its commands exist, its links lead somewhere."""

import doctest
import importlib
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

import sensitometer
from sensitometer.cli import cli
from sensitometer.survey import load_spec, preset_names
from sensitometer.survey.spec import parse_spec

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted(file for file in (ROOT / "sensitometer").rglob("*.py") if ">>> " in file.read_text())
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_the_examples_run_and_the_first_of_the_readme_has_ten_lines(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len([line for line in blocks[0].splitlines() if line.strip()]) == 10
    examples = [str(ROOT / "docs" / "examples" / name) for name in ("regulariser.py", "monitor.py")]
    # In one process, whose libraries take seconds to import; five steps of each training of the page on own networks.
    code = (
        "".join(blocks) + f"print('---')\nimport runpy, sys\nsys.argv = ['', '5']\nfor file in {examples}: runpy.run_path(file)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    printed, own_networks = done.stdout.split("---\n")
    assert len(re.findall(r"^weight ", own_networks, re.MULTILINE)) == 3
    assert len(re.findall(r"of the loop's time$", own_networks, re.MULTILINE)) == 2
    assert (tmp_path / "monitor.png").stat().st_size > 10_000
    true, random, norms, count, segments, cnn, faces, points = printed.strip().split("\n")
    assert points == "200"
    assert re.fullmatch(r"tensor\(\d\d+\)", count)
    assert re.fullmatch(r"\d\d+ tensor\(.*\)", segments)
    assert re.fullmatch(r"TransitionCount\([\d,]+ transitions of 2 activations\)", cnn)
    assert int(faces) > 10
    assert true.startswith("true ")
    assert random.startswith("random ")
    gaps, jacobian_norms = zip(*((float(number) for number in line.split()[1:]) for line in (true, random)), strict=True)
    assert gaps[0] < 0.1 < 0.5 < gaps[1]
    assert jacobian_norms[0] < jacobian_norms[1]
    assert norms.startswith("tensor([")


def test_the_specification_in_the_readme_is_one():
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(list(parse_spec(text, "README").configurations())) == 24


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_in_docstrings_run(file):
    module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
    done = doctest.testmod(module)
    assert done.attempted > 0
    assert done.failed == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_named_exist(page):
    for command, second in re.findall(r"^ {4}(?:\$ )?sensitometer (\w+)(?: (\w+))?", page.read_text(), re.MULTILINE):
        words = [command, second] if command == "data" else [command]
        result = CliRunner().invoke(cli, [*words, "--help"])
        assert result.exit_code == 0, words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_targets_of_make_that_are_named_exist(page):
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?:^ {4}|`)make (\w+)", page.read_text(), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_number_is_left_to_be_filled_in(page):
    assert not re.search(r"@[A-Z]+@|\bT[O]DO\b|\bTBD\b", page.read_text())


def test_every_preset_is_in_the_documentation():
    text = "".join(page.read_text() for page in PAGES)
    for name in preset_names():
        assert f"`{name}`" in text
        assert load_spec(name)


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == version("sensitometer") == sensitometer.__version__


def test_the_exports_are_there_and_few():
    assert len(sensitometer.__all__) < 20
    for name in sensitometer.__all__:
        assert getattr(sensitometer, name).__doc__, name
        assert name in dir(sensitometer)


def test_a_name_that_is_not_exported_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'sensitometer' has no attribute 'nonsense'"):
        sensitometer.nonsense  # noqa: B018


def test_torch_is_pinned_exactly():
    pins = (ROOT / "constraints.txt").read_text().splitlines()
    assert "torch==2.13.0" in pins
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins if not pin.startswith("#"))
