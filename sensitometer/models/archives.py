"""Reads zip archives of strangers: a member that unpacks to more than was expected is not unpacked, whatever the archive says."""

import zipfile
from pathlib import Path
from typing import IO

from ..errors import one_line

# Bytes that a member may have that says how others are to be read, in a file that is not packed, and unpacked in one that is.
MOST_STORED, MOST_UNPACKED = 2**28, 2**25


class BombError(ValueError):
    """A member unpacks to more than it may, or the members lie over each other."""


def open_archive(file: Path | IO[bytes]) -> zipfile.ZipFile:
    """Open an archive; zipfile.BadZipFile if it cannot be, whatever is wrong with its directory."""
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        raise
    except Exception as error:
        # Names that are no UTF-8, places before the beginning, versions of the future, ...
        raise zipfile.BadZipFile(one_line(error)) from error


def check_archive(archive: zipfile.ZipFile, size: int) -> None:
    """Raise BombError if the members of an archive take more than its `size` in bytes: they would share bytes."""
    if sum(member.compress_size for member in archive.infolist()) > size:
        raise BombError("its members lie over each other")


def check_plain(archive: zipfile.ZipFile, size: int) -> None:
    """Raise BombError if a member of an archive that `torch.save` wrote is packed: it packs none, and torch would misread it."""
    check_archive(archive, size)
    for member in archive.infolist():
        if is_packed(member):
            raise BombError(f"its {member.filename} is packed, which torch.save does not do")


def is_packed(member: zipfile.ZipInfo) -> bool:
    """Whether a member may unpack to more than it takes in the archive."""
    return member.compress_type != zipfile.ZIP_STORED or member.file_size > member.compress_size


def read_member(archive: zipfile.ZipFile, name: str, most: int | None = None) -> bytes:
    """
    Return the content of a member.

    `most` is the number of bytes that a packed one may have; one that is not packed is as large as the file says. None: as many
    as a description has. Raises BombError if it has more.
    """
    member = archive.getinfo(name)
    limit = most if most is not None else MOST_UNPACKED
    if is_packed(member):
        if member.file_size > limit:
            raise BombError(f"its {name} unpacks to {member.file_size:,} bytes; expected at most {limit:,}")
    elif most is None and member.file_size > MOST_STORED:
        raise BombError(f"its {name} has {member.file_size:,} bytes; expected at most {MOST_STORED:,}")
    return archive.read(member)
