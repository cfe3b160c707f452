"""The tables of a survey's results file and their records, what makes them, and what updates an older file. Imports no torch."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from ..files import replacing

SCHEMA_VERSION = 3
FILE = "survey.sqlite"

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
INSERT_NETWORK = f"INSERT INTO networks ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"

# The tables of this version. A file of an earlier one lacks some of them, and some columns of `runs`.
TABLES = {
    "networks": ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items()),
    # How many networks of a kind earlier versions trained together, by measured times, and the predicted seconds of each.
    "stack_sizes": "kind TEXT PRIMARY KEY, networks INTEGER NOT NULL, seconds REAL NOT NULL",
    # Networks that are trained together: see `Stack`.
    "stacks": "number INTEGER PRIMARY KEY, kind TEXT NOT NULL, networks INTEGER NOT NULL, missing INTEGER NOT NULL, "
    "seconds REAL NOT NULL, accident TEXT",
    # The networks of each stack, in the order in which they are trained side by side.
    "members": "stack INTEGER NOT NULL, seed INTEGER NOT NULL, id TEXT NOT NULL, place INTEGER NOT NULL, "
    "PRIMARY KEY (stack, seed, id)",
    # The results of each run: networks, the predicted and the measured seconds of their stacks, and when it last did.
    "runs": "begun_at REAL NOT NULL, writer TEXT, workers INTEGER, networks INTEGER, predicted REAL, measured REAL, last_at REAL",
}
# The key of these is all there is to look up.
_CLUSTERED = {"members"}
STATES = ("fitted", "unfitted", "diverged", "failed")
# Pages of 4 kB that wait beside the file, in its `-wal`.
CHECKPOINT_PAGES = 8000
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


def create(file: Path) -> None:
    """Make an empty results file."""
    with replacing(file) as unfinished, closing(sqlite3.connect(unfinished)) as connection:
        # Readers go on while a run writes. This stays with the file.
        connection.execute("PRAGMA journal_mode = WAL")
        for name in TABLES:
            connection.execute(_table(name))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.commit()


def upgrade(connection: sqlite3.Connection) -> None:
    """Give a file of an earlier version the tables that it lacks, for this connection alone where the file cannot be written."""
    new = TABLES.keys() - {"networks"}
    try:
        connection.execute("BEGIN IMMEDIATE")
        # The runs before have nothing but when they began.
        connection.execute("DROP TABLE runs")
        for name in new:
            connection.execute(_table(name, "IF NOT EXISTS"))
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")
    except sqlite3.OperationalError:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        there = {row[0] for row in connection.execute("SELECT name FROM sqlite_schema")}
        for name in new - there | {"runs"}:
            connection.execute(_table(name, temporary=True))


def _table(name: str, if_not_exists: str = "", *, temporary: bool = False) -> str:
    """Return the statement that makes a table."""
    options = "STRICT, WITHOUT ROWID" if name in _CLUSTERED else "STRICT"
    return f"CREATE {'TEMP' if temporary else ''} TABLE {if_not_exists} {name} ({TABLES[name]}) {options}"


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
        # After a power cut the last rows may be missing; the file is whole.
        connection.execute("PRAGMA synchronous = NORMAL")
        # Rows have random ids, so that the same pages of the index are written again and again: into the file less often.
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    except sqlite3.Error:
        connection.close()
        raise
    return connection
