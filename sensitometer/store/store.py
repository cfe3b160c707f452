"""A survey's results: one SQLite database, one row per network, written once; and arrays. Imports neither torch nor ray."""

import operator
import sqlite3
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from ..errors import InvalidInputError, StoreError, counted
from ..files import read_bytes, replacing
from .arrays import SUFFIX, read_arrays
from .digests import is_sound, row_digest, types_of
from .folder import ARRAYS, FILE, SPECIFICATION, check_folder, check_not_half_repaired
from .schema import (
    COLUMNS,
    INSERT_NETWORK,
    NETWORK_KINDS,
    SCHEMA_VERSION,
    STATES,
    Member,
    Run,
    Stack,
    Upgrade,
    check_schema,
    connect,
    create,
    rows_with_digests,
    supplement,
    upgrade,
)

if TYPE_CHECKING:
    import pandas
    from numpy.typing import NDArray

EXPORTS = (".parquet", ".csv")

# Bytes of the longest specification.
LONGEST_SPECIFICATION = 10_000_000
# How many networks of a stack are not stored.
_MISSING = "(SELECT count(*) FROM members WHERE stack = number AND id NOT IN (SELECT id FROM networks))"
_COUNT_MISSING = f"UPDATE stacks SET missing = {_MISSING}"
_FIELDS = {kind: ", ".join(kind._fields) for kind in (Member, Stack, Run, Upgrade)}


Record = TypeVar("Record", Member, Stack, Run, Upgrade)


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
        check_folder(self.folder)
        check_not_half_repaired(self.folder)
        if not file.is_file():
            raise StoreError(
                f"no survey in {self.folder}: expected the file {FILE}, which 'sensitometer run SPEC --out DIR' makes"
            )
        with self._reading():
            self._connection = connect(file)
            try:
                self._version = check_schema(self._connection)
                # A file of an earlier version is brought up to date by the first writing: reading changes nothing.
                if self._version < SCHEMA_VERSION:
                    supplement(self._connection)
            except StoreError as error:
                self.close()
                raise StoreError(f"{file} {error}") from None
            except sqlite3.Error:
                self.close()
                raise

    def __repr__(self) -> str:
        try:
            networks = counted(sum(self.counts().values()), "network")
        except StoreError:
            networks = "closed or damaged"
        return f"Survey({str(self.folder)!r}, {networks})"

    @classmethod
    def exists(cls, folder: str | Path) -> bool:
        """
        Return whether there is a survey in the folder.

        Raises
        ------
        StoreError
            One was there, and is damaged or half repaired; or the folder has what no survey's folder may have.
        """
        check_folder(Path(folder))
        check_not_half_repaired(Path(folder))
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
            file = folder / SPECIFICATION
            if file.exists() and read_bytes(file, LONGEST_SPECIFICATION) != specification.encode():
                raise StoreError(f"{folder} has another {SPECIFICATION}, and no survey: choose another folder, or remove it")
            with replacing(file) as unfinished:
                unfinished.write_text(specification, encoding="utf-8")
            create(folder / FILE)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot write to {folder}: {getattr(error, 'strerror', None) or error}") from error
        return cls(folder)

    @property
    def specification(self) -> str:
        """The text of the survey's specification."""
        try:
            return read_bytes(self.folder / SPECIFICATION, LONGEST_SPECIFICATION).decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"cannot read {self.folder / SPECIFICATION}: {error}") from error

    def write_specification(self, text: str) -> None:
        """Replace the text of the specification: that of a survey that has grown."""
        try:
            with replacing(self.folder / SPECIFICATION) as unfinished:
                unfinished.write_text(text, encoding="utf-8")
        except OSError as error:
            raise StoreError(f"cannot write to {self.folder / SPECIFICATION}: {error.strerror or error}") from error

    def record(self, *rows: Mapping[str, Any], stack: int | None = None, measured: float = 0.0) -> None:
        """
        Store networks, in one transaction. Columns that a row lacks are null; `stored_at` is the time, in Unix seconds.

        Parameters
        ----------
        rows
            One network each, by column.
        stack
            The stack that they are from.
        measured
            Seconds that a worker took for the stack.

        Raises
        ------
        StoreError
            A column is unknown, a network is stored already, or the file cannot be written. Nothing is stored then.
        """
        _check_columns(name for row in rows for name in row)
        now = time.time()
        values = [_with_digest([now if name == "stored_at" else row.get(name) for name in COLUMNS]) for row in rows]
        with self._writing(f"network {rows[0].get('id')}" if len(rows) == 1 else counted(len(rows), "network")):
            self._connection.executemany(INSERT_NETWORK, values)
            if stack is not None:
                self._connection.execute("UPDATE stacks SET missing = missing - ? WHERE number = ?", (len(rows), stack))
                self._count_stack(stack, len(rows), measured, now)

    def _count_stack(self, stack: int, networks: int, measured: float, now: float) -> None:
        """Count one more stack of the last run."""
        select = (
            f"SELECT rowid, {_FIELDS[Run]}, (SELECT seconds FROM stacks WHERE number = ?) FROM runs ORDER BY rowid DESC LIMIT 1"
        )
        for rowid, *values, seconds in self._connection.execute(select, (stack,)).fetchall():
            run = Run(*values)
            counted_run = run._replace(
                networks=run.networks + networks,
                predicted=run.predicted + (seconds or 0.0),
                measured=run.measured + measured,
                last_at=now,
            )
            update = f"UPDATE runs SET ({_FIELDS[Run]}, digest) = (?, ?, ?, ?, ?, ?, ?, ?) WHERE rowid = ?"
            self._connection.execute(update, (*counted_run, row_digest(counted_run), rowid))

    def rows(self, columns: Collection[str]) -> list[tuple[Any, ...]]:
        """
        Return these columns of the stored networks, one tuple per network.

        Raises
        ------
        StoreError
            A value is of another type than its column.
        """
        return self._networks(columns)

    def _networks(self, columns: Collection[str], order: str = "", *, check: bool = True) -> list[tuple[Any, ...]]:
        try:
            rows = self._connection.execute(f"SELECT {', '.join(columns)} FROM networks {order}").fetchall()
            # A file may come from a stranger, or be damaged.
            sound = not check or all(
                set(map(type, map(operator.itemgetter(place), rows))) <= types_of(COLUMNS[name])
                for place, name in enumerate(columns)
            )
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise StoreError(f"cannot read {self.folder / FILE}: {error}") from error
            sound = False
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.folder / FILE}: {error}") from error
        if not sound:
            raise StoreError(self._unsound())
        return rows

    def _unsound(self) -> str:
        """Return what to say of the first row with a value that its column does not take."""
        with self._reading():
            rows = list(rows_with_digests(self._connection, "networks"))
        for row in rows:
            pairs = zip(COLUMNS.items(), row.values, strict=True)
            wrong = next(((name, kind, value) for (name, kind), value in pairs if not is_sound(value, kind)), None)
            if wrong is not None:
                name, kind, value = wrong
                return (
                    f"{self.folder / FILE}: network {row.values[0]!a:.40} has {value!a:.40} in the column {name}, which takes "
                    f"{kind.partition(' CHECK')[0]}: 'sensitometer check {self.folder} --repair' throws such rows away"
                )
        return f"{self.folder / FILE} has a state that no network has: 'sensitometer check {self.folder}' says more"

    def counts(self) -> dict[str, int]:
        """Return the number of stored networks of each state, every state named."""
        counts = dict(self._select("SELECT state, count(*) FROM networks GROUP BY state"))
        if not counts.keys() <= set(STATES):
            raise StoreError(self._unsound())
        return dict.fromkeys(STATES, 0) | counts

    def failures(self) -> dict[str, int]:
        """Return the number of networks that failed for each reason, the most frequent first."""
        select = (
            "SELECT coalesce(error, 'no reason'), count(*) FROM networks WHERE state = 'failed' GROUP BY 1 ORDER BY 2 DESC, 1"
        )
        failures = self._select(select)
        if not all(isinstance(reason, str) for reason, _ in failures):
            raise StoreError(self._unsound())
        return dict(failures)

    def enroll(self, stacks: Iterable[tuple[str, float, Sequence[Member]]]) -> None:
        """
        Add stacks, numbered on in the order given, from the kind, the predicted seconds and the networks of each.

        The division stays: networks that are trained again are then trained in the same stack, and so to the same bits.
        """
        with self._writing("the division into stacks"):
            for kind, seconds, members in stacks:
                self._add_stack(kind, seconds, members)

    def all_members(self) -> list[Member]:
        """Return the networks of all stacks, by stack, seed and id."""
        return self._records(Member, "FROM members ORDER BY stack, seed, id")

    def stacks(self, *, missing: bool = False) -> list[Stack]:
        """Return the stacks by number; with `missing`, those with networks that are not stored."""
        condition = "WHERE missing > 0" if missing else ""
        return self._records(Stack, f"FROM stacks {condition} ORDER BY number")

    def members(self, stack: int) -> list[Member]:
        """Return the networks of a stack, by seed and id."""
        return self._records(Member, "FROM members WHERE stack = ? ORDER BY seed, id", stack)

    def missing(self, stack: int) -> set[str]:
        """Return the ids of the networks of a stack that are not stored."""
        select = "SELECT id FROM members WHERE stack = ? AND id NOT IN (SELECT id FROM networks)"
        return {id_ for (id_,) in self._select(select, stack)}

    def divide(self, stack: Stack, accident: str) -> list[Stack]:
        """Replace a stack by two halves, or by itself if it is one network, after an accident, and return them."""
        members = self.members(stack.number)
        middle = (len(members) + 1) // 2
        with self._writing("the division of a stack"):
            self._connection.execute("DELETE FROM stacks WHERE number = ?", (stack.number,))
            self._connection.execute("DELETE FROM members WHERE stack = ?", (stack.number,))
            numbers = [
                self._add_stack(stack.kind, stack.seconds * len(half) / len(members), half, accident)
                for half in (members[:middle], members[middle:])
                if half
            ]
        return [half for half in self.stacks(missing=True) if half.number in numbers]

    def _add_stack(self, kind: str, seconds: float, members: Sequence[Member], accident: str | None = None) -> int:
        number: int = self._connection.execute("SELECT coalesce(max(number) + 1, 0) FROM stacks").fetchone()[0]
        stack = Stack(number, kind, len(members), len(members), seconds, accident)
        self._connection.execute(f"INSERT INTO stacks ({_FIELDS[Stack]}) VALUES (?, ?, ?, ?, ?, ?)", stack)
        self._digest("stacks", f"WHERE rowid = {number}")
        rows = [(number, member.seed, member.id, member.place) for member in members]
        self._connection.executemany("INSERT INTO members VALUES (?, ?, ?, ?)", rows)
        self._connection.execute(f"{_COUNT_MISSING} WHERE number = ?", (number,))
        return number

    def count_missing(self) -> None:
        """Count anew how many networks of each stack are not stored."""
        with self._writing("the counts of missing networks"):
            self._connection.execute(_COUNT_MISSING)

    def miscounted(self) -> int:
        """Return the number of stacks whose stored count of missing networks is wrong."""
        return int(self._select(f"SELECT count(*) FROM stacks WHERE missing != {_MISSING}")[0][0])

    def forget(self, ids: Iterable[str]) -> None:
        """Throw rows away, so that their networks are missing again."""
        with self._writing("that rows are thrown away"):
            self._connection.executemany("DELETE FROM networks WHERE id = ?", [(id_,) for id_ in ids])
            self._connection.execute(_COUNT_MISSING)

    def forget_rows(self, rowids: Iterable[int], table: str = "networks") -> None:
        """Throw rows of `networks` or `runs` away by their rowids, where an id says nothing."""
        with self._writing("that rows are thrown away"):
            self._connection.executemany(f"DELETE FROM {table} WHERE rowid = ?", [(rowid,) for rowid in rowids])
            self._connection.execute(_COUNT_MISSING)

    def verified(self, table: str = "networks") -> Iterator[tuple[int, bool, tuple[Any, ...]]]:
        """
        Yield the rowids of the rows of `networks`, `stacks` or `runs`, whether each is as it was stored, and its columns.

        A row that an earlier version stored has no digest as long as nothing is written: it is damaged if a value is of a type
        that its column does not take.
        """
        without = self._version < SCHEMA_VERSION
        with self._reading():
            for row in rows_with_digests(self._connection, table):
                yield row.rowid, row.should is not None and (without or row.has == row.should), row.values

    def bring_up_to_date(self) -> None:
        """Bring a file of an earlier version up to date, as the first writing does."""
        if self._version < SCHEMA_VERSION:
            with self._writing("the tables of this version"):
                pass

    def upgrades(self) -> list[Upgrade]:
        """Return when an earlier version's rows got their digests; those of a file that is still to be upgraded have none."""
        rows = self._records(Upgrade, "FROM upgrades ORDER BY at")
        if self._version < SCHEMA_VERSION:
            rows.append(Upgrade(self._version, None, sum(self.counts().values())))
        return rows

    def forget_division(self) -> None:
        """Throw the division into stacks away; the next run divides the survey anew."""
        with self._writing("that the division is thrown away"):
            self._connection.execute("DELETE FROM stacks")
            self._connection.execute("DELETE FROM members")

    def stack_sizes(self) -> dict[str, int]:
        """Return how many networks of each kind are trained together, in a survey that an earlier version began."""
        return dict(self._select("SELECT kind, networks FROM stack_sizes"))

    def begin_run(self, writer: str, workers: int) -> None:
        """Store that a run begins now, with its process and machine, and the number of stacks that it trains at a time."""
        now = time.time()
        with self._writing("the beginning of a run"):
            run = Run(now, writer, workers, 0, 0.0, 0.0, now)
            statement = f"INSERT INTO runs ({_FIELDS[Run]}, digest) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            self._connection.execute(statement, (*run, row_digest(run)))

    def last_run(self) -> Run | None:
        """Return what the last run has stored; None if there was none."""
        runs = self._records(Run, "FROM runs ORDER BY rowid DESC LIMIT 1")
        return runs[0] if runs else None

    def frame(self, columns: Collection[str] = tuple(COLUMNS)) -> "pandas.DataFrame":
        """Return the stored networks by id, one row each; the columns named, or all."""
        import pandas

        if isinstance(columns, str) or not columns:
            raise StoreError(f"columns must be a list of at least one column; got {columns!r}")
        _check_columns(columns)
        frame = pandas.DataFrame(self._networks(columns, "ORDER BY id", check=False), columns=list(columns))
        for name in columns:
            kind, values = COLUMNS[name].partition(" ")[0], frame[name]
            is_text = kind == "TEXT" and pandas.api.types.infer_dtype(values, skipna=True) in ("string", "empty")
            is_number = kind != "TEXT" and (pandas.api.types.is_numeric_dtype(values) or values.isna().all())
            if not (is_text or is_number) or ("NOT NULL" in COLUMNS[name] and values.isna().any()):
                raise StoreError(self._unsound())
        # A column of numbers that nothing was measured in would else be one of objects.
        numbers = [name for name in columns if COLUMNS[name].startswith("REAL")]
        return frame.astype(dict.fromkeys(numbers, "float64"))

    def kept(self) -> set[str]:
        """Return the ids of the networks that have arrays."""
        return {file.stem for file in (self.folder / ARRAYS).glob(f"*{SUFFIX}")}

    def arrays(self, id_: str, prefix: str | tuple[str, ...] = "") -> "dict[str, NDArray[Any]]":
        """
        Return the arrays of a network whose names begin with `prefix`, or with one of several, by name.

        `sensitometer.store.arrays` says what they are.

        Raises
        ------
        StoreError
            There are none of this network, or they cannot be read.
        """
        return read_arrays(self.folder / ARRAYS / f"{id_}{SUFFIX}", prefix)

    def export(self, file: str | Path) -> int:
        """
        Write the stored networks, as `frame` returns them, to a `.parquet` or `.csv` file, and return how many they are.

        The file appears under its name only when it is whole, and replaces an earlier one.

        Raises
        ------
        InvalidInputError
            The name ends otherwise.
        StoreError
            The file cannot be written.
        """
        file = Path(file)
        if file.suffix not in EXPORTS:
            raise InvalidInputError(f"the file to export to must end in {' or '.join(EXPORTS)}; got {file.name!r}")
        frame = self.frame()
        try:
            with replacing(file) as unfinished:
                if file.suffix == ".csv":
                    frame.to_csv(unfinished, index=False)
                else:
                    frame.to_parquet(unfinished, index=False)
        except OSError as error:
            raise StoreError(f"cannot write to {file}: {error.strerror or error}") from error
        return len(frame)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _records(self, kind: type[Record], rest: str, *parameters: Any) -> list[Record]:
        """Select records; StoreError if a value is of another type than its field."""
        rows = self._select(f"SELECT {_FIELDS[kind]} {rest}", *parameters)
        for place, (name, hint) in enumerate(kind.__annotations__.items()):
            types = set(get_args(hint) or (hint,))
            if not set(map(type, map(operator.itemgetter(place), rows))) <= types:
                value = next(row[place] for row in rows if type(row[place]) not in types)
                raise StoreError(
                    f"{self.folder / FILE}: a {kind.__name__.lower()} has {value!a:.40} for its {name}, "
                    f"which is {'no number' if types & {int, float} else 'no text'}: "
                    f"'sensitometer check {self.folder} --repair' mends it"
                )
        return [kind(*row) for row in rows]

    def _select(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with self._reading():
            return self._connection.execute(statement, parameters).fetchall()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"cannot read {self.folder / FILE}: {error}") from error

    def _digest(self, table: str, condition: str) -> None:
        """Digest rows anew that have changed."""
        for row in list(rows_with_digests(self._connection, table, condition)):
            self._connection.execute(f"UPDATE {table} SET digest = ? WHERE rowid = ?", (row.should, row.rowid))

    @contextmanager
    def _writing(self, subject: str) -> Iterator[None]:
        """Make one transaction of the block, in which this is the only writer from the beginning."""
        try:
            if self._version < SCHEMA_VERSION:
                upgrade(self._connection)
                self._version = SCHEMA_VERSION
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                # A transaction that a full disk has ended has nothing left to take back.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
        except (sqlite3.Error, OverflowError) as error:
            raise StoreError(f"cannot store {subject} in {self.folder / FILE}: {error}") from error


def _with_digest(row: list[Any]) -> list[Any]:
    """Return the values to store of a row of `networks`, its digest last; SQLite refuses a row that has none."""
    values = NETWORK_KINDS.canonical(row)
    return [*values, row_digest(values) if NETWORK_KINDS.fit(values) else None]


def _check_columns(names: Iterable[str]) -> None:
    unknown = sorted(set(names) - COLUMNS.keys())
    if unknown:
        raise StoreError(f"a network has no column {unknown[0]!r}; the columns are {', '.join(COLUMNS)}")


def open_survey(folder: str | Path) -> Store:
    """Open the survey in `folder` for reading; its `frame()` is one row per network. StoreError if there is none."""
    return Store(folder)
