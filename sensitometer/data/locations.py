"""Where data sets are looked for: the root folder, the files below it, and what is there."""

import contextlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError, InvalidInputError
from ..files import expanded, user_cache
from .sources import SOURCES, DataFile, Source

ROOT_VARIABLE = "SENSITOMETER_DATA"


@dataclass(frozen=True, slots=True)
class DatasetStatus:
    """One data set, and whether it is on this machine."""

    source: Source  # its name, classes, shapes and numbers of points
    folder: Path | None  # where its files are, or should be; None for a data set that is part of a library
    missing: tuple[str, ...]  # the files that are not below `folder`; the others may be damaged


def list_datasets(*, root: str | os.PathLike[str] | None = None) -> tuple[DatasetStatus, ...]:
    """
    Return for each data set its description and whether it is on this machine; opens no file.

    `root` is the folder that holds the data sets' folders; by default `$SENSITOMETER_DATA`, else the user's cache folder.
    """
    statuses = []
    for source in SOURCES.values():
        folder = data_root(root) / source.name if source.downloads else None
        missing = missing_files(source, folder) if folder else ()
        statuses.append(DatasetStatus(source, _home(source, folder) if folder else None, missing))
    return tuple(statuses)


def data_root(root: str | os.PathLike[str] | None = None) -> Path:
    """
    Return the absolute path of `root`; without one, `$SENSITOMETER_DATA`; without that, a folder in the user's cache.

    InvalidInputError if it is in a home folder that is not there.
    """
    if root is not None:
        return expanded(root, "root").absolute()
    if set_by_user := os.environ.get(ROOT_VARIABLE):
        return expanded(set_by_user, f"${ROOT_VARIABLE}").absolute()
    try:
        return user_cache() / "data"
    except FileNotFoundError as error:
        raise InvalidInputError(f"no folder of data sets: {error.strerror}; set ${ROOT_VARIABLE} to one") from error


def find_file(file: DataFile, folder: Path) -> Path | None:
    """
    Return where `file` is below its data set's `folder`, as it is published or unpacked, or where torchvision or Kaggle puts it.

    None when it is not there.
    """
    places = (file.name, file.name.removesuffix(".gz"), *file.elsewhere)
    # The folder itself need not be there, and may be a link.
    return next((path for place in places if (path := Path(os.path.normpath(folder / place))).is_file()), None)


def _home(source: Source, folder: Path) -> Path:
    """Return `folder`, or the one that all files of `source` are in, if that is another one."""
    paths = [find_file(file, folder) for file in (*source.train.files, *source.test.files)]
    if any(path is None or path.is_relative_to(folder) for path in paths):
        return folder
    return Path(os.path.commonpath([path.parent for path in paths if path is not None]))


def missing_files(source: Source, folder: Path) -> tuple[str, ...]:
    """Return the names of the files of `source` that are not below `folder`."""
    return tuple(file.name for file in (*source.train.files, *source.test.files) if find_file(file, folder) is None)


def require_files(source: Source, folder: Path | None = None) -> None:
    """
    Raise DataError, naming the remedies, unless all files of `source` are below `folder`; opens none.

    None: its folder below `data_root()`, which is looked for only if it has files.
    """
    if not source.downloads:
        return
    folder = folder or data_root() / source.name
    missing = missing_files(source, folder)
    if missing:
        raise DataError(
            f"{source.name} lacks {', '.join(missing)} in {folder}; run '{fetch_command(source, folder)}', "
            f"or set ${ROOT_VARIABLE} to a folder whose {source.name}/ holds the data set"
        )


def fetch_command(source: Source, folder: Path) -> str:
    """Return the command that puts `source` into `folder`, whichever root that is below."""
    command = f"sensitometer data fetch {source.name}"
    usual = None
    with contextlib.suppress(InvalidInputError):  # there is none
        usual = data_root()
    return command if folder.parent == usual else f"{ROOT_VARIABLE}={shlex.quote(str(folder.parent))} {command}"
