"""Folders that are not sound: what is found, what is mended, and what the next run makes of it."""

import contextlib
import random
import shutil
import sqlite3

import pandas as pd
import pytest
import torch

from sensitometer.errors import StoreError
from sensitometer.networks import MLP
from sensitometer.store import Store
from sensitometer.store.schema import FILE
from sensitometer.survey.checking import check_survey
from sensitometer.survey.runner import only_writer
from sensitometer.survey.spec import parse_spec

from .conftest import SMALL
from .test_run import run_with_fakes

NOISE = random.Random(0)
LARGER = SMALL.replace("seed = [1, 2]", f"seed = {list(range(1, 13))}")
# Columns that are the same whenever and wherever a worker that trains nothing makes the row.
SAME = ["id", "width", "seed", "state", "gap"]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder of a survey that is done, by workers that train nothing."""
    folder = tmp_path_factory.mktemp("done") / "out"
    run_with_fakes(LARGER, folder)
    return folder


@pytest.fixture
def out(done, tmp_path):
    return shutil.copytree(done, tmp_path / "out")


def sql(folder, *statements):
    with contextlib.closing(sqlite3.connect(folder / FILE)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def wrong(folder, **options):
    return [finding.wrong for finding in check_survey(folder, **options)]


def test_a_sound_survey_has_no_findings_and_is_left_alone(out):
    before = (out / FILE).read_bytes()
    assert check_survey(out) == check_survey(out, repair=True) == []
    assert sorted(path.name for path in out.iterdir() if "sqlite-" not in path.name) == ["run.lock", "spec.toml", FILE]
    assert (out / FILE).read_bytes() == before


def test_a_folder_without_a_survey_is_refused(tmp_path, refused):
    with refused("no survey in", StoreError):
        check_survey(tmp_path)


def test_nothing_is_repaired_while_a_run_is_writing(out, refused):
    with only_writer(out), refused("is writing to .*out", StoreError):
        check_survey(out, repair=True)
    with only_writer(out):
        assert check_survey(out) == []


TROUBLES = {
    "a row that was changed": (
        ["UPDATE networks SET width = 77 WHERE rowid = 5"],
        r"1 rows are not as they were stored, such as [0-9a-f]{16}",
    ),
    "a number that was changed": (
        ["UPDATE networks SET gap = gap + 1e-9 WHERE rowid = 5"],
        r"1 rows are not as they were stored, such as [0-9a-f]{16}",
    ),
    "a prediction that was changed": (
        ["UPDATE stacks SET seconds = seconds * 1.001 WHERE number = 5"],
        "the division into stacks is damaged: 1 stack are not as they were stored",
    ),
    "a run that was changed": (["UPDATE runs SET workers = NULL"], "what is stored of 1 run is not as it was stored"),
    "a row that was lost": (["DELETE FROM networks WHERE rowid = 5"], "the missing networks of 1 stacks are miscounted"),
    "a count that is wrong": (["UPDATE stacks SET missing = 3 WHERE number = 2"], "networks of 1 stacks are miscounted"),
    "a member that was lost": (
        ["DELETE FROM members WHERE id IN (SELECT id FROM members WHERE stack = 3 LIMIT 2)"],
        "of 382 networks, where it says 384, 0 are not what the survey asks for",
    ),
    "a stack that was lost": (
        ["DELETE FROM stacks WHERE number = 3"],
        "of 384 networks, where it says 376, 0 are not what the survey asks for",
    ),
    "members in each other's places": (
        ["UPDATE members SET place = (place + 1) % 16 WHERE stack = 3"],
        "of 384 networks, where it says 384, 8 are not what the survey asks for",
    ),
    "no division": (["DELETE FROM stacks", "DELETE FROM members"], "384 networks are in no stack: the next run divides them"),
}


@pytest.mark.parametrize(("statements", "message"), TROUBLES.values(), ids=TROUBLES)
def test_what_is_wrong_is_found_mended_and_trained_again(out, done, statements, message):
    sql(out, *statements)
    (finding,) = check_survey(out)
    assert pd.Series([finding.wrong]).str.contains(message).all()
    assert [one.wrong for one in check_survey(out)] == [finding.wrong]  # it was not mended
    check_survey(out, repair=True)
    frame, _ = run_with_fakes(LARGER, out)
    assert check_survey(out) == []
    with Store(done) as store:
        pd.testing.assert_frame_equal(frame[SAME], store.frame()[SAME])


def test_networks_that_change_their_places_are_trained_no_more(out, refused):
    sql(out, "DELETE FROM networks", "UPDATE stacks SET missing = networks", "UPDATE members SET place = (place + 1) % 16")
    with refused(
        "the stored division into stacks is not one of this specification: 'sensitometer check DIR' says more", StoreError
    ):
        run_with_fakes(LARGER, out)
    check_survey(out, repair=True)
    assert len(run_with_fakes(LARGER, out)[0]) == 384


def test_rows_of_other_networks_are_named_and_kept(out):
    small = LARGER.replace("width = [4, 12]", "width = [4]")
    (out / "spec.toml").write_text(small)
    found = wrong(out)
    assert found[0].startswith("192 rows are of networks that the survey does not ask for, such as ")
    with Store(out) as store:
        assert len(store.frame(["id"])) == 384


def test_a_specification_that_is_damaged_is_named(out):
    (out / "spec.toml").write_text("[survey")
    (found,) = wrong(out, repair=True)
    assert "spec.toml is not TOML" in found
    assert found.endswith("it must be put back as it was")


def test_weights_that_are_missing_are_trained_again(out):
    text = LARGER.replace('name = "small"', 'name = "small"\nkeep_weights = true')
    (out / "spec.toml").write_text(text)
    ids = [one.id for one in parse_spec(text, "test").configurations()]
    (out / "weights").mkdir()
    for id_ in ids[2:]:
        MLP([torch.zeros(2, 3)], "relu").save(out / "weights" / f"{id_}.safetensors")
    whole = (out / "weights" / f"{ids[5]}.safetensors").read_bytes()
    for id_, content in zip(ids[2:5], (b"", whole[:-1], NOISE.randbytes(100)), strict=True):
        (out / "weights" / f"{id_}.safetensors").write_bytes(content)
    (found,) = wrong(out, repair=True)
    assert found.startswith(f"5 networks have lost their weights, such as {min(ids[:5])}: ")
    with Store(out) as store:
        assert set(store.frame(["id"])["id"]) == set(ids[5:])
        assert sum(stack.missing for stack in store.stacks()) == 5


def test_what_killed_processes_left_is_removed(out):
    # The name of one that was killed is no lock.
    (out / "run.owner").write_text("process 1 on here")
    (out / "run.lock").touch()
    ours = (
        ".sensitometer-salvage-abc/x",
        "spec.toml.sensitometer-new/spec.toml",
        "arrays/0123456789abcdef.safetensors.sensitometer-new/x",
        "figures/figure_1.png.sensitometer-new/x",
        "saved/0123456789abcdef.safetensors",
        "saved/0123456789abcdef.safetensors.new",
        "weights/0123456789abcdef.safetensors.new",
    )
    # A user may have given these.
    others = (
        *("spec.toml.new", "survey.sqlite.new", "analysis.new_idea/x", "notes.newest.md", "figures/mine.new"),
        *("saved/notes.md", "weights/best.safetensors.new", ".salvage-list", "figures/.figures-of-mine"),
    )
    for name in (*ours, *others):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x")
    (found,) = wrong(out)
    names = found.removeprefix("7 files are left over from a process that was killed: ").split(", ")
    assert sorted(names) == sorted(
        name.removesuffix("/x").removesuffix("new/spec.toml") + "new" * ("new/s" in name) for name in ours
    )
    check_survey(out, repair=True)
    assert check_survey(out) == []
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and "sqlite-" not in path.name}
    assert there == {*others, FILE, "spec.toml", "run.lock"}


def overwritten(content, start, count):
    return content[:start] + NOISE.randbytes(count) + content[start + count :]


DAMAGE = {
    "no header": (lambda content: overwritten(content, 0, 100), 384, 384),
    "no first page": (lambda content: overwritten(content, 0, 4096), 384, 384),
    "random bytes": (lambda content: NOISE.randbytes(len(content)), 0, 0),
    "empty": (lambda content: b"", 0, 0),
    "a cut": (lambda content: content[: len(content) // 2 + 17], 50, 383),
    "a page": (lambda content: overwritten(content, 4096 * (len(content) // 8192), 4096), 300, 384),
    "the second half": (lambda content: overwritten(content, len(content) // 2, len(content) // 2), 50, 383),
}


@pytest.mark.parametrize(("damage", "least", "most"), DAMAGE.values(), ids=DAMAGE)
def test_what_can_be_read_of_a_damaged_file_is_kept_and_the_rest_trained_again(out, done, damage, least, most):
    content = damage((out / FILE).read_bytes())
    for path in out.glob(f"{FILE}*"):
        path.unlink()
    (out / FILE).write_bytes(content)
    found = check_survey(out)
    assert "is damaged (" in found[0].wrong
    assert (out / FILE).read_bytes() == content
    check_survey(out, repair=True)
    assert (out / f"{FILE}.damaged").read_bytes() == content
    with Store(out) as store, Store(done) as whole:
        kept = store.frame()
        expected = whole.frame().set_index("id").loc[kept.id].reset_index()
        assert least <= len(kept) <= most
        pd.testing.assert_frame_equal(kept[SAME], expected[SAME], check_dtype=False)
    frame, _ = run_with_fakes(LARGER, out)
    with Store(done) as whole:
        pd.testing.assert_frame_equal(frame[SAME], whole.frame()[SAME])
    assert check_survey(out) == []


def test_a_file_that_is_cut_anywhere_never_ends_in_anything_but_findings(out):
    content = (out / FILE).read_bytes()
    for path in out.glob(f"{FILE}*"):
        path.unlink()
    for length in range(1, len(content), 4999):
        (out / FILE).write_bytes(content[:length])
        assert "is damaged (" in wrong(out)[0]
    check_survey(out, repair=True)
    (out / FILE).write_bytes(b"")
    check_survey(out, repair=True)
    assert {path.name for path in out.glob(f"{FILE}.damaged*")} == {f"{FILE}.damaged", f"{FILE}.damaged-2"}
