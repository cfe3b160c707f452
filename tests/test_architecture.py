"""Imports point one way, from upper floors to lower ones; folders stay small, and local names say what they are."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import sensitometer

ROOT = Path(sensitometer.__file__).parent

# A room is a module, or a folder without its subfolders that have a line of their own; what it may import of this package.
# Inside a room imports are free.
ALLOWED = {
    "children": set(),
    "errors": set(),
    "files": {"errors"},
    "array_files": {"files"},
    "randomness": set(),
    "configuration": {"errors"},
    "importing": {"errors"},
    "matmul": {"children", "errors", "files"},
    "device": {"children", "errors", "matmul"},
    "store": {"array_files", "errors", "files"},
    "activations": {"configuration", "errors"},
    "networks": {"activations", "array_files", "errors", "files", "randomness"},
    "data": {"errors", "files", "importing"},
    "paths": {"errors", "randomness"},
    "models.adapting": {"errors", "networks"},
    "models": {"errors", "files", "importing", "networks"},
    "losses": {"configuration", "errors"},
    "optimizers": {"errors"},
    "evaluation": {"losses", "networks"},
    "training": {
        *("activations", "configuration", "data", "errors", "evaluation", "files", "losses", "networks", "optimizers"),
        "randomness",
    },
    "measures.compiling": {"files"},
    "measures.workspace": {"errors"},
    "measures.jacobian": {
        *("activations", "errors", "evaluation", "measures.compiling", "measures.workspace", "models.adapting", "networks"),
    },
    "measures.sampled": {"activations", "errors", "networks", "paths"},
    "measures.module_codes": {"errors", "measures.sampled", "models.adapting"},
    "measures.regions": {
        *("activations", "errors", "evaluation", "measures.compiling", "measures.jacobian", "measures.module_codes"),
        *("measures.sampled", "models.adapting", "networks", "paths"),
    },
    "measures": {
        *("activations", "errors", "evaluation", "losses", "measures.jacobian", "measures.module_codes", "measures.regions"),
        *("measures.sampled", "models.adapting", "networks", "paths", "randomness"),
    },
    "analysis": {"configuration", "errors", "store"},
    "figures.drawing": {"analysis", "data", "errors", "store"},
    "figures.gap": {"analysis", "errors", "figures.drawing", "store"},
    "figures": {"analysis", "data", "errors", "figures.drawing", "files", "measures", "networks", "paths", "store"},
    "claims": {"analysis", "data", "store"},
    "survey.scheduling.machines": {"errors", "matmul"},
    "survey.scheduling.cost": {"configuration", "survey.scheduling.machines"},
    "survey.grid": {"configuration", "survey.scheduling.cost"},
    "survey.wording": {"errors"},
    "survey.data_section": {"data", "errors", "files", "survey.scheduling.cost", "survey.wording"},
    "survey.spec": {
        *("configuration", "data", "errors", "files", "store", "survey.data_section", "survey.grid"),
        *("survey.scheduling.cost", "survey.wording"),
    },
    "survey.scheduling": {
        *("configuration", "errors", "store", "survey.scheduling.cost", "survey.scheduling.machines", "survey.spec"),
    },
    "survey.job": {
        *("activations", "configuration", "data", "device", "errors", "files", "measures", "measures.regions", "networks"),
        *("paths", "randomness", "store", "survey.scheduling", "survey.scheduling.cost", "training"),
    },
    "survey.execution": {
        *("children", "configuration", "data", "device", "errors", "files", "matmul", "store", "survey.job", "survey.scheduling"),
        "training",
    },
    "survey": {
        *("analysis", "configuration", "data", "device", "errors", "files", "store", "survey.execution", "survey.grid"),
        *("survey.scheduling", "survey.scheduling.cost", "survey.spec"),
    },
    "plot": {"analysis", "errors", "figures.drawing", "measures", "measures.regions", "paths"},
    "measuring": {
        *("analysis", "data", "errors", "files", "measures", "measures.jacobian", "measures.regions", "models.adapting"),
        *("networks", "paths", "plot", "randomness"),
    },
    "train_networks": {
        *("configuration", "data", "device", "errors", "survey.job", "survey.scheduling", "survey.scheduling.cost", "training"),
    },
}
ALLOWED["cli"] = set(ALLOWED)
# Nothing imports the command line, and everything may ask for the version.
ALLOWED["__init__"] = set(ALLOWED) - {"cli"}
ALLOWED["__main__"] = {"cli"}
VERSION = "__version__"
TABLE = "the table in test_architecture.py"
# Modules that lie flat in a folder, and in the package itself.
MOST_MODULES, MOST_AT_THE_ROOT = 12, 16
NAMES_THAT_SAY_NOTHING = {"one", "found", "own", "some", "what"}


def room(name):
    """The line of the table that a dotted name inside the package belongs to."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if ".".join(parts[:length]) in ALLOWED:
            return ".".join(parts[:length])
    return parts[0]


def home(path):
    """The line of the table that a file belongs to."""
    return room(".".join(path.relative_to(ROOT).with_suffix("").parts))


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
        yield from (room(".".join(name[1:])) if len(name) > 1 else "__init__" for name in names if name[0] == ROOT.name)


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


def test_no_folder_holds_too_many_modules():
    for folder in {path.parent for path in FILES}:
        modules = [path.name for path in folder.glob("*.py") if not path.name.startswith("__")]
        most = MOST_AT_THE_ROOT if folder == ROOT else MOST_MODULES
        assert len(modules) <= most, f"{folder.relative_to(ROOT)} has {len(modules)} modules, {most} at most: divide it"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_names_say_what_they_are(path):
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    assert not bound & NAMES_THAT_SAY_NOTHING


def test_the_walk_sees_every_kind_of_import(tmp_path, monkeypatch):
    package = tmp_path / ROOT.name
    (package / "measures").mkdir(parents=True)
    file = package / "measures" / "new.py"
    file.write_text(
        "import sensitometer.cli\nfrom .. import store, __version__\nfrom ..data.readers import read\nfrom . import jacobian\n"
        "from sensitometer.survey import spec\nimport torch\nfrom sensitometer import figures\nimport sensitometer\n"
        "def late():\n    from ..training import train\nfrom ..survey.job.arrays import measure_arrays\n"
    )
    monkeypatch.setattr(sys.modules[__name__], "ROOT", package)
    expected = {
        "cli",
        "store",
        VERSION,
        "data",
        "measures.jacobian",
        "survey.spec",
        "figures",
        "__init__",
        "training",
        "survey.job",
    }
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
