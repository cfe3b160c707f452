"""Writing files so that each has its old content or its new one, whole, whatever happens."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

# Appended to a file's name, for the folder in which it is written: libraries that are killed leave files of other names there.
UNFINISHED = ".sensitometer-new"


@contextlib.contextmanager
def replacing(file: str | Path) -> Iterator[Path]:
    """
    Yield the path to write to in place of `file`; at the end of the block, the content written there becomes `file`.

    The content and the new name are on the disk when the block is left. When it raises, `file` is as it was, and the new content
    is removed.

    Parameters
    ----------
    file
        The file to make or to replace; its folder is there.

    Examples
    --------
    >>> from tempfile import mkdtemp
    >>> file = Path(mkdtemp(), "numbers.txt")
    >>> with replacing(file) as unfinished:
    ...     _ = unfinished.write_text("1 2 3")
    >>> file.read_text()
    '1 2 3'
    """
    file = Path(file)
    folder = file.with_name(f"{file.name}{UNFINISHED}")
    remove(folder)
    folder.mkdir()
    try:
        unfinished = folder / file.name
        yield unfinished
        _sync(unfinished)
        unfinished.replace(file)
        _sync(file.parent)
    finally:
        remove(folder)


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def _sync(path: Path) -> None:
    """Have the system write what it holds of a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
