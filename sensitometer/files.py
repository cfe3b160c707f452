"""Writing files so that each has its old content or its new one, whole, whatever happens; and the user's folders."""

import contextlib
import errno
import os
import platform
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

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
        # Some libraries make files that their user alone may read. The folder was made as the user's umask says.
        unfinished.chmod(folder.stat().st_mode & 0o666)
        sync(unfinished)
        unfinished.replace(file)
        sync(file.parent)
    finally:
        remove(folder)


def read_bytes(path: str | Path, most: int, *, follow: bool = False) -> bytes:
    """
    Return the content of a file that may come from a stranger.

    Parameters
    ----------
    most
        Bytes that such a file has at most.
    follow
        Whether a link to the file will do.

    Raises
    ------
    OSError
        It cannot be read, is larger, or is no file: a pipe or a device might never end.
    """
    # A pipe is opened without waiting for its other end.
    options = ("O_NONBLOCK", "O_CLOEXEC") if follow else ("O_NONBLOCK", "O_CLOEXEC", "O_NOFOLLOW")
    flags = sum(getattr(os, option, 0) for option in options)
    descriptor = os.open(path, os.O_RDONLY | flags)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, and such a file has at most {most:,}", str(path))
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return content


def check_regular(path: str | Path, most: int) -> None:
    """Raise OSError as `read_bytes` does, for a file that a library is about to open by its name; links are refused."""
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    if status.st_size > most:
        raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes, and such a file has at most {most:,}", str(path))


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that is in it, if it is there and can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def sync(path: Path) -> None:
    """Have the system write what it holds of a file or a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_special(path: Path) -> bool:
    """Whether a path is a pipe, a socket or a device: opening it may wait for ever, and its content may never end."""
    return path.exists() and not path.is_file() and not path.is_dir()


def check_writable(folder: str | Path) -> None:
    """Raise OSError unless files can be made in a folder, or, where it is not there, it can be made; nothing is left behind."""
    place = Path(folder).absolute()
    while not os.path.lexists(place):
        place = place.parent
    # Rights do not tell: the user may be root, the disk full, or the file system one that is written to by the system alone.
    with tempfile.TemporaryDirectory(prefix=".sensitometer-", dir=place):
        pass


@contextlib.contextmanager
def locked(file: Path, seconds: float) -> Iterator[None]:
    """
    Hold a lock in the block, by a file that is made if needed; where the file system has no locks, by its being there.

    Raises
    ------
    TimeoutError
        Other processes have held it for so many `seconds`; the message says which.
    OSError
        The file cannot be made.
    """
    lock, owner = FileLock(file, timeout=seconds), file.with_suffix(".owner")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "flock not supported", UserWarning)
            lock.acquire(poll_interval=0.02)
    except Timeout:
        # It may be about to write its name, or to take it away.
        name = owner.read_text(encoding="utf-8", errors="backslashreplace") if owner.is_file() else "another process"
        raise TimeoutError(errno.ETIMEDOUT, f"{name} has held this lock for {seconds:g} s", str(file)) from None
    try:
        # Not in the lock itself, which loses its content when another process tries it.
        owner.write_text(f"process {os.getpid()} on {platform.node()}", encoding="utf-8")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


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
