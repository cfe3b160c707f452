"""Writing files so that each has its old content or its new one, whole, whatever happens; and the user's folders."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import platformdirs

from .errors import InvalidInputError

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


def user_cache() -> Path:
    """Return the user's cache folder for this package, which need not be there; FileNotFoundError if there is no home folder."""
    try:
        folder = Path(platformdirs.user_cache_dir("sensitometer"))
    except RuntimeError:  # as newer versions say it
        folder = Path("~")
    if not folder.is_absolute():
        raise FileNotFoundError(errno.ENOENT, "this user has no home folder")
    return folder


def has_home() -> bool:
    """Whether this user has a home folder, as one whom the system does not know by name may not."""
    try:
        Path.home()
    except RuntimeError:
        return False
    return True


def expanded(path: str | os.PathLike[str], name: str) -> Path:
    """Return a path with the home folder that `~` stands for; InvalidInputError, which calls it `name`, if there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        said = f"{name} must begin with the name of a home folder that is there, or with /; got {os.fspath(path)!r}"
        raise InvalidInputError(said) from error
