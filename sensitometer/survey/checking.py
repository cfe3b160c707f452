"""Whether a survey's folder is sound, and what can be mended where it is not. Imports no torch."""

import itertools
import operator
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..configuration import FIELDS, Configuration
from ..errors import InvalidInputError, StoreError
from ..files import UNFINISHED, remove
from ..store import ARRAYS, SAVED, SPECIFICATION, WEIGHTS, Store
from ..store.arrays import SUFFIX, read_arrays
from ..store.schema import COLUMNS, FILE, INSERT_NETWORK, Member, connect, create
from .runner import being_written, only_writer
from .spec import Spec, parse_spec

# Rows that are read together from a damaged file, before they are read one by one.
AT_ONCE = 1024
DAMAGED = f"{FILE}.damaged"
# The endings of a results file and of what SQLite keeps beside it.
SUFFIXES = ("", "-wal", "-shm")
# Bytes of a page of SQLite, unless told otherwise.
PAGE = 4096


@dataclass(frozen=True)
class Finding:
    """A fault, and how it can be mended; None if it cannot, or takes care of itself."""

    wrong: str
    repair: str | None = None
    mend: Callable[[], object] | None = field(default=None, repr=False, compare=False)


def check_survey(folder: str | Path, *, repair: bool = False) -> list[Finding]:
    """
    Return what is wrong with the survey in `folder`: with its results file, its rows, its division into stacks, and its files.

    Parameters
    ----------
    folder
        The survey's folder.
    repair
        Whether to mend what can be mended. Nothing that can be read is lost; rows that are thrown away are trained again by the
        next run.

    Raises
    ------
    StoreError
        There is no survey; or, with `repair`, a run is writing to it, or the folder cannot be written.
    """
    folder = Path(folder)
    if not Store.exists(folder):
        Store(folder)  # says so
    with only_writer(folder) if repair else nullcontext():
        damage = _damage(folder / FILE)
        if damage is None:
            return _check_whole(folder, repair)
        finding = _salvage(folder, damage, repair)
        # The rest can only be said of a file that is whole.
        return [finding, *(_check_whole(folder, repair) if repair else [])]


def _damage(file: Path) -> str | None:
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


def _check_whole(folder: Path, repair: bool) -> list[Finding]:
    """Check a survey whose results file is whole; each fault is mended before the next check."""
    with Store(folder) as store:
        try:
            spec = parse_spec(store.specification, str(folder / SPECIFICATION))
        except (InvalidInputError, StoreError) as error:
            return [Finding(f"{error}: it must be put back as it was")]
        wanted = {network.id: Member(network.id, network.seed, place) for place, network in spec.networks()}
        findings = []
        checks = [_rows(store, wanted), _stacks(store, wanted), _files(store, spec)]
        if repair or not being_written(folder):
            checks.append(_leftovers(store))
        for finding in itertools.chain(*checks):
            if repair and finding.mend is not None:
                finding.mend()
            findings.append(finding)
        return findings


def _rows(store: Store, wanted: Mapping[str, Member]) -> Iterator[Finding]:
    """Look for rows whose id is not that of their configuration, and for such that the survey does not ask for."""
    rows = store.rows(("id", *FIELDS))
    wrong = [row[0] for row in rows if _id_of(row[1:]) != row[0]]
    if wrong:
        text = f"{len(wrong)} rows have an id that is not that of their configuration, such as {wrong[0]}"
        yield Finding(text, "throw them away", lambda: store.forget(wrong))
    strangers = {row[0] for row in rows} - wanted.keys() - set(wrong)
    if strangers:
        yield Finding(f"{len(strangers)} rows are of networks that the survey does not ask for, such as {min(strangers)}")


def _id_of(values: tuple[Any, ...]) -> str | None:
    """Return the id of the configuration with these fields; None if there is no such configuration."""
    try:
        return Configuration(**dict(zip(FIELDS, values, strict=True))).id
    except InvalidInputError:
        return None


def _stacks(store: Store, wanted: Mapping[str, Member]) -> Iterator[Finding]:
    """Look for networks that are in no stack or in the wrong one, and for stacks whose missing networks are miscounted."""
    members = store.all_members()
    networks = sum(stack.networks for stack in store.stacks())
    strange = sum(wanted.get(member.id) != member for member in members)
    if strange or networks != len(members):
        text = (
            f"the division into stacks is damaged, or of another specification: of {len(members)} networks, where it says "
            f"{networks}, {strange} are not what the survey asks for"
        )
        yield Finding(text, "divide the survey anew", store.forget_division)
        return
    undivided = len(wanted.keys() - {member.id for member in members})
    if undivided:
        yield Finding(f"{undivided} networks are in no stack: the next run divides them")
    count = store.miscounted()
    if count:
        yield Finding(f"the missing networks of {count} stacks are miscounted", "count them", store.count_missing)


def _files(store: Store, spec: Spec) -> Iterator[Finding]:
    """Look for networks whose weights or arrays should have been kept, and are not there or not whole."""
    for folder, kept, without_any in (
        (WEIGHTS, spec.survey.keep_weights, ("failed",)),
        # No measure of a network that diverged means anything.
        (ARRAYS, spec.measure.keeps_arrays, ("failed", "diverged")),
    ):
        # In this order: files are written before the rows.
        ids = {id_ for id_, state in store.rows(("id", "state")) if kept and state not in without_any}
        without = sorted(id_ for id_ in ids if not _is_whole(store.folder / folder / f"{id_}{SUFFIX}"))
        if without:
            text = f"{len(without)} networks are stored without their {folder}, such as {without[0]}"
            yield Finding(text, "throw their rows away", partial(store.forget, without))


def _is_whole(file: Path) -> bool:
    """Return whether a safetensors file is as long as its header says, and has what is measured together."""
    try:
        read_arrays(file, ())
    except StoreError:
        return False
    return True


def _leftovers(store: Store) -> Iterator[Finding]:
    """Look for what killed processes have left behind."""
    folder = store.folder
    # States are gone on from as long as anything is missing.
    saved = "*" if not store.stacks(missing=True) else f"*{UNFINISHED}"
    patterns = (
        f"*{UNFINISHED}*",
        f"{WEIGHTS}/*{UNFINISHED}",
        f"{ARRAYS}/*{UNFINISHED}",
        "figures/.figures-*",
        ".salvage-*",
        f"{SAVED}/{saved}",
    )
    files = [file for pattern in patterns for file in folder.glob(pattern)]
    if files:
        subject = f"{len(files)} {'file is' if len(files) == 1 else 'files are'} left over from a process that was killed"

        def mend() -> None:
            for file in files:
                remove(file)

        yield Finding(f"{subject}, such as {files[0].relative_to(folder)}", "remove them", mend)


def _salvage(folder: Path, damage: str, repair: bool) -> Finding:
    """Copy what can be read of a damaged results file into a new one."""
    file = folder / FILE
    names = itertools.chain([DAMAGED], (f"{DAMAGED}-{number}" for number in itertools.count(2)))
    kept = next(name for name in names if not (folder / name).exists())
    with TemporaryDirectory(dir=folder if repair else None, prefix=".salvage-") as temporary:
        legible = _legible(file, Path(temporary))
        rows = _readable(legible)
        if repair:
            whole = Path(temporary) / "whole"
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
            whole.replace(file)
    if repair:
        with Store(folder) as store:
            store.count_missing()
    return Finding(
        f"{file} is damaged ({damage}); {len(rows)} of its networks can be read",
        f"keep it as {kept}, and copy these into a new file: the next run trains the others",
    )


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
        # Its first page says how long it is and where its tables begin: the same in every survey, but for the length, of which
        # a file that was cut lacks some.
        fresh = folder / "fresh"
        create(fresh)
        content, whole = copy.read_bytes(), fresh.read_bytes()
        pages = max(len(whole) // PAGE, -(-len(content) // PAGE))
        first = bytearray(whole[:PAGE])
        first[28:32] = pages.to_bytes(4, "big")
        copy.write_bytes(bytes(first) + content[PAGE:].ljust((pages - 1) * PAGE, b"\0"))
    return copy


def _readable(file: Path) -> list[tuple[Any, ...]]:
    """Return the rows that can be read of a damaged file and are what was stored: whose ids are those of their settings."""
    try:
        with closing(connect(file)) as connection:
            last = _last_row(connection)
            rows = [row for start in range(0, last, AT_ONCE) for row in _range(connection, start, start + AT_ONCE)]
    except sqlite3.DatabaseError:  # not even its tables can be found
        return []
    fields = operator.itemgetter(*(tuple(COLUMNS).index(name) for name in FIELDS))
    return list({row[0]: row for row in rows if row[0] is not None and _id_of(fields(row)) == row[0]}.values())


def _last_row(connection: sqlite3.Connection) -> int:
    """Return a number that no row's is above."""
    try:
        return int(connection.execute("SELECT max(rowid) FROM networks").fetchone()[0] or 0)
    except sqlite3.DatabaseError:
        # A row has some 200 bytes and more.
        return int(connection.execute("PRAGMA page_count").fetchone()[0]) * PAGE // 100


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
