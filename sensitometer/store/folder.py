"""The files of a survey's folder, and a check that it holds no links, pipes or devices. Imports no torch."""

import os
import stat
from pathlib import Path

from ..errors import StoreError
from ..files import UNFINISHED

FILE = "survey.sqlite"
SPECIFICATION = "spec.toml"
# Folders beside the results file: arrays of networks, their weights, the states of trainings under way, and what was drawn.
ARRAYS, WEIGHTS, SAVED, FIGURES = "arrays", "weights", "saved", "figures"
# The second holds the name of the process that has the first: a lock loses its content when another process tries it.
LOCK, OWNER = "run.lock", "run.owner"
# A repaired results file that is about to take the place of the damaged one, and the name that this one is kept under.
REPAIRED, DAMAGED = f"{FILE}.repaired", f"{FILE}.damaged"
JOURNAL = f"{FILE}-journal"

_FILES = (FILE, f"{FILE}-wal", f"{FILE}-shm", SPECIFICATION, LOCK, OWNER, REPAIRED)
_FOLDERS = (ARRAYS, WEIGHTS, SAVED, FIGURES)
# These are written as folders, with the file inside.
_UNFINISHED = tuple(f"{name}{UNFINISHED}" for name in (FILE, SPECIFICATION, OWNER))


def check_folder(folder: Path) -> None:
    """
    Raise StoreError if something in a survey's folder could lead out of it, or is no file or folder where one must be.

    A folder may come from a stranger. A link in it would have a command read, overwrite or delete files elsewhere, and a pipe
    would have it wait for ever; SQLite follows a journal beside a results file, and deletes the file that the journal names.
    The folder itself may be reached through a link.
    """
    for name in (*_FILES, *_FOLDERS, *_UNFINISHED, JOURNAL):
        path = folder / name
        mode = _mode(path)
        if mode is None:
            continue
        if stat.S_ISLNK(mode):
            raise StoreError(f"{path} is a link, and a survey's folder has none: put there what it leads to, or remove it")
        if name == JOURNAL:
            raise StoreError(
                f"{path} is a journal, which no survey has, and SQLite would delete the file that it names: remove it, "
                f"or, if you trust the folder, run: sqlite3 {FILE} .schema"
            )
        if name in _FILES and not stat.S_ISREG(mode):
            raise StoreError(f"{path} must be a file; got {_kind(mode)}: remove it")
        if name in _FOLDERS and not stat.S_ISDIR(mode):
            raise StoreError(f"{path} must be a folder; got {_kind(mode)}: remove it")


def check_not_half_repaired(folder: Path) -> None:
    """Raise StoreError if a repair of the survey in a folder was interrupted, or its damaged file is all that is there."""
    if _mode(folder / REPAIRED) is not None:
        raise StoreError(f"a repair of {folder} was interrupted: 'sensitometer check {folder} --repair' ends it")
    damaged = sorted(path.name for path in folder.glob(f"{DAMAGED}*")) if _mode(folder / FILE) is None else []
    if damaged:
        raise StoreError(
            f"{folder} holds a damaged survey, {damaged[0]}: rename it to {FILE} and run "
            f"'sensitometer check {folder} --repair', or choose another folder"
        )


def _mode(path: Path) -> int | None:
    """Return the type and the permissions of what has a name, links not followed; None if nothing has it."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise StoreError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error


def _kind(mode: int) -> str:
    """Return a word for what is neither a link nor what was expected."""
    kinds = {stat.S_ISREG: "a file", stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((word for test, word in kinds.items() if test(mode)), "a device")
