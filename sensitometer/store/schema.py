"""The tables of a survey's results file and their records, what makes them, and what updates an older file. Imports no torch."""

import os
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from ..errors import StoreError
from ..files import remove, replacing
from .digests import Kinds, row_digest
from .folder import FILE as FILE

SCHEMA_VERSION = 4

CONFIGURATION_COLUMNS = {
    "dataset": "TEXT NOT NULL",
    "width": "INTEGER NOT NULL",
    "depth": "INTEGER NOT NULL",
    "activation": "TEXT NOT NULL",
    "init_scale": "REAL NOT NULL",
    "optimizer": "TEXT NOT NULL",
    "learning_rate": "REAL",
    "batch_size": "INTEGER",
    "labels": "TEXT NOT NULL",
    "augmentation": "TEXT NOT NULL",
    "loss": "TEXT NOT NULL",
    "steps": "INTEGER NOT NULL",
    "seed": "INTEGER NOT NULL",
}
RESULT_COLUMNS = {
    "state": "TEXT NOT NULL CHECK (state IN ('fitted', 'unfitted', 'diverged', 'failed'))",
    "train_accuracy": "REAL",
    "test_accuracy": "REAL",
    "gap": "REAL",
    "train_loss": "REAL",
    "test_loss": "REAL",
    "jacobian_norm": "REAL",
    "logit_jacobian_norm": "REAL",
    "transitions": "REAL",
    "weights": "INTEGER",
    "steps_done": "INTEGER",
    "seconds": "REAL",
    "error": "TEXT",
}
PROVENANCE_COLUMNS = {
    "version": "TEXT",
    "torch": "TEXT",
    "device": "TEXT",
    "matmul_path": "TEXT",
    "host": "TEXT",
    "stored_at": "REAL NOT NULL",
}
COLUMNS = {"id": "TEXT PRIMARY KEY", **CONFIGURATION_COLUMNS, **RESULT_COLUMNS, **PROVENANCE_COLUMNS}
# Digest of the other columns of a row, in their order: see `row_digest`.
DIGEST = "digest BLOB"
INSERT_NETWORK = f"INSERT INTO networks ({', '.join(COLUMNS)}, digest) VALUES ({', '.join('?' * (len(COLUMNS) + 1))})"
STACK_COLUMNS = {
    "number": "INTEGER PRIMARY KEY",
    "kind": "TEXT NOT NULL",
    "networks": "INTEGER NOT NULL",
    "missing": "INTEGER NOT NULL",
    "seconds": "REAL NOT NULL",
    "accident": "TEXT",
}
RUN_COLUMNS = {
    "begun_at": "REAL NOT NULL",
    "writer": "TEXT",
    "workers": "INTEGER",
    "networks": "INTEGER",
    "predicted": "REAL",
    "measured": "REAL",
    "last_at": "REAL",
}


def _columns(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in columns.items())


# The tables of version 3, as SQLite writes them down.
_VERSION_3 = {"networks": _columns(COLUMNS), "stacks": _columns(STACK_COLUMNS), "runs": _columns(RUN_COLUMNS)}
# The columns that the digests of a table cover.
DIGESTED = {
    "networks": COLUMNS,
    "stacks": {name: kind for name, kind in STACK_COLUMNS.items() if name != "missing"},
    "runs": RUN_COLUMNS,
}
_KINDS = {table: Kinds(columns.values()) for table, columns in DIGESTED.items()}
NETWORK_KINDS = _KINDS["networks"]
# The tables of this version. A file of an earlier one lacks some of them, and some columns.
TABLES = {
    "networks": f"{_VERSION_3['networks']}, {DIGEST}",
    # How many networks of a kind earlier versions trained together, by measured times, and the predicted seconds of each.
    "stack_sizes": "kind TEXT PRIMARY KEY, networks INTEGER NOT NULL, seconds REAL NOT NULL",
    # Networks that are trained together: see `Stack`.
    "stacks": f"{_VERSION_3['stacks']}, {DIGEST}",
    # The networks of each stack, in the order in which they are trained side by side.
    "members": "stack INTEGER NOT NULL, seed INTEGER NOT NULL, id TEXT NOT NULL, place INTEGER NOT NULL, "
    "PRIMARY KEY (stack, seed, id)",
    # The results of each run: networks, the predicted and the measured seconds of their stacks, and when it last did.
    "runs": f"{_VERSION_3['runs']}, {DIGEST}",
    # When an earlier version's file was brought up to date, and the rows of networks whose digests were made only then.
    "upgrades": "version INTEGER NOT NULL, at REAL NOT NULL, networks INTEGER NOT NULL",
}
# The key of these is all there is to look up.
_CLUSTERED = {"members"}
STATES = ("fitted", "unfitted", "diverged", "failed")
# Pages of 4 kB that wait beside the file, in its `-wal`.
CHECKPOINT_PAGES = 8000
# Rows that are read together.
AT_ONCE = 4096
# Bytes of the longest row or text.
LONGEST = 10_000_000
# Seconds to wait for another program that writes to the file.
TIMEOUT = 30


class Member(NamedTuple):
    """One network of a stack: its id, and the seed and the place in the survey's grid that its configuration has."""

    id: str
    seed: int
    place: int


class Stack(NamedTuple):
    """Networks that are trained together."""

    number: int  # in the order of the survey: that of the first network of each
    kind: str  # `Configuration.kind` of all of them
    networks: int
    missing: int  # networks that are not stored
    seconds: float  # predicted time of one worker
    accident: str | None  # the reason why the worker that trained them before, in a larger stack, ended


class Run(NamedTuple):
    """The results of a run; times are in Unix seconds, seconds those of a worker."""

    begun_at: float
    writer: str  # which process of which machine
    workers: int  # stacks trained at a time
    networks: int  # stored
    predicted: float  # seconds that their stacks were predicted to take
    measured: float  # seconds that they took
    last_at: float  # when something was stored last


class Upgrade(NamedTuple):
    """When a file of an earlier version was brought up to date."""

    version: int  # from this one
    at: float | None  # in Unix seconds; None: it has not been yet
    networks: int  # whose digests were made only then


def create(file: Path) -> None:
    """Make an empty results file."""
    if not file.exists():
        # SQLite would take files beside a file that was removed for this one's.
        for suffix in ("-wal", "-shm"):
            remove(file.with_name(f"{file.name}{suffix}"))
    with replacing(file) as unfinished, closing(sqlite3.connect(unfinished)) as connection:
        # Readers go on while a run writes. This stays with the file.
        connection.execute("PRAGMA journal_mode = WAL")
        for name in TABLES:
            connection.execute(_table(name))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.commit()


def check_schema(connection: sqlite3.Connection) -> int:
    """
    Return the version of a results file, once it is clear that reading its tables reads tables.

    A file may come from a stranger: a view, a trigger or a generated column that has the name of a table is a program.

    Raises
    ------
    StoreError
        The version is another one, or the file has something that no version made.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version == 0 and not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise StoreError("is damaged, or no survey's: it has no tables")
    if not 1 <= version <= SCHEMA_VERSION:
        raise StoreError(f"has schema version {version}; this version of Sensitometer reads {SCHEMA_VERSION}")
    made = {name: {_declaration(name)} for name in TABLES}
    for name, columns in _VERSION_3.items():
        made[name].add(_declaration(name, columns))
    made["runs"].add(_declaration("runs", "begun_at REAL NOT NULL"))
    there = set()
    for kind, name, text in connection.execute("SELECT type, name, substr(sql, 1, 10000) FROM sqlite_schema LIMIT 100"):
        if kind == "index" and str(name).startswith("sqlite_autoindex_") and text is None:
            continue
        if kind != "table" or name not in made or text not in made[name]:
            raise StoreError(
                f"is damaged, or no survey's: no version of Sensitometer made its {ascii(kind)[1:-1]:.9} {name!a:.60}"
            )
        there.add(name)
    if "networks" not in there:
        raise StoreError("is damaged, or no survey's: it has no table networks")
    return version


def supplement(connection: sqlite3.Connection) -> None:
    """Give this connection alone the tables that a file of an earlier version lacks: reading changes no file."""
    there = {name for (name,) in connection.execute("SELECT name FROM main.sqlite_schema")}
    old = connection.execute("PRAGMA user_version").fetchone()[0] < 3
    for name in TABLES:
        if name not in there or (name == "runs" and old):
            connection.execute(_table(name, temporary=True))


def upgrade(connection: sqlite3.Connection) -> None:
    """
    Bring a file of an earlier version up to date, in one transaction, before something is written to it.

    The rows that are there get digests: from now on a change of theirs is seen, but nothing can tell whether they had changed.
    """
    for (name,) in connection.execute("SELECT name FROM temp.sqlite_schema WHERE type = 'table'").fetchall():
        connection.execute(f"DROP TABLE temp.{name}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version < SCHEMA_VERSION:
            _add_what_is_new(connection, version)
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _add_what_is_new(connection: sqlite3.Connection, version: int) -> None:
    if version < 3:
        # The runs before have nothing but when they began.
        connection.execute("DROP TABLE IF EXISTS runs")
    there = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    for name in TABLES.keys() - there:
        connection.execute(_table(name))
    for name in DIGESTED:
        if name not in there:
            continue
        connection.execute(f"ALTER TABLE {name} ADD COLUMN {DIGEST}")
        digests = [(row.should, row.rowid) for row in rows_with_digests(connection, name)]
        connection.executemany(f"UPDATE {name} SET digest = ? WHERE rowid = ?", digests)
        if name == "networks":
            connection.execute("INSERT INTO upgrades VALUES (?, ?, ?)", (version, time.time(), len(digests)))


class DigestedRow(NamedTuple):
    """A row of `networks`, `stacks` or `runs`, with the digest that it has and the one that it should have."""

    rowid: int
    has: bytes | None  # None of an earlier version's
    values: tuple[Any, ...]  # of the columns that the digest covers
    should: bytes | None  # None if a value is of a type that its column does not take, or is text that is no UTF-8


def rows_with_digests(connection: sqlite3.Connection, table: str, condition: str = "") -> Iterator[DigestedRow]:
    """
    Yield the rows of `networks`, `stacks` or `runs`, whatever is in them.

    No digest covers the networks that are missing from a stack: they change with every one that is stored, and can be counted.
    """
    columns, kinds = DIGESTED[table], _KINDS[table]
    stored = "digest" if "digest" in _column_names(connection, table) else "NULL"
    cursor = connection.execute(f"SELECT rowid, {stored}, {', '.join(columns)} FROM {table} {condition}")
    while rows := _fetch_any_text(connection, cursor):
        for row in rows:
            values = row[2:]
            try:
                should = row_digest(values) if kinds.fit(values) else None
            except UnicodeEncodeError:
                should = None
            yield DigestedRow(row[0], row[1], values, should)


def _fetch_any_text(connection: sqlite3.Connection, cursor: sqlite3.Cursor) -> list[tuple[Any, ...]]:
    """Fetch rows of which some may have text that is not UTF-8."""
    factory, connection.text_factory = connection.text_factory, _decode
    try:
        return cursor.fetchmany(AT_ONCE)
    finally:
        connection.text_factory = factory


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _column_names(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _table(name: str, *, temporary: bool = False) -> str:
    """Return the statement that makes a table."""
    return _declaration(name).replace("TABLE", "TEMP TABLE", 1) if temporary else _declaration(name)


def _declaration(name: str, columns: str | None = None) -> str:
    """Return the statement of a table, to the letter as SQLite keeps it."""
    options = "STRICT, WITHOUT ROWID" if name in _CLUSTERED else "STRICT"
    return f"CREATE TABLE {name} ({columns or TABLES[name]}) {options}"


def connect(file: Path) -> sqlite3.Connection:
    """Open a results file, for reading alone where its folder cannot be written."""
    mode = "mode=rw"
    if not os.access(file.parent, os.W_OK):
        # SQLite cannot read a file beside which it may not make its own, unless it is told that nobody writes to it. A process
        # that still writes, or was killed while writing, has left the newest rows in the `-wal`, with all that reading takes.
        wal = file.with_name(f"{file.name}-wal")
        mode = "mode=ro" if wal.exists() and wal.stat().st_size else "immutable=1"
    name = f"file:{quote(os.fsencode(file.absolute()))}?{mode}"
    connection = sqlite3.connect(name, uri=True, timeout=TIMEOUT, isolation_level=None)
    try:
        _take_care(connection)
        # After a power cut the last rows may be missing; the file is whole.
        connection.execute("PRAGMA synchronous = NORMAL")
        # Rows have random ids, so that the same pages of the index are written again and again: into the file less often.
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _take_care(connection: sqlite3.Connection) -> None:
    """Have SQLite trust nothing that a file says: it may come from a stranger."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH, 0)
    for setting in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
        connection.execute(f"PRAGMA {setting}")
