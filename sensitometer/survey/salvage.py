"""Damaged results files: which rows can be read, and a new file that holds them. Imports no torch."""

import itertools
import operator
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..configuration import FIELDS, Configuration
from ..errors import InvalidInputError
from ..files import replacing
from ..store import Store
from ..store.schema import COLUMNS, FILE, INSERT_NETWORK, connect, create

# Rows that are read together from a damaged file, before they are read one by one.
AT_ONCE = 1024
DAMAGED = f"{FILE}.damaged"
# The endings of a results file and of what SQLite keeps beside it.
SUFFIXES = ("", "-wal", "-shm")
# Bytes of a page of SQLite, unless told otherwise.
PAGE = 4096


def find_damage(file: Path) -> str | None:
    """Return the first fault that SQLite finds in a file; None if there is none."""
    try:
        with closing(connect(file)) as connection:
            fault = str(connection.execute("PRAGMA integrity_check(1)").fetchone()[0])
            if not connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'networks'").fetchone()[0]:
                fault = "there is no table of networks in it"
    except sqlite3.DatabaseError as error:
        fault = str(error)
    # The first line may be a heading.
    lines = [line for line in fault.splitlines() if not line.startswith("***")]
    return None if fault == "ok" else (lines or [fault])[0]


def id_of(values: tuple[Any, ...]) -> str | None:
    """Return the id of the configuration with these fields; None if there is no such configuration."""
    try:
        return Configuration(**dict(zip(FIELDS, values, strict=True))).id
    except InvalidInputError:
        return None


def salvage(folder: Path, *, repair: bool) -> tuple[int, str]:
    """
    Copy the rows that can be read of a damaged results file into a new one, if it is to be repaired.

    Returns the number of these rows, and the name under which the damaged file is kept.
    """
    file = folder / FILE
    names = itertools.chain([DAMAGED], (f"{DAMAGED}-{number}" for number in itertools.count(2)))
    kept = next(name for name in names if not (folder / name).exists())
    with TemporaryDirectory(dir=folder if repair else None, prefix=".salvage-") as temporary:
        legible = _legible(file, Path(temporary))
        rows = _readable(legible)
        if repair:
            with replacing(file) as whole:
                create(whole)
                with closing(connect(whole)) as connection:
                    connection.execute("BEGIN IMMEDIATE")
                    connection.executemany(INSERT_NETWORK, rows)
                    for tables in (("stack_sizes",), ("stacks", "members"), ("runs",)):
                        _copy_tables(legible, connection, tables)
                    connection.execute("COMMIT")
                for suffix in SUFFIXES:
                    old = Path(f"{file}{suffix}")
                    if old.exists():
                        old.replace(folder / f"{kept}{suffix}")
    if repair:
        with Store(folder) as store:
            store.count_missing()
    return len(rows), kept


def _legible(file: Path, folder: Path) -> Path:
    """Copy a damaged file to where SQLite gets as far as its tables, if it can be made to."""
    copy = folder / FILE
    for suffix in SUFFIXES:
        if Path(f"{file}{suffix}").exists():
            shutil.copyfile(f"{file}{suffix}", f"{copy}{suffix}")
    try:
        with closing(connect(copy)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            connection.execute("SELECT rowid FROM networks LIMIT 1").fetchone()
    except sqlite3.DatabaseError:
        # The first page says how long the file is and where its tables begin. It is the same in every survey, but for the length,
        # and a file that was cut is shorter than it says.
        fresh = folder / "fresh"
        create(fresh)
        content, whole = copy.read_bytes(), fresh.read_bytes()
        pages = max(len(whole) // PAGE, -(-len(content) // PAGE))
        first = bytearray(whole[:PAGE])
        first[28:32] = pages.to_bytes(4, "big")
        copy.write_bytes(bytes(first) + content[PAGE:].ljust((pages - 1) * PAGE, b"\0"))
    return copy


def _readable(file: Path) -> list[tuple[Any, ...]]:
    """Return the rows of a damaged file that can be read and are sound: their ids are those of their settings."""
    try:
        with closing(connect(file)) as connection:
            # A row has some 200 bytes and more.
            last = int(connection.execute("PRAGMA page_count").fetchone()[0]) * PAGE // 100
            rows = [row for start in range(0, last, AT_ONCE) for row in _range(connection, start, start + AT_ONCE)]
    except sqlite3.DatabaseError:  # not even its tables can be found
        return []
    fields = operator.itemgetter(*(tuple(COLUMNS).index(name) for name in FIELDS))
    return list({row[0]: row for row in rows if row[0] is not None and id_of(fields(row)) == row[0]}.values())


def _range(connection: sqlite3.Connection, start: int, end: int) -> list[tuple[Any, ...]]:
    """Return the rows numbered from above `start` to `end` that can be read."""
    select = f"SELECT {', '.join(COLUMNS)} FROM networks NOT INDEXED WHERE rowid > ? AND rowid <= ?"
    try:
        return connection.execute(select, (start, end)).fetchall()
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        if end - start == 1:
            return []
    middle = (start + end) // 2
    return _range(connection, start, middle) + _range(connection, middle, end)


def _copy_tables(file: Path, connection: sqlite3.Connection, tables: tuple[str, ...]) -> None:
    """Copy whole tables, all of these or none."""
    try:
        with closing(connect(file)) as damaged:
            contents = {table: damaged.execute(f"SELECT * FROM {table}").fetchall() for table in tables}
        for table, rows in contents.items():
            for row in rows:
                connection.execute(f"INSERT INTO {table} VALUES ({', '.join('?' * len(row))})", row)
    except sqlite3.DatabaseError:  # what the next run finds missing it makes anew
        for table in tables:
            connection.execute(f"DELETE FROM {table}")
