import contextlib
import math
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sensitometer.configuration import FIELDS, Configuration
from sensitometer.errors import StoreError
from sensitometer.store import SPECIFICATION, Store, open_survey
from sensitometer.store.schema import COLUMNS, CONFIGURATION_COLUMNS, FILE, SCHEMA_VERSION, STATES, Member, Run, Stack, Upgrade

NOISE = random.Random(0)
SPEC = '[survey]\nname = "über"\n'


def ids(store):
    return {id_ for (id_,) in store.rows(["id"])}


def row(seed=1, state="fitted", **changes):
    configuration = Configuration("mnist", 10, 2, seed=seed)
    return {"id": configuration.id, **configuration.as_dict(), "state": state, **changes}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "some" / "survey"


@pytest.fixture
def store(folder):
    with Store.create(folder, SPEC) as store:
        yield store


@pytest.fixture
def fails(refused):
    """Expect a StoreError of one line."""
    return lambda expected: refused(expected, error=StoreError)


# --- create and open


def test_created_survey_can_be_opened(folder):
    assert not Store.exists(folder)
    Store.create(folder, SPEC).close()
    assert Store.exists(folder)
    with open_survey(str(folder)) as store:
        assert store.specification == SPEC
        assert ids(store) == set()
        assert store.counts() == dict.fromkeys(STATES, 0)
        assert store.frame().empty
    assert sorted(path.name for path in folder.iterdir()) == [SPECIFICATION, FILE]


def test_survey_is_created_once_and_the_first_stays(fails, folder, store):
    with fails(f"there is a survey in {folder} already"):
        Store.create(folder, "other")
    assert store.specification == SPEC


def test_creation_that_was_killed_is_no_survey_and_can_be_done_again(fails, folder):
    folder.mkdir(parents=True)
    for suffix in ("", "-wal", "-shm", "-journal"):
        (folder / f"{FILE}.new{suffix}").write_bytes(NOISE.randbytes(5000))
    with fails("no survey in"):
        Store(folder)
    with Store.create(folder, SPEC) as store:
        store.record(row())
        assert store.counts()["fitted"] == 1


@pytest.mark.parametrize("missing", ["missing", "file", "file/below"])
def test_folder_without_a_survey_is_refused(fails, tmp_path, missing):
    (tmp_path / "file").touch()
    assert not Store.exists(tmp_path / missing)
    with fails(f"no survey in .*{missing}: expected the file {FILE}, which 'sensitometer run SPEC --out DIR' makes"):
        Store(tmp_path / missing)


@pytest.mark.parametrize("unwritable", ["file", "file/below"])
def test_folder_that_cannot_be_written_is_refused(fails, tmp_path, unwritable):
    (tmp_path / "file").touch()
    with fails(f"cannot write to .*{unwritable}: (Not a directory|File exists)"):
        Store.create(tmp_path / unwritable, SPEC)


def test_folder_in_place_of_the_file_is_refused(fails, folder):
    (folder / FILE).mkdir(parents=True)
    with fails(f"{folder / FILE} must be a file; got a folder: remove it"):
        Store.create(folder, SPEC)


def damaged(change):
    def damage(file):
        content = file.read_bytes()
        file.write_bytes(change(content))

    return damage


DAMAGE = {
    "random bytes": damaged(lambda content: NOISE.randbytes(len(content))),
    "one byte": damaged(lambda content: b"x"),
    "header lost": damaged(lambda content: bytes(100) + content[100:]),
    "cut to the header": damaged(lambda content: content[:100]),
    "cut in the middle": damaged(lambda content: content[: len(content) // 2 + 17]),
    "pages overwritten": damaged(lambda content: content[:4096] + NOISE.randbytes(len(content) - 4096)),
    "empty": damaged(lambda content: b""),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_file_is_refused_or_its_reading_is(fails, folder, damage):
    with Store.create(folder, SPEC) as store:
        for seed in range(100):
            store.record(row(seed, error="x" * 500))
    damage(folder / FILE)

    def read():
        with Store(folder) as store:
            store.frame()
            store.counts()
            ids(store)

    with fails(f"{folder / FILE}"):
        read()


# The tables and columns that earlier versions lacked.
_WITHOUT_DIGESTS = "ALTER TABLE networks DROP COLUMN digest; DROP TABLE upgrades"
_OLD_RUNS = "DROP TABLE runs; CREATE TABLE runs (begun_at REAL NOT NULL) STRICT; INSERT INTO runs VALUES (7.0)"
EARLIER = {
    1: f"{_WITHOUT_DIGESTS}; DROP TABLE stack_sizes; DROP TABLE stacks; DROP TABLE members; {_OLD_RUNS}",
    2: f"{_WITHOUT_DIGESTS}; DROP TABLE stacks; DROP TABLE members; INSERT INTO stack_sizes VALUES ('old', 2, 1.0); {_OLD_RUNS}",
    3: f"{_WITHOUT_DIGESTS}; ALTER TABLE stacks DROP COLUMN digest; ALTER TABLE runs DROP COLUMN digest; "
    "INSERT INTO stack_sizes VALUES ('old', 2, 1.0)",
}


def make_earlier_version(folder, version):
    with contextlib.closing(sqlite3.connect(folder / FILE)) as connection:
        connection.executescript(f"{EARLIER[version]}; PRAGMA user_version = {version}")


@pytest.mark.parametrize("version", EARLIER)
def test_a_file_of_an_earlier_version_is_read_and_gone_on_with(folder, store, version):
    store.record(row(1))
    store.close()
    make_earlier_version(folder, version)
    before = (folder / FILE).read_bytes()
    with Store(folder) as old:
        assert ids(old) == {row(1)["id"]}
        assert old.stack_sizes() == ({} if version == 1 else {"old": 2})
        assert old.last_run() is None
        assert old.stacks() == []
        assert old.upgrades() == [Upgrade(version, None, 1)]
        assert (folder / FILE).read_bytes() == before  # it was only read
        old.enroll([("kind", 2.0, [member(1), member(2)])])
        old.begin_run("me", 1)
        old.record(row(2), stack=0)
    with Store(folder) as again:
        assert len(ids(again)) == 2
        assert again.stacks() == [Stack(0, "kind", 2, 0, 2.0, None)]
        assert again.last_run().networks == 1
        ((before, at, networks),) = again.upgrades()
        assert (before, networks) == (version, 1) and at > 0
        assert [sound for table in ("networks", "stacks", "runs") for _, sound, _ in again.verified(table)] == [True] * 4


# --- stacks


def member(seed, place=0):
    return Member(row(seed)["id"], seed, place)


def test_stacks_come_back_as_they_were_enrolled_and_are_numbered_on(store):
    store.enroll([("a", 3.0, [member(2), member(1, place=7)]), ("b", 0.5, [member(3)])])
    assert store.stacks() == [Stack(0, "a", 2, 2, 3.0, None), Stack(1, "b", 1, 1, 0.5, None)]
    assert store.members(0) == [member(1, place=7), member(2)]
    store.enroll([("c", 1.0, [member(4)])])
    assert [stack.number for stack in store.stacks()] == [0, 1, 2]
    assert {one.id for one in store.all_members()} == {row(seed)["id"] for seed in (1, 2, 3, 4)}


def test_what_is_stored_is_missing_no_more(store):
    store.record(row(1))
    store.enroll([("a", 3.0, [member(1), member(2), member(3)]), ("b", 0.5, [member(4)])])
    assert [stack.missing for stack in store.stacks()] == [2, 1]
    assert store.missing(0) == {row(2)["id"], row(3)["id"]}
    store.record(row(3), stack=0)
    assert store.missing(0) == {row(2)["id"]}
    store.record(row(2), stack=0)
    assert [stack.number for stack in store.stacks(missing=True)] == [1]


def test_a_stack_is_stored_whole_or_not_at_all(store, fails):
    store.enroll([("a", 3.0, [member(1), member(2)])])
    store.begin_run("me", 1)
    with fails("cannot store 2 networks in .*: UNIQUE constraint failed"):
        store.record(row(1), row(1), stack=0, measured=1.0)
    assert ids(store) == set()
    assert store.stacks()[0].missing == 2
    assert store.last_run().networks == 0


@pytest.mark.parametrize(("networks", "halves"), [(1, [1]), (2, [1, 1]), (5, [3, 2])])
def test_a_stack_is_divided_into_halves_and_a_single_network_is_not(store, networks, halves):
    members = [member(seed) for seed in range(networks)]
    store.enroll([("a", 10.0, members), ("b", 1.0, [member(100)])])
    found = store.divide(store.stacks()[0], "a worker died")
    assert [stack.networks for stack in found] == [stack.missing for stack in found] == halves
    assert {stack.accident for stack in found} == {"a worker died"}
    assert sum(stack.seconds for stack in found) == 10.0
    assert [one for stack in found for one in store.members(stack.number)] == members
    assert [stack.number for stack in store.stacks()] == [1, *(stack.number for stack in found)]
    assert len(store.all_members()) == networks + 1


def test_a_half_of_which_nothing_is_missing_is_not_returned(store):
    members = [member(seed) for seed in range(2)]
    store.record(row(0))
    store.enroll([("a", 10.0, members)])
    found = store.divide(store.stacks()[0], "a worker died")
    assert [store.members(stack.number) for stack in found] == [[member(1)]]


def test_failures_are_counted_by_reason(store):
    for seed, error in enumerate(["a", "b", "b", None]):
        store.record(row(seed, "failed", error=error))
    assert store.failures() == {"b": 2, "a": 1, "no reason": 1}


def test_a_full_disk_is_one_line_and_what_was_stored_stays(store, fails):
    store.record(row(1))
    store._connection.execute("PRAGMA max_page_count = 1")
    with fails(f"cannot store .* in .*{FILE}: database or disk is full"):
        for seed in range(2, 200):
            store.record(row(seed, error="x" * 1000))
    stored = ids(store)
    assert row(1)["id"] in stored
    store._connection.execute("PRAGMA max_page_count = 100000")
    store.record(row(1000))
    assert ids(store) == stored | {row(1000)["id"]}


def test_a_writer_that_never_ends_is_not_waited_for_without_end(store, fails, monkeypatch):
    monkeypatch.setattr("sensitometer.store.schema.TIMEOUT", 0.1)
    other = sqlite3.connect(store.folder / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store(store.folder) as waiting, fails("cannot store network .*: database is locked"):
        waiting.record(row(1))
    other.execute("ROLLBACK")
    other.close()
    store.record(row(1))


def test_a_specification_is_replaced_whole(store):
    store.write_specification("new")
    assert store.specification == "new"
    assert sorted(path.name for path in store.folder.iterdir() if "sqlite-" not in path.name) == [SPECIFICATION, FILE]


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1])
def test_another_schema_version_is_refused(fails, folder, version):
    Store.create(folder, SPEC).close()
    connection = sqlite3.connect(folder / FILE)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    with fails(f"{FILE} has schema version {version}; this version of Sensitometer reads {SCHEMA_VERSION}"):
        Store(folder)


def test_another_programs_database_is_refused(fails, folder):
    folder.mkdir(parents=True)
    connection = sqlite3.connect(folder / FILE)
    connection.executescript(f"CREATE TABLE cakes (name); PRAGMA user_version = {SCHEMA_VERSION}")
    connection.close()
    with fails(f"{FILE} is damaged, or no survey's: no version of Sensitometer made its table 'cakes'"):
        Store(folder)


@pytest.mark.parametrize(
    "change", [lambda path: path.unlink(), lambda path: path.write_bytes(b"\xff")], ids=["lost", "not UTF-8"]
)
def test_specification_that_cannot_be_read_is_refused(fails, folder, store, change):
    change(folder / SPECIFICATION)
    with fails(f"cannot read .*{SPECIFICATION}"):
        _ = store.specification


# --- record


def test_row_comes_back_as_it_was_stored(store):
    full = row(
        train_accuracy=1.0,
        test_accuracy=0.75,
        gap=0.25,
        train_loss=1e-300,
        test_loss=math.inf,
        jacobian_norm=0.1,
        weights=2**40,
        steps_done=7,
        error="a\nb",
        host="ä",
    )
    before = time.time()
    store.record(full)
    frame = store.frame()
    assert tuple(frame.columns) == tuple(COLUMNS)
    (stored,) = frame.to_dict("records")
    assert before <= stored.pop("stored_at") <= time.time()
    for name, value in stored.items():
        if name in full:
            assert value == full[name]
        else:
            assert value is None or math.isnan(value)


def test_configuration_columns_are_the_configurations_fields():
    assert tuple(CONFIGURATION_COLUMNS) == FIELDS


def test_what_was_not_measured_is_null_and_numbers_stay_numbers(store):
    store.record(row(1))
    store.record(row(2, gap=math.nan))
    frame = store.frame()
    for name in ("gap", "jacobian_norm", "train_loss", "transitions"):
        assert frame[name].dtype == "float64"
        assert frame[name].isna().all()


def test_columns_of_an_empty_survey_have_types(store):
    frame = store.frame(["id", "gap"])
    assert list(frame.columns) == ["id", "gap"]
    assert frame["gap"].dtype == "float64"


def test_settings_that_do_not_apply_may_be_null(store):
    store.record(row(learning_rate=None, batch_size=None))
    assert store.frame()["learning_rate"].isna().all()


def test_rows_come_in_the_order_of_their_ids_whatever_the_order_of_storing(store):
    rows = [row(seed) for seed in range(20)]
    for one in sorted(rows, key=lambda one: one["seed"] % 7):
        store.record(one)
    frame = store.frame(["seed", "id"])
    assert list(frame.columns) == ["seed", "id"]
    assert frame["id"].tolist() == sorted(one["id"] for one in rows)
    assert ids(store) == {one["id"] for one in rows}


def test_counts_name_every_state(store):
    for seed, state in enumerate(["fitted", "failed", "fitted", "diverged"]):
        store.record(row(seed, state))
    assert store.counts() == {"fitted": 2, "unfitted": 0, "diverged": 1, "failed": 1}


def test_second_record_of_a_network_is_refused_and_the_first_stays(fails, store):
    store.record(row(gap=0.5))
    with fails(f"cannot store network {row()['id']} in .*{FILE}: UNIQUE constraint failed: networks.id"):
        store.record(row(gap=0.7))
    assert store.frame()["gap"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"colour": "red"}, "a network has no column 'colour'; the columns are id, dataset, width"),
        ({"state": "great"}, "cannot store network .*: CHECK constraint failed"),
        ({"seed": "two"}, "cannot store network .*: cannot store TEXT value in INTEGER column networks.seed"),
        ({"width": None}, "cannot store network .*: NOT NULL constraint failed: networks.width"),
        ({"id": None}, "cannot store network None .*: NOT NULL constraint failed: networks.id"),
        ({"gap": [1.0]}, "cannot store network .*: .* type 'list' is not supported"),
        ({"seed": 2**63}, "cannot store network"),
    ],
)
def test_row_that_does_not_fit_is_refused_whole(fails, store, change, expected):
    with fails(expected):
        store.record({**row(), **change})
    assert ids(store) == set()
    store.record(row())
    assert len(ids(store)) == 1


def test_row_that_lacks_a_setting_is_refused(fails, store):
    with fails("NOT NULL constraint failed"):
        store.record({"id": "a", "state": "fitted"})


@pytest.mark.parametrize("columns", [["id", "colour"], ["colour"], ["id; DROP TABLE networks"]])
def test_unknown_column_is_refused(fails, store, columns):
    with fails(f"a network has no column '{columns[-1]}'; the columns are id, "):
        store.frame(columns)


def test_last_run_is_what_was_stored_since_it_began(store, monkeypatch):
    now = 1000.0
    monkeypatch.setattr("sensitometer.store.store.time.time", lambda: now)
    store.enroll([("a", 2.0, [member(1)]), ("b", 3.0, [member(2), member(3)])])
    assert store.last_run() is None
    for number, begun in enumerate((2000.0, 3000.0)):
        now = begun
        store.begin_run("me", 2)
        assert store.last_run() == Run(begun, "me", 2, 0, 0.0, 0.0, begun)
        now += 4
        store.record(*(row(int(begun) + seed) for seed in range(number + 1)), stack=number, measured=7.0)
        now += 100
        assert store.last_run() == Run(begun, "me", 2, number + 1, 2.0 + number, 7.0, begun + 4)


def test_closed_store_is_refused(fails, folder):
    store = Store.create(folder, SPEC)
    store.close()
    with fails("cannot read .*closed"):
        ids(store)
    with fails("cannot store .*closed"):
        store.record(row())


# --- several processes

WRITER = """
import itertools, sys
from sensitometer.configuration import Configuration
from sensitometer.store import Store
store = Store(sys.argv[1])
for seed in itertools.count():
    configuration = Configuration("mnist", 10, 2, seed=seed)
    store.record({"id": configuration.id, **configuration.as_dict(), "state": "fitted", "error": "x" * 3000})
    print(configuration.id, flush=True)
"""


@pytest.fixture
def writer(folder):
    """A process that stores rows without end, and prints the id of each when it is stored."""
    Store.create(folder, SPEC).close()
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_killing_the_writer_loses_no_stored_row(folder, writer):
    printed = [writer.stdout.readline().strip() for _ in range(300)]
    writer.send_signal(signal.SIGKILL)
    printed += [line.strip() for line in writer.stdout if line.endswith("\n")]
    writer.wait()
    with Store(folder) as store:
        stored = ids(store)
        assert len(printed) >= 300
        assert set(printed) <= stored
        assert len(stored) <= len(printed) + 1  # one may be stored and not yet printed
        assert set(store.frame()["error"]) == {"x" * 3000}
        store.record(row(seed=10**6))
        assert len(ids(store)) == len(stored) + 1


def test_reader_goes_on_while_another_process_writes(folder, writer):
    with Store(folder) as store:
        counts = []
        for _ in range(20):
            printed = {writer.stdout.readline().strip() for _ in range(5)}
            assert printed <= ids(store)
            frame = store.frame(["id", "state", "error"])
            assert frame.notna().all().all()
            counts.append(len(frame))
        assert counts == sorted(counts)
        assert counts[-1] >= 100
    assert writer.poll() is None


def test_writer_waits_for_another_one(folder, writer):
    with Store(folder) as store:
        for seed in range(10**6, 10**6 + 20):
            store.record(row(seed))
            writer.stdout.readline()
        assert {row(seed)["id"] for seed in range(10**6, 10**6 + 20)} <= ids(store)
    assert writer.poll() is None


def test_reader_that_takes_its_time_does_not_hold_up_the_writer(folder, store):
    store.record(row(0))
    reader = sqlite3.connect(folder / FILE, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM networks").fetchone() == (1,)
    store.record(row(1))
    assert reader.execute("SELECT count(*) FROM networks").fetchone() == (1,)
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM networks").fetchone() == (2,)
    reader.close()


READ_AS_ANOTHER_USER = """
import os, sys
import pandas
from sensitometer.store import Store
os.setuid(65534)
survey = Store(sys.argv[1])
print(len(survey.frame()), len(survey.stacks()), survey.last_run())
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("version", [*EARLIER, SCHEMA_VERSION])
def test_survey_of_another_user_can_be_read(version):
    with tempfile.TemporaryDirectory() as shared:  # tmp_path is below a folder that its user alone may enter
        with Store.create(shared, SPEC) as store:
            store.record(row())
        if version in EARLIER:
            make_earlier_version(Path(shared), version)
        Path(shared).chmod(0o555)
        command = [sys.executable, "-c", READ_AS_ANOTHER_USER, shared]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == "1 0 None", answer.stderr.splitlines()[-1:]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_another_user_sees_what_was_just_written():
    with tempfile.TemporaryDirectory() as shared, Store.create(shared, SPEC) as store:
        store.record(row())  # beside the file, until it is closed
        assert (Path(shared) / f"{FILE}-wal").stat().st_size
        Path(shared).chmod(0o555)
        command = [sys.executable, "-c", READ_AS_ANOTHER_USER, shared]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == "1 0 None", answer.stderr.splitlines()[-1:]


def test_copy_of_the_folder_is_the_survey(tmp_path, folder):
    with Store.create(folder, SPEC) as store:
        store.record(row())
    shutil.copytree(folder, tmp_path / "copy")
    with Store(tmp_path / "copy") as copy:
        assert ids(copy) == {row()["id"]}
