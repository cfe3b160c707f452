"""Prints the lowest versions that pyproject.toml declares, as constraints for pip; torch is the one that is tested otherwise."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent


def lowest_versions() -> list[str]:
    """Return a line per requirement, as in `numpy==1.26`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    pinned = re.search(r"^torch==.*$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert pinned is not None
    lines = [requirement.replace(">=", "==") for requirement in project["dependencies"]]
    return [pinned[0] if line.startswith("torch==") else line for line in lines]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in lowest_versions()))
