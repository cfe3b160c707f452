"""Damaged results files: which rows can be read, and a new file that holds them. Imports no torch."""

import errno
import itertools
import operator
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..configuration import FIELDS, Configuration
from ..errors import InvalidInputError, StoreError
from ..files import replacing, sync
from ..store import Store
from ..store.digests import row_digest
from ..store.folder import DAMAGED, FILE, REPAIRED
from ..store.schema import (
    COLUMNS,
    DIGESTED,
    INSERT_NETWORK,
    SCHEMA_VERSION,
    STATES,
    DigestedRow,
    check_schema,
    connect,
    create,
    rows_with_digests,
)

# How the names of folders begin in which a damaged file is read.
SALVAGE = ".sensitometer-salvage-"
# Rows that are read together from a damaged file, before they are read one by one.
AT_ONCE = 1024
# Bytes of a page of SQLite, unless told otherwise.
PAGE = 4096
# Errors of SQLite that say nothing about the content of a file: no permission, busy, no memory, a full or broken disk.
_NO_DAMAGE = {
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_READONLY),
    *(sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL),
}


def find_damage(file: Path, *, quick: bool = False) -> str | None:
    """
    Return the first fault that SQLite finds in a file; None if there is none. With `quick`, indexes are not compared with rows.

    Raises
    ------
    StoreError
        The file cannot be read at all: that says nothing about its content.
    """
    try:
        with file.open("rb") as content:
            content.seek(0, os.SEEK_END)
            # SQLite would read zeros there.
            if content.tell() % PAGE:
                return "it was cut: its last page is not whole"
        with closing(connect(file)) as connection:
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            # A file of a later version is for `Store` to refuse, not to be repaired.
            if version <= SCHEMA_VERSION:
                check_schema(connection)
            fault = str(connection.execute(f"PRAGMA {'quick' if quick else 'integrity'}_check(1)").fetchone()[0])
    except StoreError as error:
        fault = str(error)
    except OSError as error:
        raise StoreError(f"cannot read {file}: {error.strerror or error}") from error
    except sqlite3.DatabaseError as error:
        if _says_nothing(error):
            raise StoreError(f"cannot read {file}: {error}") from error
        fault = str(error)
    # The first line may be a heading.
    lines = [line for line in fault.splitlines() if not line.startswith("***")]
    return None if fault == "ok" else (lines or [fault])[0]


def _says_nothing(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    # A file that was cut is read beyond its end.
    return code is not None and code != sqlite3.SQLITE_IOERR_SHORT_READ and code & 0xFF in _NO_DAMAGE


def id_of(values: tuple[Any, ...]) -> str | None:
    """Return the id of the configuration with these fields; None if there is no such configuration."""
    try:
        return Configuration(**dict(zip(FIELDS, values, strict=True))).id
    except (InvalidInputError, UnicodeEncodeError):
        return None


def salvage(folder: Path, *, repair: bool) -> tuple[int, str]:
    """
    Copy the rows that can be read of a damaged results file into a new one, if it is to be repaired.

    The damaged file stays where it is until the new one, whole and on the disk, takes its place; whenever the process is killed,
    one of them is there, or the next repair ends this one.

    Returns the number of these rows, and the name under which the damaged file is kept.
    """
    file = folder / FILE
    names = itertools.chain([DAMAGED], (f"{DAMAGED}-{number}" for number in itertools.count(2)))
    # A repair that was killed may have kept it already.
    kept = next(name for name in names if not os.path.lexists(folder / name) or (folder / name).samefile(file))
    with TemporaryDirectory(dir=folder if repair else None, prefix=SALVAGE) as temporary:
        legible = _legible(file, Path(temporary))
        rows = _readable(legible)
        if repair:
            for suffix in ("-wal", ""):
                _keep(Path(f"{file}{suffix}"), folder / f"{kept}{suffix}")
            with replacing(folder / REPAIRED) as whole:
                create(whole)
                with closing(connect(whole)) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany(INSERT_NETWORK, rows)
                    for tables in (("stack_sizes",), ("stacks", "members"), ("runs",), ("upgrades",)):
                        _copy_tables(legible, connection, tables)
                    connection.execute("COMMIT")
            end_repair(folder)
    if repair:
        with Store(folder) as store:
            store.count_missing()
    return len(rows), kept


def end_repair(folder: Path) -> bool:
    """Put the repaired results file of a folder into its place, if there is one that is not; return whether there was."""
    if not (folder / REPAIRED).exists():
        return False
    # They belong to the damaged file, and are kept beside its other name.
    for suffix in ("-wal", "-shm"):
        (folder / f"{FILE}{suffix}").unlink(missing_ok=True)
    (folder / REPAIRED).replace(folder / FILE)
    sync(folder)
    return True


def _keep(file: Path, kept: Path) -> None:
    """Give a file a second name, under which it stays when another takes its place."""
    if not file.exists() or kept.exists():
        return
    try:
        os.link(file, kept)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EXDEV, errno.EMLINK, errno.ENOSYS):
            raise
        # A file system without such names.
        with replacing(kept) as unfinished:
            shutil.copyfile(file, unfinished)
    sync(kept.parent)


def _legible(file: Path, folder: Path) -> Path:
    """Copy a damaged file to where SQLite gets as far as its tables, if it can be made to."""
    copy = folder / FILE
    for suffix in ("", "-wal"):
        if Path(f"{file}{suffix}").exists():
            shutil.copyfile(f"{file}{suffix}", f"{copy}{suffix}")
    # SQLite reads a page that was cut as if zeros followed, and its end is where the newest rows are, and parts of long ones.
    os.truncate(copy, copy.stat().st_size // PAGE * PAGE)
    try:
        with closing(connect(copy)) as connection:
            check_schema(connection)
            connection.execute("SELECT rowid FROM networks LIMIT 1").fetchone()
    except (sqlite3.DatabaseError, StoreError):
        # The first page says how long the file is and where its tables begin. It is the same in every survey, but for the length,
        # and a file that was cut is shorter than it says.
        fresh = folder / "fresh"
        create(fresh)
        content, whole = copy.read_bytes(), fresh.read_bytes()
        pages = max(1, len(content) // PAGE)
        first = bytearray(whole[:PAGE])
        first[28:32] = pages.to_bytes(4, "big")
        copy.write_bytes(bytes(first) + content[PAGE : pages * PAGE])
    return copy


def _readable(file: Path) -> list[tuple[Any, ...]]:
    """
    Return the rows of a damaged file that can be read and are sound, as `INSERT_NETWORK` takes them.

    Their values are of their columns' types, their ids are those of their settings, and their digests those of their values. Rows
    that an earlier version stored have no digest.
    """
    try:
        with closing(connect(file)) as connection:
            check_schema(connection)
            # A row has some 200 bytes and more.
            last = int(connection.execute("PRAGMA page_count").fetchone()[0]) * PAGE // 100
            rows = [row for start in range(0, last, AT_ONCE) for row in _range(connection, start, start + AT_ONCE)]
    except (sqlite3.DatabaseError, StoreError):  # not even its tables can be found
        return []
    fields, state = operator.itemgetter(*(tuple(COLUMNS).index(name) for name in FIELDS)), tuple(COLUMNS).index("state")
    digested = any(row.has is not None for row in rows)
    return list(
        {
            row.values[0]: (*row.values, row.should)
            for row in rows
            if row.should is not None and (row.has == row.should or not digested)
            if row.values[state] in STATES and id_of(fields(row.values)) == row.values[0]
        }.values()
    )


def _range(connection: sqlite3.Connection, start: int, end: int) -> list[DigestedRow]:
    """Return the rows numbered from above `start` to `end` that can be read, as `rows_with_digests` does."""
    try:
        return list(rows_with_digests(connection, "networks", f"NOT INDEXED WHERE rowid > {start} AND rowid <= {end}"))
    except sqlite3.DatabaseError:
        if end - start == 1:
            return []
    middle = (start + end) // 2
    return _range(connection, start, middle) + _range(connection, middle, end)


def _copy_tables(file: Path, connection: sqlite3.Connection, tables: tuple[str, ...]) -> None:
    """Copy whole tables, all of these or none; what the next run finds missing it makes anew."""
    connection.execute("SAVEPOINT tables")
    try:
        with closing(connect(file)) as damaged:
            check_schema(damaged)
            for table in tables:
                for names, row in _sound_rows(damaged, table):
                    marks = ", ".join("?" * len(row))
                    connection.execute(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", row)
    except (sqlite3.Error, StoreError, UnicodeEncodeError):
        connection.execute("ROLLBACK TO tables")
    connection.execute("RELEASE tables")


def _sound_rows(connection: sqlite3.Connection, table: str) -> Iterator[tuple[list[str], tuple[Any, ...]]]:
    """Yield the columns' names and the values of a table's rows; StoreError at one that is not as it was stored."""
    cursor = connection.execute(f"SELECT * FROM {table}")
    names = [column[0] for column in cursor.description]
    covered = [names.index(name) for name in DIGESTED.get(table, ())]
    for row in cursor:
        values = dict(zip(names, row, strict=True))
        if covered:
            digest = row_digest([row[place] for place in covered])
            if values.setdefault("digest", digest) != digest:
                raise StoreError(f"{table} is damaged")
        yield list(values), tuple(values.values())
