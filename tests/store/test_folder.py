"""Folders of strangers: nothing outside is touched, nothing waits for ever, and every refusal is one line."""

import contextlib
import os
import shutil
import sqlite3
import stat

import pytest

from sensitometer.configuration import Configuration
from sensitometer.errors import StoreError
from sensitometer.files import read_bytes, replacing
from sensitometer.store import SPECIFICATION, Store
from sensitometer.store.folder import FILE, LOCK, OWNER
from sensitometer.store.schema import Member
from sensitometer.survey.checking import check_survey
from sensitometer.survey.runner import only_writer

SPEC = """
[survey]
name = "strange"
[data]
name = "digits"
[space]
width = [4]
depth = [2]
learning_rate = [0.1]
batch_size = [50]
seed = [1, 2]
[training]
steps = 1
"""


@pytest.fixture
def folder(tmp_path):
    """A survey of two networks, done, made without a run; and beside it files of the user's, which nobody may touch."""
    folder = tmp_path / "survey"
    networks = [Configuration("digits", 4, 2, batch_size=50, learning_rate=0.1, steps=1, seed=seed) for seed in (1, 2)]
    with Store.create(folder, SPEC) as store:
        store.enroll([(networks[0].kind, 1.0, [Member(network.id, network.seed, 0) for network in networks])])
        store.begin_run("me", 1)
        rows = [{"id": network.id, **network.as_dict(), "state": "fitted", "gap": network.seed / 7} for network in networks]
        store.record(*rows, stack=0, measured=1.0)
    return folder


@pytest.fixture
def decoy(tmp_path):
    decoy = tmp_path / "decoy"
    decoy.mkdir()
    for name in ("0123456789abcdef.safetensors", "bashrc", "figure_5_gap_against_jacobian.png.sensitometer-new"):
        (decoy / name).write_text(name)
    yield decoy
    assert {path.name: path.read_text() for path in decoy.iterdir()} == {path.name: path.name for path in decoy.iterdir()}
    assert len(list(decoy.iterdir())) == 3


@pytest.fixture
def fails(refused):
    return lambda expected: refused(expected, error=StoreError)


def commands(folder, run):
    """The commands that open a folder, each with its exit status and what it wrote."""
    spec = folder.parent / "spec.toml"
    spec.write_text(SPEC)
    for command in (
        ("status", folder),
        ("check", folder),
        ("check", folder, "--repair"),
        ("claims", folder),
        ("export", folder, folder.parent / "rows.csv"),
        ("figures", folder),
        ("run", spec, "--out", folder),
    ):
        yield command[0], run(*command)


@pytest.mark.parametrize("name", ["saved", "arrays", "weights", "figures", OWNER, LOCK, SPECIFICATION, f"{FILE}-wal", FILE])
def test_a_link_in_a_folder_is_refused_by_every_command_and_not_followed(folder, decoy, run, name):
    target = decoy / "bashrc" if "." in name else decoy
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)
    for command, (code, _, errors) in commands(folder, run):
        assert code == 2 and f"{folder / name} is a link" in errors and errors.count("\n") == 1, command


def test_a_link_to_nothing_is_refused_too(folder, fails, tmp_path):
    (folder / OWNER).symlink_to(tmp_path / "new")
    with fails("is a link"), only_writer(folder):
        pass
    assert not (tmp_path / "new").exists()


def test_a_folder_may_be_reached_through_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert check_survey(tmp_path / "link", repair=True) == []


def hot_journal(folder, victim):
    """Put a journal beside the results file that names another file as the one to delete when it was rolled back."""
    name = str(victim).encode()
    page = (folder / FILE).stat().st_size // 4096
    header = bytes.fromhex("d9d505f920a163d7") + (0).to_bytes(4, "big") + bytes(4) + page.to_bytes(4, "big")
    header += (512).to_bytes(4, "big") + (4096).to_bytes(4, "big")
    checksum = sum(byte if byte < 128 else byte - 256 for byte in name) & 0xFFFFFFFF
    trailer = (262145).to_bytes(4, "big") + name + len(name).to_bytes(4, "big") + checksum.to_bytes(4, "big")
    (folder / f"{FILE}-journal").write_bytes(header.ljust(512, b"\0") + trailer + bytes.fromhex("d9d505f920a163d7"))


def test_a_journal_deletes_no_file(folder, decoy, run):
    hot_journal(folder, decoy / "bashrc")
    for command, (code, _, errors) in commands(folder, run):
        assert code == 2 and f"{FILE}-journal is a journal" in errors and errors.count("\n") == 1, command


@pytest.mark.parametrize("name", [SPECIFICATION, OWNER, FILE, LOCK])
def test_a_pipe_in_place_of_a_file_is_refused_at_once(folder, run, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    for command, (code, _, errors) in commands(folder, run):
        assert code == 2 and f"{name} must be a file; got a pipe" in errors and errors.count("\n") == 1, command


@pytest.mark.parametrize("name", ["arrays", "figures"])
def test_a_file_in_place_of_a_folder_is_refused(folder, fails, name):
    (folder / name).touch()
    with fails(f"{name} must be a folder; got a file"):
        Store(folder)


PROGRAMS = {
    "an endless view": "ALTER TABLE networks RENAME TO x; CREATE VIEW networks AS WITH RECURSIVE n(id) AS "
    "(SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n",
    "a trigger": "CREATE TRIGGER t AFTER INSERT ON networks BEGIN DELETE FROM networks; END",
    "a generated column": "ALTER TABLE networks ADD COLUMN more INTEGER AS (printf('%1000000000d', width))",
    "an index on an expression": "CREATE INDEX i ON networks (length(id))",
    "a table that takes anything": "ALTER TABLE networks RENAME TO x; CREATE TABLE networks AS SELECT * FROM x; DROP TABLE x",
}


@pytest.mark.parametrize("statements", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_in_place_of_a_table_is_refused_and_repair_keeps_what_it_can(folder, fails, statements):
    with contextlib.closing(sqlite3.connect(folder / FILE)) as connection:
        connection.executescript(statements)
    with fails("is damaged, or no survey's: no version of Sensitometer made its "):
        Store(folder)
    assert "is damaged" in check_survey(folder)[0].wrong
    check_survey(folder, repair=True)
    assert check_survey(folder) == []


# --- wrong types

WRONG = {
    "text in a number": ("gap", "'much'", "'much' in the column gap"),
    "a blob in a number": ("gap", "x'00ff'", r"b'\\x00\\xff' in the column gap"),
    "no width": ("width", "NULL", "None in the column width"),
    "a number in text": ("host", "7", "7 in the column host"),
    "text that is no UTF-8": ("error", "CAST(x'41ff' AS TEXT)", r"in the column error"),
    "another state": ("state", "'great'", None),
}


def without_types(folder, *statements):
    """Change a file as nobody could through SQLite's checks: its tables are declared without types for the time."""
    with contextlib.closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        before = connection.execute("SELECT name, sql FROM sqlite_schema WHERE type = 'table'").fetchall()
        for name, text in before:
            columns = (
                text.partition("(")[2]
                .rpartition(")")[0]
                .replace("CHECK (state IN ('fitted', 'unfitted', 'diverged', 'failed'))", "")
            )
            bare = ", ".join(
                column.strip() if "KEY" in column else column.split()[0]
                for column in columns.replace("PRIMARY KEY (stack, seed, id)", "").split(",")
                if column.strip()
            )
            if name != "members":
                connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (f"CREATE TABLE {name} ({bare})", name))
    with contextlib.closing(sqlite3.connect(folder / FILE, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.execute("PRAGMA writable_schema = ON")
        for name, text in before:
            connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = ?", (text, name))


@pytest.mark.parametrize(("column", "value", "message"), WRONG.values(), ids=WRONG)
def test_a_value_of_a_wrong_type_is_one_line_with_the_id_and_repair_throws_the_row_away(folder, run, column, value, message):
    with Store(folder) as store:
        first, second = sorted(store.frame().id)
    without_types(folder, f"UPDATE networks SET {column} = {value} WHERE id = '{first}'")
    if message is not None:
        with Store(folder) as store, pytest.raises(StoreError, match=rf"\A[^\n]*network '{first}' has [^\n]*{message}[^\n]*\Z"):
            store.frame()
    for command in ("status", "claims", "export"):
        extra = [folder.parent / "rows.csv"] if command == "export" else []
        code, _, errors = run(command, folder, *extra)
        assert code in (0, 2) and errors.count("\n") <= 1, command
    assert run("check", folder)[0] == 1
    check_survey(folder, repair=True)
    with Store(folder) as store:
        assert store.frame().id.tolist() == [second]
        assert store.missing(0) == {first}
    assert check_survey(folder) == []


@pytest.mark.parametrize("column", ["begun_at", "workers", "predicted"])
@pytest.mark.parametrize("value", ["NULL", "'x'", "x'00'"])
def test_a_run_of_wrong_types_is_one_line(folder, run, column, value):
    without_types(folder, f"UPDATE runs SET {column} = {value}")
    code, _, errors = run("status", folder)
    assert code == 2 and "a run has" in errors and f"for its {column}" in errors and errors.count("\n") == 1
    check_survey(folder, repair=True)
    assert run("status", folder)[0] == 0 and check_survey(folder) == []


@pytest.mark.parametrize("column", ["kind", "networks", "seconds"])
@pytest.mark.parametrize("value", ["NULL", "x'00'"])
def test_a_stack_of_wrong_types_is_one_line(folder, run, column, value):
    without_types(folder, f"UPDATE stacks SET {column} = {value}, missing = 1")
    code, _, errors = run("status", folder)
    assert code == 2 and "a stack has" in errors and f"for its {column}" in errors and errors.count("\n") == 1
    check_survey(folder, repair=True)
    assert run("status", folder)[0] == 0
    assert [finding.wrong for finding in check_survey(folder)] == ["2 networks are in no stack: the next run divides them"]


# --- permissions and sizes


def test_files_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        with replacing(tmp_path / "a") as unfinished:
            unfinished.touch(mode=0o600)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_pipe_or_a_device_or_a_large_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(bytes(11))
    (tmp_path / "link").symlink_to(tmp_path / "large")
    for path, message in (
        (tmp_path / "pipe", "no regular file"),
        ("/dev/zero", "no regular file"),
        (tmp_path / "large", "it has 11 bytes, and such a file has at most 10"),
        (tmp_path / "link", "symbolic link"),
    ):
        with pytest.raises(OSError, match=message):
            read_bytes(path, 10)
    assert read_bytes(tmp_path / "link", 11, follow=True) == bytes(11)


def test_a_file_that_went_is_not_taken_up_by_what_sqlite_kept_beside_it(folder, tmp_path):
    """A `-wal` of a file that was removed has rows of that file."""
    with Store(folder) as store:
        store.record(store_row(3))
        shutil.copyfile(folder / f"{FILE}-wal", tmp_path / "wal")
    (folder / FILE).unlink()
    shutil.copyfile(tmp_path / "wal", folder / f"{FILE}-wal")
    with Store.create(folder, SPEC) as new:
        assert new.frame().empty


def store_row(seed):
    network = Configuration("digits", 4, 2, batch_size=50, learning_rate=0.1, steps=1, seed=seed)
    return {"id": network.id, **network.as_dict(), "state": "fitted"}
