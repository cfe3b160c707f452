"""The kinds of arguments that commands share: none of them is empty, as that of a variable that was not set is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from typing import TypeAlias

    _TextType: TypeAlias = click.ParamType[str]
    _PathType: TypeAlias = click.ParamType[Path]
else:
    # Generic only in newer versions.
    _TextType = _PathType = click.ParamType


class _Text(_TextType):
    """Text that is not empty: a name, or what may be one."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or refuse it."""
        if not value:
            self.fail("expected a name; got '', an empty one", param, ctx)
        return str(value)


class _Path(_PathType):
    """The path of a file, or of a folder."""

    def __init__(self, kind: str) -> None:
        self.name = self.kind = kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, or refuse it."""
        path = Path(value)
        if value == "":
            self.fail(f"expected a {self.kind}; got '', an empty name", param, ctx)
        if self.kind == "file" and path.is_dir():
            self.fail(f"expected a file; {value!r} is a folder", param, ctx)
        if self.kind == "folder" and path.exists() and not path.is_dir():
            self.fail(f"expected a folder; {value!r} is a file", param, ctx)
        return path


TEXT, FILE, FOLDER = _Text(), _Path("file"), _Path("folder")
