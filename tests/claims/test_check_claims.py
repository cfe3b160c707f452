"""All claims together: on any survey, and by the command."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import MEASURES, Survey, ellipses, measured, network, on_slice, related, single_points

from sensitometer.claims import DOES_NOT_HOLD, HOLDS, NOT_ENOUGH_DATA, check_claims
from sensitometer.errors import InvalidInputError
from sensitometer.store import ARRAYS, Store
from sensitometer.store.arrays import write_arrays

# --- any survey


def test_a_frame_that_lacks_a_column_is_refused(refused):
    class Lacking(Survey):
        def frame(self, columns):
            return super().frame(columns).drop(columns="transitions")

    with refused("the frame must have the column transitions", error=InvalidInputError):
        check_claims(Lacking([]))


NUMBERS = st.one_of(st.none(), st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf]), st.floats(allow_nan=True))
NETWORKS = st.fixed_dictionaries(
    {
        "dataset": st.sampled_from(["mnist", "digits"]),
        "width": st.integers(1, 3),
        "depth": st.integers(2, 3),
        "activation": st.sampled_from(["relu", "hardsigmoid", "tanh"]),
        "optimizer": st.sampled_from(["momentum", "lbfgs"]),
        "labels": st.sampled_from(["true", "random"]),
        "augmentation": st.sampled_from(["none", "shift-flip", "shift-flip-rotate"]),
        "seed": st.integers(1, 2),
        "state": st.sampled_from(["fitted", "fitted", "unfitted", "diverged", "failed"]),
        **dict.fromkeys(MEASURES, NUMBERS),
    }
)


VALUES = st.sampled_from([0.0, 1e-300, 1.0, 1e300, math.inf, math.nan])


@st.composite
def kept(draw):
    """Arrays of one kind or of several, of whatever values, in few bins or in many."""
    arrays = draw(st.sampled_from([ellipses(), on_slice(), single_points(), ellipses() | on_slice() | single_points()]))
    floats = {name: values for name, values in arrays.items() if values.dtype.kind == "f"}
    changed = {name: np.where(np.arange(len(values)) % 2, values, draw(VALUES)) for name, values in floats.items()}
    whole = draw(
        st.sampled_from([floats, changed, {name: np.full(len(values), draw(VALUES)) for name, values in floats.items()}])
    )
    if draw(st.booleans()):
        whole = {name: values[:3] if name.startswith("paths.") else values for name, values in whole.items()}
    return arrays | whole


@given(st.lists(NETWORKS, max_size=30), st.booleans(), st.booleans(), st.lists(kept(), max_size=30))
@settings(max_examples=20)
def test_no_survey_raises(rows, failed, one_configuration, arrays):
    rows = [network(**row) for row in rows]
    for seed, row in enumerate(rows):
        if failed:
            row.update(state="failed", **dict.fromkeys(MEASURES))
        if one_configuration:
            row.update(width=1, depth=2, activation="relu", optimizer="lbfgs", labels="true", augmentation="none", seed=seed)
    found = check_claims(Survey(rows, dict(zip((row["id"] for row in rows), arrays, strict=False))))
    assert {claim.number for claim in found} == {1, 2, 3, 4, 5, 6}
    for claim in found:
        assert claim.verdict in (HOLDS, DOES_NOT_HOLD, NOT_ENOUGH_DATA)
        assert claim.statement
        assert claim.reason
        assert not (failed and claim.verdict != NOT_ENOUGH_DATA)
        json.dumps(claim.as_dict(), allow_nan=False)


# --- the command


@pytest.fixture
def folder(tmp_path):
    with Store.create(tmp_path / "survey", '[survey]\nname = "made up"\n') as store:
        store.record(*related(0.9, 0.1, 60))
    return tmp_path / "survey"


def test_the_command_prints_a_table(folder, run):
    status, printed, errors = run("claims", folder)
    assert (status, errors) == (0, "")
    header, *lines = printed.splitlines()
    assert header.split() == ["claim", "statistic", "value", "95%", "interval", "threshold", "verdict"]
    assert len(lines) == 2 * (3 + 13 + 2)
    row = next(position for position, line in enumerate(lines) if line.startswith("4  mnist: Jacobian norm"))
    assert lines[row].split()[-3:] == ["above", "0", "holds"]
    places = [header.index(name) for name in ("statistic", "threshold", "verdict")]
    assert [lines[row].index(text) for text in ("Kendall's tau", "above 0", "holds")] == places
    assert lines[row + 1] == "   the gap rises with the Jacobian norm (120 networks of 60 configurations)"


def test_the_command_prints_json(folder, run):
    status, printed, errors = run("claims", folder, "--json")
    assert (status, errors) == (0, "")
    found = json.loads(printed)
    keys = ["claim", "subject", "quantity", "statement", "statistic", "value", "low", "high", "method", "threshold", "side"]
    keys += ["unit", "count", "configurations", "verdict", "reason"]
    assert all(list(one) == keys for one in found)
    assert [one["claim"] for one in found] == [1, 2, *[3] * 13, 4, 5, 6]
    assert found[0]["value"] is None
    assert found[15]["verdict"] == HOLDS


def test_the_command_reads_the_arrays_that_are_kept(tmp_path, run):
    rows, arrays = measured([ellipses(different=0.3) | on_slice(0.2) | single_points(8)] * 12)
    with Store.create(tmp_path / "survey", '[survey]\nname = "made up"\n') as store:
        # One of which nothing is kept.
        store.record(*rows, network(width=99))
    (tmp_path / "survey" / ARRAYS).mkdir()
    for id_, own in arrays.items():
        anchors = {f"paths.{kind}.images": np.zeros((3, 1, 2, 2), "uint8") for kind in ("different", "same")}
        labels = {f"paths.{kind}.labels": np.zeros(3, "int16") for kind in ("different", "same")}
        write_arrays(tmp_path / "survey" / ARRAYS / f"{id_}.safetensors", own | anchors | labels)
    status, printed, errors = run("claims", tmp_path / "survey", "--json")
    assert (status, errors) == (0, "")
    found = json.loads(printed)
    assert [one["claim"] for one in found] == [*[1] * 8, 2, 2, *[3] * 13, 4, 5, *[6] * 7]
    firsts = [next(one for one in found if one["claim"] == number) for number in (1, 2, 6)]
    assert [one["value"] for one in firsts] == pytest.approx([0.3, 0.2, 0.8])
    assert [one["verdict"] for one in firsts] == [HOLDS, HOLDS, NOT_ENOUGH_DATA]
    assert [one["count"] for one in firsts] == [12, 12, 12]


def test_an_empty_survey_has_not_enough_data(tmp_path, run):
    Store.create(tmp_path / "survey", '[survey]\nname = "empty"\n').close()
    status, printed, _ = run("claims", tmp_path / "survey", "--json")
    assert status == 0
    assert {one["verdict"] for one in json.loads(printed)} == {NOT_ENOUGH_DATA}


def test_a_folder_without_a_survey_is_one_line(tmp_path, run):
    status, printed, errors = run("claims", tmp_path / "nowhere")
    assert (status, printed) == (2, "")
    assert errors.count("\n") == 1
    assert errors.startswith("sensitometer: no survey in ")
