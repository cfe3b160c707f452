"""A survey's results file: one SQLite database, one row a network, written once. Imports neither torch nor ray."""

import os
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from .errors import StoreError

if TYPE_CHECKING:
    import pandas

SCHEMA_VERSION = 2
FILE = "survey.sqlite"
SPECIFICATION = "spec.toml"

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

_STACK_SIZES = "TABLE {} stack_sizes (kind TEXT PRIMARY KEY, networks INTEGER NOT NULL, seconds REAL NOT NULL) STRICT;"
_SCHEMA = f"""
CREATE TABLE networks ({", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())}) STRICT;
CREATE TABLE runs (begun_at REAL NOT NULL) STRICT;
CREATE {_STACK_SIZES.format("")}
PRAGMA user_version = {SCHEMA_VERSION};
"""
STATES = ("fitted", "unfitted", "diverged", "failed")


class Store:
    """
    The results of one survey, in the folder `DIR`: `DIR/survey.sqlite`, and the survey's specification in `DIR/spec.toml`.

    Any number of processes may read while one writes. A row, once stored, is not changed: storing a network again is refused.

    Parameters
    ----------
    folder
        The survey's folder, which `create` has made.

    Raises
    ------
    StoreError
        There is no survey in the folder, or its file is damaged or of another version.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        file = self.folder / FILE
        if not file.is_file():
            raise StoreError(
                f"no survey in {self.folder}: expected the file {FILE}, which 'sensitometer run SPEC --out DIR' makes"
            )
        with self._reading():
            self._connection = _connect(file)
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            if version == 1:
                version = self._upgrade()
        if version != SCHEMA_VERSION:
            self.close()
            raise StoreError(f"{file} has schema version {version}; this version of Sensitometer reads {SCHEMA_VERSION}")

    def _upgrade(self) -> int:
        """Give a file of version 1 what it lacks, for this connection alone where the file cannot be written; return 2."""
        try:
            with self._connection:
                self._connection.execute(f"CREATE {_STACK_SIZES.format('IF NOT EXISTS')}")
                self._connection.execute("PRAGMA user_version = 2")
        except sqlite3.OperationalError:
            self._connection.execute(f"CREATE TEMP {_STACK_SIZES.format('')}")
        return 2

    @classmethod
    def exists(cls, folder: str | Path) -> bool:
        """Return whether there is a survey in the folder."""
        return (Path(folder) / FILE).is_file()

    @classmethod
    def create(cls, folder: str | Path, specification: str) -> "Store":
        """
        Make the folder, its results file and its `spec.toml`, and open it.

        Raises
        ------
        StoreError
            There is a survey already, or the folder cannot be written.
        """
        folder = Path(folder)
        if cls.exists(folder):
            raise StoreError(f"there is a survey in {folder} already")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / SPECIFICATION).write_text(specification, encoding="utf-8")
            # Under another name until it is whole: a run that is killed here leaves nothing that looks like a survey.
            unfinished = folder / f"{FILE}.new"
            unfinished.unlink(missing_ok=True)
            with closing(sqlite3.connect(unfinished)) as connection:
                # Readers go on while a run writes. This stays with the file.
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(_SCHEMA)
            unfinished.rename(folder / FILE)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot write to {folder}: {getattr(error, 'strerror', None) or error}") from error
        return cls(folder)

    @property
    def specification(self) -> str:
        """The text of the survey's specification."""
        try:
            return (self.folder / SPECIFICATION).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"cannot read {self.folder / SPECIFICATION}: {error}") from error

    def record(self, row: Mapping[str, Any]) -> None:
        """
        Store one network, in one transaction. Columns that `row` lacks are null; `stored_at` is the time, in Unix seconds.

        Raises
        ------
        StoreError
            A column is unknown, the network is stored already, or the file cannot be written.
        """
        unknown = row.keys() - COLUMNS.keys()
        if unknown:
            raise StoreError(f"a network has no column {sorted(unknown)[0]!r}; the columns are {', '.join(COLUMNS)}")
        row = {**row, "stored_at": time.time()}
        names = ", ".join(row)
        places = ", ".join(f":{name}" for name in row)
        with self._writing(f"network {row.get('id')}"), self._connection:
            self._connection.execute(f"INSERT INTO networks ({names}) VALUES ({places})", row)

    def ids(self) -> set[str]:
        """Return the ids of the stored networks."""
        with self._reading():
            return {row[0] for row in self._connection.execute("SELECT id FROM networks")}

    def counts(self) -> dict[str, int]:
        """Return how many stored networks there are of each state, every state named."""
        with self._reading():
            found = dict(self._connection.execute("SELECT state, count(*) FROM networks GROUP BY state").fetchall())
        return {state: found.get(state, 0) for state in STATES}

    def begin_run(self) -> None:
        """Note the time at which a run begins to train."""
        with self._writing("the beginning of a run"), self._connection:
            self._connection.execute("INSERT INTO runs VALUES (?)", (time.time(),))

    def record_stack_sizes(self, sizes: Mapping[str, tuple[int, float]]) -> None:
        """
        Store how many networks of each kind are trained together, and the seconds that each of them is predicted to take.

        What is stored stays: networks that are trained again are then trained in the same company, and so to the same bits.
        """
        rows = [(kind, *size) for kind, size in sizes.items()]
        with self._writing("the sizes of the stacks"), self._connection:
            self._connection.executemany("INSERT INTO stack_sizes VALUES (?, ?, ?)", rows)

    def stack_sizes(self) -> dict[str, tuple[int, float]]:
        """Return what `record_stack_sizes` has stored."""
        with self._reading():
            rows = self._connection.execute("SELECT kind, networks, seconds FROM stack_sizes").fetchall()
        return {kind: (networks, seconds) for kind, networks, seconds in rows}

    def last_run(self) -> tuple[set[str], float]:
        """Return the ids of the networks that the last run has stored, and the seconds from its beginning to the last of them."""
        with self._reading():
            begun = self._connection.execute("SELECT max(begun_at) FROM runs").fetchone()[0]
            rows = self._connection.execute("SELECT id, stored_at FROM networks WHERE stored_at >= ?", (begun,)).fetchall()
        return {row[0] for row in rows}, max((row[1] - begun for row in rows), default=0.0)

    def frame(self, columns: Collection[str] = tuple(COLUMNS)) -> "pandas.DataFrame":
        """Return the stored networks, one row each, in the order of their ids; the columns named, or all."""
        import pandas

        if isinstance(columns, str) or not columns:
            raise StoreError(f"columns must be a list of at least one column; got {columns!r}")
        unknown = set(columns) - COLUMNS.keys()
        if unknown:
            raise StoreError(f"a network has no column {sorted(unknown)[0]!r}; the columns are {', '.join(COLUMNS)}")
        with self._reading():
            rows = self._connection.execute(f"SELECT {', '.join(columns)} FROM networks ORDER BY id").fetchall()
        frame = pandas.DataFrame(rows, columns=list(columns))
        # A column of numbers that nothing was measured in would else be one of objects.
        numbers = [name for name in columns if COLUMNS[name].startswith("REAL")]
        return frame.astype(dict.fromkeys(numbers, "float64"))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.folder / FILE}: {error}") from error

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError) as error:
            raise StoreError(f"cannot store {what} in {self.folder / FILE}: {error}") from error


def open_survey(folder: str | Path) -> Store:
    """Open the survey in `folder` for reading; its `frame()` is one row a network. StoreError if there is none."""
    return Store(folder)


def _connect(file: Path) -> sqlite3.Connection:
    # SQLite cannot read a file beside which it may not make its own, unless it is told that nobody writes to it.
    mode = "mode=rw" if os.access(file.parent, os.W_OK) else "immutable=1"
    connection = sqlite3.connect(f"file:{quote(str(file.absolute()))}?{mode}", uri=True, timeout=30)
    # After a power cut the last rows may be missing; the file is whole.
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection
