"""Changed bytes are seen, a cut file invents no number, what cannot be read is not lost, and a repair may be killed anywhere."""

import contextlib
import itertools
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file

from sensitometer.configuration import Configuration
from sensitometer.errors import InvalidInputError, StoreError
from sensitometer.networks import MLP
from sensitometer.store import Store
from sensitometer.store.arrays import read_arrays, write_arrays
from sensitometer.store.folder import FILE
from sensitometer.store.schema import Member
from sensitometer.survey import run_survey
from sensitometer.survey.checking import check_survey, unvouched
from sensitometer.training import Saver

SEEDS = 60
SPEC = f"""
[survey]
name = "whole"
keep_weights = true
[data]
name = "digits"
[space]
width = [4]
depth = [2]
learning_rate = [0.1]
batch_size = [50]
seed = {list(range(SEEDS))}
[training]
steps = 1
[measure]
points = 4
"""
NETWORKS = [Configuration("digits", 4, 2, batch_size=50, learning_rate=0.1, steps=1, seed=seed) for seed in range(SEEDS)]
NUMBERS = ["id", "seed", "gap", "jacobian_norm", "test_loss", "weights", "error"]


def points(seed):
    stream = np.random.default_rng(seed)
    whole = {name: stream.integers(0, 9, 4).astype("int16") for name in ("points.label", "points.predicted")}
    names = ("confidence", "cross_entropy", "l2_loss", "jacobian_norm", "label_jacobian_norm", "logit_jacobian_norm")
    return {"points.index": np.arange(4, dtype="int32")} | whole | {f"points.{name}": stream.random(4) for name in names}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A survey that is done, of some pages of SQLite, with arrays and weights, made without a run."""
    folder = tmp_path_factory.mktemp("done") / "survey"
    stream = random.Random(0)
    with Store.create(folder, SPEC) as store:
        store.enroll([(NETWORKS[0].kind, 1.0, [Member(network.id, network.seed, 0) for network in NETWORKS])])
        store.begin_run("me", 1)
        for room in ("arrays", "weights"):
            (folder / room).mkdir()
        for network in NETWORKS:
            write_arrays(folder / "arrays" / f"{network.id}.safetensors", points(network.seed))
            MLP([torch.rand(4, 64), torch.rand(10, 4)], "relu").save(folder / "weights" / f"{network.id}.safetensors")
            numbers = {name: stream.random() for name in ("gap", "jacobian_norm", "test_loss")}
            # Some rows are longer than a page.
            error = "x" * 5000 if network.seed % 20 == 7 else None
            row = {"id": network.id, **network.as_dict(), "state": "fitted", "weights": 296, "error": error, **numbers}
            store.record(row, stack=0, measured=1.0)
    return folder


@pytest.fixture
def out(done, tmp_path):
    return shutil.copytree(done, tmp_path / "out")


def make_version_3(folder):
    """Take from a results file what is new since version 3."""
    with contextlib.closing(sqlite3.connect(folder / FILE)) as connection:
        for table in ("networks", "stacks", "runs"):
            connection.execute(f"ALTER TABLE {table} DROP COLUMN digest")
        connection.executescript("DROP TABLE upgrades; PRAGMA user_version = 3")


def frame(folder):
    with Store(folder) as store:
        return store.frame(NUMBERS)


def differs_nowhere(found, expected):
    """Whether each row is one of the rows that were stored, with the same numbers."""
    rows = expected.set_index("id").loc[found.id].reset_index()
    pd.testing.assert_frame_equal(found, rows, check_exact=True, check_dtype=False)


def flipped(file, stream):
    content = bytearray(file.read_bytes())
    content[stream.randrange(len(content))] ^= 1 << stream.randrange(8)
    file.write_bytes(content)


def everything(folder):
    """All that a survey says, or None if it says that it is damaged."""
    try:
        with Store(folder) as store:
            return store.frame().to_csv(), store.stacks(), store.all_members(), store.last_run()
    except StoreError:
        return None


def test_a_survey_that_is_done_is_sound(out):
    assert check_survey(out) == check_survey(out, repair=True) == []
    assert unvouched(out) == []


@pytest.mark.parametrize("flips", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_the_results_file_that_changes_anything_is_reported(out, done, flips):
    stream, whole, told = random.Random(1), (done / FILE).read_bytes(), everything(done)
    changed = 0
    for _ in range(flips):
        (out / FILE).write_bytes(whole)
        flipped(out / FILE, stream)
        now = everything(out)
        if now is not None and now != told:
            changed += 1
            assert check_survey(out) != []
    assert changed > 5


@pytest.mark.parametrize("flips", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_repair_of_a_flipped_bit_leaves_no_number_that_was_not_stored(out, done, flips):
    stream, whole, expected = random.Random(2), (done / FILE).read_bytes(), frame(done)
    for _ in range(flips):
        for path in out.glob(f"{FILE}*"):
            path.unlink()
        (out / FILE).write_bytes(whole)
        flipped(out / FILE, stream)
        try:
            check_survey(out, repair=True)
        except StoreError as error:
            assert "has schema version" in str(error)  # of a later version, perhaps
            continue
        found = frame(out)
        differs_nowhere(found, expected)
        assert len(found) > 0.6 * SEEDS


@pytest.mark.parametrize("flips", [40, pytest.param(400, marks=pytest.mark.slow)])
def test_a_flipped_bit_in_arrays_or_weights_is_reported_and_refused_on_reading(out, flips):
    stream = random.Random(3)
    for room, read in (("arrays", read_arrays), ("weights", MLP.load)):
        file = out / room / f"{NETWORKS[0].id}.safetensors"
        whole = file.read_bytes()
        length = int.from_bytes(whole[:8], "little")
        for _ in range(flips):
            file.write_bytes(whole)
            content = bytearray(whole)
            content[stream.randrange(8 + length, len(whole))] ^= 1 << stream.randrange(8)
            file.write_bytes(content)
            with pytest.raises((StoreError, InvalidInputError), match=r"\A[^\n]*not as it was written\Z"):
                read(file)
        (finding,) = check_survey(out)
        assert finding.wrong.startswith(f"1 network have lost their {room}, such as {NETWORKS[0].id}: ")
        for _ in range(flips):
            file.write_bytes(whole)
            content = bytearray(whole)
            content[stream.randrange(8 + length)] ^= 1 << stream.randrange(8)
            file.write_bytes(content)
            try:
                found = read(file)
            except (StoreError, InvalidInputError):
                continue
            if room == "arrays":
                assert all((found[name] == values).all() for name, values in points(0).items())
        file.write_bytes(whole)


@pytest.mark.parametrize("cuts", [8, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("version", [3, 4])
def test_a_file_that_is_cut_is_repaired_without_a_number_that_was_not_stored(out, done, version, cuts):
    if version == 3:
        make_version_3(out)
    whole, expected = (out / FILE).read_bytes(), frame(done)
    stream = random.Random(4)
    kept = []
    for length in [
        0,
        1,
        100,
        4096,
        4097,
        *(stream.randrange(len(whole)) for _ in range(cuts)),
        len(whole) - 1,
        len(whole) - 4096,
    ]:
        for path in out.glob(f"{FILE}*"):
            path.unlink()
        (out / FILE).write_bytes(whole[:length])
        check_survey(out, repair=True)
        found = frame(out)
        differs_nowhere(found, expected)
        assert all("in no stack: the next run divides them" in finding.wrong for finding in check_survey(out))
        kept.append(len(found))
    assert max(kept) > SEEDS / 2


# --- earlier versions


def test_digests_are_added_to_what_earlier_versions_wrote_and_what_they_cannot_vouch_for_is_said(out):
    make_version_3(out)
    for file in (out / "arrays").iterdir():
        save_file(load_file(file), file)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert check_survey(out) == []
    assert unvouched(out) == [
        "60 rows of an earlier version have no digests: the next run makes them",
        "60 files in arrays of an earlier version have no digests: --repair adds them",
    ]
    assert {path: path.read_bytes() for path in before} == before  # nobody asked for a change
    assert check_survey(out, repair=True) == []
    rows, files = unvouched(out)
    assert rows.startswith("60 rows got digests on ") and rows.endswith(": nothing vouches for what they were before")
    assert files.startswith("60 files in arrays got digests on ")
    with Store(out) as store:
        for name, values in points(NETWORKS[3].seed).items():
            assert (store.arrays(NETWORKS[3].id)[name] == values).all()
    with contextlib.closing(sqlite3.connect(out / FILE)) as connection:
        connection.executescript("UPDATE networks SET gap = gap + 1e-12 WHERE rowid = 9")
    assert [finding.wrong[:31] for finding in check_survey(out)] == ["1 rows are not as they were sto"]


# --- what cannot be read

AS_ANOTHER_USER = """
import os, sys
import sensitometer.survey.checking
from sensitometer.cli import main
os.setuid(65534)
main(sys.argv[1:])
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("what", ["arrays", f"arrays/{NETWORKS[5].id}.safetensors", FILE])
def test_what_may_not_be_read_is_one_line_and_nothing_is_thrown_away(done, what):
    with tempfile.TemporaryDirectory() as shared:  # tmp_path is below a folder that its user alone may enter
        folder = shutil.copytree(done, Path(shared) / "survey")
        Path(shared).chmod(0o755)
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o777 if path.is_dir() else 0o666)
        (folder / what).chmod(0)
        command = [sys.executable, "-c", AS_ANOTHER_USER, "check", str(folder), "--repair"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        assert answer.returncode == 2
        assert answer.stderr.count("\n") == 1 and "Permission denied" in answer.stderr
        (folder / what).chmod(0o700)
        assert len(frame(folder)) == SEEDS
        assert list(folder.glob(f"{FILE}.damaged*")) == []


# --- repairs that are killed


class Killed(BaseException):
    """The process ends here."""


CALLS = ("os.link", "os.rename", "os.replace", "os.unlink", "os.mkdir", "os.rmdir", "shutil.copyfile", "os.fsync")


@pytest.mark.parametrize("wal", [False, True])
def test_a_repair_that_is_killed_between_any_two_changes_has_lost_nothing(done, tmp_path, monkeypatch, wal):
    """Whenever it ends, the next repair finds the old file or the new one, and no run begins the survey anew."""
    expected = frame(done)
    finished = False
    for last in itertools.count():
        folder = tmp_path / f"survey-{last}"
        folder.mkdir()
        shutil.copyfile(done / FILE, folder / FILE)
        (folder / "spec.toml").write_text(SPEC.replace("keep_weights = true", "").replace("points = 4", ""))
        content = (folder / FILE).read_bytes()
        page = 4096 * (len(content) // 8192)
        (folder / FILE).write_bytes(content[:page] + b"\xff" * 4096 + content[page + 4096 :])
        if wal:
            (folder / f"{FILE}-wal").write_bytes(b"rows that were not yet in the file")
        calls = itertools.count()

        def stop_at(real, calls=calls, last=last):
            def call(*arguments, **options):
                if next(calls) == last:
                    raise Killed
                return real(*arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in CALLS:
                module, function = name.split(".")
                module = {"os": os, "shutil": shutil}[module]
                patch.setattr(module, function, stop_at(getattr(module, function)))
            # A killed process tidies nothing up.
            patch.setattr("sensitometer.files.remove", stop_at(lambda path: None))
            try:
                check_survey(folder, repair=True)
                finished = True
            except Killed:
                pass
        # A run would begin the survey anew where none is.
        try:
            assert Store.exists(folder)
        except StoreError as error:
            assert "a repair of" in str(error)
        check_survey(folder, repair=True)
        assert check_survey(folder) == []
        found = frame(folder)
        differs_nowhere(found, expected)
        assert len(found) > SEEDS / 2
        assert (folder / f"{FILE}.damaged").read_bytes() == content[:page] + b"\xff" * 4096 + content[page + 4096 :]
        if finished:
            break
    assert last > 5


def test_no_run_begins_where_a_survey_is_damaged_or_half_repaired(out, tmp_path, refused):
    spec = tmp_path / "spec.toml"
    spec.write_text(SPEC)
    whole = (out / FILE).read_bytes()
    (out / FILE).write_bytes(whole[:8192] + b"\xff" * 4096 + whole[12288:])
    with refused("survey.sqlite is damaged .*: 'sensitometer check .* --repair' keeps what can be read", StoreError):
        run_survey(spec, out)
    (out / FILE).rename(out / f"{FILE}.damaged")
    with refused("holds a damaged survey, survey.sqlite.damaged: rename it to survey.sqlite", StoreError):
        run_survey(spec, out)
    (out / f"{FILE}.repaired").write_bytes(whole)
    with refused("a repair of .* was interrupted: 'sensitometer check .* --repair' ends it", StoreError):
        run_survey(spec, out)
    assert [finding.repair for finding in check_survey(out)] == ["end it"]
    check_survey(out, repair=True)
    assert check_survey(out) == [] and len(frame(out)) == SEEDS


# --- arrays of strangers


def safetensors(header, content=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(header).to_bytes(8, "little") + header + content


def one(kind="F64", shape=(1,), name="paths.random.jacobian_norm", size=8):
    return safetensors({name: {"dtype": kind, "shape": list(shape), "data_offsets": [0, size]}}, b"\1" * size)


STRANGE = {
    "nothing": b"",
    "a scalar": one(shape=()),
    "an empty array": one(shape=(0,), size=0),
    "bfloat16": one("BF16", size=2),
    "an unknown type": one("F8_E4M3", size=1),
    "too many dimensions": one(shape=(1, 1)),
    "one of many": one(),
    "another name": one(name="\x1b[31m"),
    "no numbers at all": safetensors({}),
    "brackets": safetensors(b"[" * 200_000),
    "deep metadata": safetensors(b'{"__metadata__":' + b'{"a":' * 100_000),
    "not UTF-8": safetensors(b'{"\xff": 1}'),
    "a huge shape": one(shape=(2**62, 0), size=0),
    "a huge header": (2**60).to_bytes(8, "little"),
    "digests of nothing": safetensors({"__metadata__": {"digests": "[" * 100_000}}),
}


@pytest.mark.parametrize("content", STRANGE.values(), ids=STRANGE)
def test_arrays_that_no_version_wrote_are_one_line_and_repair_has_them_measured_anew(out, content):
    id_ = NETWORKS[0].id
    (out / "arrays" / f"{id_}.safetensors").write_bytes(content)
    with (
        Store(out) as store,
        pytest.raises(StoreError, match=rf"\A[^\n\x1b]*cannot read the arrays in [^\n\x1b]*{id_}[^\n\x1b]*\Z"),
    ):
        if not store.arrays(id_):
            raise StoreError(f"cannot read the arrays in {id_}: there are none")
    (finding,) = check_survey(out, repair=True)
    assert finding.wrong.startswith(f"1 network have lost their arrays, such as {id_}: ") and finding.wrong.isprintable()
    with Store(out) as store:
        assert store.missing(0) == {id_}


def test_numbers_that_no_measure_gives_are_one_line(out, refused):
    file = out / "arrays" / f"{NETWORKS[0].id}.safetensors"
    write_arrays(file, points(0) | {"points.label": np.array([0, 1, -1, 2], "int16")})
    with refused("cannot read the arrays in .*: 'points.label' has negative numbers", StoreError):
        read_arrays(file)
    slice_ = {"slice.images": np.zeros((3, 1, 2, 2), "uint8"), "slice.labels": np.zeros(3, "int16")}
    write_arrays(file, slice_ | {"slice.anchors": np.full((3, 2), np.nan)})
    with refused("cannot read the arrays in .*: 'slice.anchors' has places that are no numbers", StoreError):
        read_arrays(file)
    (finding,) = check_survey(out)
    assert finding.wrong.endswith("'slice.anchors' has places that are no numbers")


@pytest.mark.parametrize("room", ["arrays", "weights"])
@pytest.mark.parametrize(
    "make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero"), Path.mkdir], ids=["pipe", "link", "folder"]
)
def test_what_is_no_file_is_not_waited_for(out, room, make):
    file = out / room / f"{NETWORKS[0].id}.safetensors"
    file.unlink()
    make(file)
    read = read_arrays if room == "arrays" else MLP.load
    with pytest.raises((StoreError, InvalidInputError), match="no regular file"):
        read(file)
    (finding,) = check_survey(out)
    assert finding.wrong.endswith(": it is no file")


def test_a_saved_state_that_is_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "state")
    with pytest.warns(UserWarning, match="no regular file"):
        assert Saver(tmp_path / "state", 1.0).load() is None
