"""Imports point one way: each module may import those that its line in the table names, and no others."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import sensitometer

ROOT = Path(sensitometer.__file__).parent

# A module, or a package as a whole: what it may import of this package. Below the line of a package its own modules are free.
ALLOWED = {
    "errors": set(),
    "files": set(),
    "randomness": set(),
    "configuration": {"errors"},
    "matmul": {"errors", "files"},
    "device": {"errors", "matmul"},
    "store": {"errors", "files"},
    "activations": {"configuration", "errors"},
    "networks": {"activations", "errors", "files", "randomness"},
    "data": {"errors"},
    "paths": {"errors", "randomness"},
    "losses": {"configuration", "errors"},
    "optimizers": {"errors"},
    "evaluation": {"losses", "networks"},
    "training": {
        *(
            "activations",
            "configuration",
            "data",
            "errors",
            "evaluation",
            "files",
            "losses",
            "networks",
            "optimizers",
            "randomness",
        ),
    },
    "measures": {"activations", "errors", "evaluation", "losses", "networks", "paths"},
    "analysis": {"configuration", "errors", "store"},
    "figures": {"analysis", "data", "errors", "files", "measures", "networks", "paths", "store"},
    "survey": {
        *("activations", "analysis", "configuration", "data", "device", "errors", "files", "matmul", "measures", "networks"),
        *("optimizers", "paths", "randomness", "store", "training"),
    },
    "claims": {"analysis", "data", "store"},
    "models": {"errors", "networks"},
    "measuring": {"analysis", "data", "errors", "files", "measures", "networks", "paths", "randomness"},
}
ALLOWED["train_networks"] = {"configuration", "data", "device", "errors", "survey", "training"}
ALLOWED["cli"] = set(ALLOWED)
# Nothing imports the command line, and everything may ask for the version.
ALLOWED["__init__"] = set(ALLOWED) - {"cli"}
ALLOWED["__main__"] = {"cli"}
VERSION = "__version__"
TABLE = "the table in test_architecture.py"


def home(path):
    """The line of the table that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(path):
    """Yield the lines of the table that a file imports, wherever in the file, for type checking or not."""
    package = [ROOT.name, *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            base = [*start, *(node.module.split(".") if node.module else [])]
            names = [[*base, alias.name] for alias in node.names]
        else:
            continue
        yield from (name[1] if len(name) > 1 else "__init__" for name in names if name[0] == ROOT.name)


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    mine = home(path)
    assert mine in ALLOWED, f"{mine} is not in {TABLE}: say there what it may import"
    strangers = set(imported(path)) - ALLOWED[mine] - {mine, VERSION}
    assert not strangers, f"{path.relative_to(ROOT)} may not import {', '.join(sorted(strangers))}; see {TABLE}"


def test_the_table_has_no_circles():
    order = list(TopologicalSorter(ALLOWED).static_order())
    assert order.index("errors") < order.index("networks") < order.index("training") < order.index("cli")


def test_the_walk_sees_every_kind_of_import(tmp_path, monkeypatch):
    package = tmp_path / ROOT.name
    (package / "measures").mkdir(parents=True)
    file = package / "measures" / "new.py"
    file.write_text(
        "import sensitometer.cli\nfrom .. import store, __version__\nfrom ..data.readers import read\nfrom . import jacobian\n"
        "from sensitometer.survey import spec\nimport torch\nfrom sensitometer import figures\nimport sensitometer\n"
        "def late():\n    from ..training import train\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", package)
    expected = {"cli", "store", VERSION, "data", "measures", "survey", "figures", "__init__", "training"}
    assert set(imported(file)) == expected


def importing(modules, strangers):
    """Import the modules in a fresh process, and return which of the strangers came along."""
    code = f"import sys, {', '.join(modules)}; print(*sorted({set(strangers)!r} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    return answer.stdout.split()


# Reading results, listing data sets and choosing the matrix-product path wait for nothing heavy.
@pytest.mark.parametrize("module", ["store", "matmul", "data", "configuration"])
def test_light_modules_import_neither_torch_nor_ray(module):
    assert importing([f"sensitometer.{module}"], ["torch", "ray", "pandas", "matplotlib", "sklearn"]) == []


def test_surveys_and_the_command_line_import_ray_only_when_it_is_asked_for():
    assert importing(["sensitometer.survey.runner", "sensitometer.cli"], ["torch", "ray"]) == []


def test_the_heavy_modules_do_import_torch():
    assert importing(["sensitometer.networks"], ["torch", "ray"]) == ["torch"]
