"""The paper's claims on surveys that are made up, so that each claim gets each verdict that it can get."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sensitometer.analysis import FACTORS, kendall
from sensitometer.claims import COLUMNS, DOES_NOT_HOLD, HOLDS, NOT_ENOUGH_DATA, THRESHOLDS, Claim, check_claims
from sensitometer.configuration import Configuration
from sensitometer.errors import InvalidInputError
from sensitometer.store import Store

MEASURES = ("gap", "jacobian_norm", "transitions")


def network(
    width=10, depth=2, seed=1, state="fitted", dataset="mnist", gap=0.1, jacobian_norm=1.0, transitions=100.0, **settings
):
    configuration = Configuration(dataset, width, depth, seed=seed, **settings)
    measures = {"gap": gap, "jacobian_norm": jacobian_norm, "transitions": transitions}
    return {"id": configuration.id, **configuration.as_dict(), "state": state, **measures}


def table(rows):
    return pd.DataFrame(list(rows), columns=list(COLUMNS))


def claims_of(rows, number, subject=None, quantity=None):
    found = [claim for claim in check_claims(table(rows)) if claim.number == number]
    return [claim for claim in found if subject in (None, claim.subject) and quantity in (None, claim.quantity)]


def pairs(factor, quantity, lower, configurations, seeds=2):
    """Two networks for each configuration and seed; in the first `lower` of them the better setting has the lower value."""
    kind = FACTORS[factor]
    state = "fitted" if kind.fitted else "unfitted"
    for width in range(1, configurations + 1):
        for seed in range(1, seeds + 1):
            values = (1.0, 2.0) if width <= lower else (2.0, 1.0)
            for setting, value in zip((kind.better[0], kind.worse), values, strict=True):
                yield network(width, seed=seed, state=state, **{factor: setting, quantity: value})


def related(strength, of_transitions, configurations=100, dataset="mnist", seed=0):
    """Two seeds a configuration, whose norm and transitions go with the gap so well: 0 not at all, 1 in perfect order."""
    noise = np.random.default_rng(seed)
    for width in range(1, configurations + 1):
        for one in (1, 2):
            gap, norm, transitions = noise.normal(size=3)
            yield network(
                width,
                seed=one,
                dataset=dataset,
                gap=gap,
                jacobian_norm=math.exp(strength * gap + (1 - abs(strength)) * norm),
                transitions=of_transitions * gap + (1 - abs(of_transitions)) * transitions,
            )


# --- the verdict


@pytest.mark.parametrize(
    ("low", "high", "above", "below"),
    [
        (0.51, 0.9, HOLDS, DOES_NOT_HOLD),
        (0.5, 0.9, NOT_ENOUGH_DATA, NOT_ENOUGH_DATA),
        (0.1, 0.9, NOT_ENOUGH_DATA, NOT_ENOUGH_DATA),
        (0.1, 0.5, NOT_ENOUGH_DATA, NOT_ENOUGH_DATA),
        (0.1, 0.49, DOES_NOT_HOLD, HOLDS),
        (math.nan, math.nan, NOT_ENOUGH_DATA, NOT_ENOUGH_DATA),
    ],
)
def test_the_whole_interval_must_be_on_one_side(low, high, above, below):
    def verdict(side, **changes):
        numbers = {"value": 0.7, "low": low, "high": high, "threshold": 0.5, "configurations": 10}
        return Claim(3, "", "gap", "", side=side, **(numbers | changes)).verdict

    assert (verdict("above"), verdict("below")) == (above, below)
    assert verdict("above", configurations=9) == verdict("below", configurations=9) == NOT_ENOUGH_DATA
    assert verdict("above", obstacle="needs more") == NOT_ENOUGH_DATA


# --- each claim


@pytest.mark.parametrize("number", [1, 2, 6])
def test_claims_about_paths_slices_and_points_say_what_they_need(number):
    (claim,) = claims_of(related(1, 0), number)
    assert claim.verdict == NOT_ENOUGH_DATA
    assert claim.reason.startswith("needs ")
    assert claim.reason.endswith(", which a survey does not store")


@pytest.mark.parametrize("quantity", MEASURES)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("share", "configurations", "verdict"),
    [
        (1, 40, HOLDS),
        (0, 40, DOES_NOT_HOLD),
        # On the right side of every threshold, and yet undecided.
        (1, 9, NOT_ENOUGH_DATA),
        ("threshold", 40, NOT_ENOUGH_DATA),
        ("threshold", 400, NOT_ENOUGH_DATA),
    ],
)
def test_each_factor_gets_each_verdict(factor, quantity, share, configurations, verdict):
    share = THRESHOLDS[factor] if share == "threshold" else share
    rows = pairs(factor, quantity, round(share * configurations), configurations, seeds=2)
    (claim,) = claims_of(rows, 3, factor, quantity)
    assert claim.value == pytest.approx(share)
    assert (claim.configurations, claim.threshold) == (configurations, THRESHOLDS[factor])
    # Transitions are claimed to fail for optimizers.
    opposite = {HOLDS: DOES_NOT_HOLD, DOES_NOT_HOLD: HOLDS, NOT_ENOUGH_DATA: NOT_ENOUGH_DATA}
    assert claim.verdict == (opposite[verdict] if (factor, quantity) == ("optimizer", "transitions") else verdict)


def test_nearly_every_pair_of_labels_takes_many_configurations():
    # All of them agree, and Wilson's interval goes down to n / (n + 3.84).
    verdicts = [claims_of(pairs("labels", "gap", n, n, seeds=8), 3, "labels", "gap")[0].verdict for n in (34, 35)]
    assert verdicts == [NOT_ENOUGH_DATA, HOLDS]


def test_pairs_of_random_labels_count_for_the_labels_alone():
    def rows(labels):
        for row in pairs("activation", "gap", 40, 40):
            yield row | {"labels": labels}

    assert claims_of(rows("true"), 3, "activation", "gap")[0].verdict == HOLDS
    (claim,) = claims_of(rows("random"), 3, "activation", "gap")
    assert claim.verdict == NOT_ENOUGH_DATA
    assert claim.reason == "needs pairs of fitted networks that differ in activation alone and have a gap"


def test_only_the_augmentation_study_keeps_networks_that_are_not_fitted():
    for factor in FACTORS:
        rows = [row | {"state": "unfitted"} for row in pairs(factor, "gap", 40, 40)]
        (claim,) = claims_of(rows, 3, factor, "gap")
        assert claim.verdict == (HOLDS if factor == "augmentation" else NOT_ENOUGH_DATA)


@pytest.mark.parametrize(
    ("strength", "configurations", "verdict"),
    [(0.7, 100, HOLDS), (-0.7, 100, DOES_NOT_HOLD), (0.02, 12, NOT_ENOUGH_DATA), (1, 9, NOT_ENOUGH_DATA)],
)
def test_the_gap_against_the_norm_gets_each_verdict(strength, configurations, verdict):
    rows = list(related(strength, 0, configurations))
    (claim,) = claims_of(rows, 4)
    frame = table(rows)
    expected = kendall(frame["jacobian_norm"], frame["gap"], frame["width"])
    assert (claim.value, claim.low, claim.high) == (expected.tau, expected.low, expected.high)
    assert (claim.subject, claim.verdict, claim.count, claim.configurations) == (
        "mnist",
        verdict,
        2 * configurations,
        configurations,
    )


def test_each_data_set_has_its_own_verdict():
    rows = [*related(0.8, 0, dataset="mnist"), *related(-0.8, 0, dataset="cifar10")]
    rows += [network(dataset="cifar100", state="unfitted"), network(dataset="digits", labels="random")]
    for number in (4, 5):
        assert [claim.subject for claim in claims_of(rows, number)] == ["cifar10", "cifar100", "digits", "mnist"]
    found = claims_of(rows, 4)
    assert [claim.verdict for claim in found] == [DOES_NOT_HOLD, NOT_ENOUGH_DATA, NOT_ENOUGH_DATA, HOLDS]
    assert found[1].reason == found[2].reason == "needs networks fitted to true labels that have a gap and a Jacobian norm"


@pytest.mark.parametrize(
    ("strength", "of_transitions", "configurations", "verdict"),
    [
        (0.9, 0.0, 200, HOLDS),
        # Falling with the gap, they are no measure of it either.
        (0.9, -0.9, 200, HOLDS),
        (0.9, 0.9, 200, DOES_NOT_HOLD),
        # Their tau is below half of the norm's, but with so few networks it may as well be above.
        (0.9, 0.3, 20, NOT_ENOUGH_DATA),
        (0.9, 0.0, 9, NOT_ENOUGH_DATA),
        # Nothing orders the networks; transitions most certainly do not, which says nothing.
        (-0.9, -0.9, 200, NOT_ENOUGH_DATA),
        (-0.9, 0.0, 200, NOT_ENOUGH_DATA),
    ],
)
def test_transitions_get_each_verdict(strength, of_transitions, configurations, verdict):
    (claim,) = claims_of(related(strength, of_transitions, configurations), 5)
    assert claim.verdict == verdict
    if strength < 0:
        assert "rises with the Jacobian norm" in claim.reason


def test_transitions_are_compared_with_half_the_norm():
    rows = list(related(0.8, 0.2, 50))
    (claim,) = claims_of(rows, 5)
    assert claim.verdict == HOLDS
    frame = table(rows)
    taus = [kendall(frame[name], frame["gap"], frame["width"]).tau for name in ("transitions", "jacobian_norm")]
    assert claim.value == pytest.approx(taus[0] - taus[1] / 2)
    assert claim.reason.endswith(f"tau {taus[0]:+.2f} of transitions, {taus[1]:+.2f} of the Jacobian norm")


def test_networks_of_one_size_say_nothing_of_size():
    rows = [row | {"width": 5, "init_scale": float(row["width"])} for row in related(0.9, 0, 200)]
    (claim,) = claims_of(rows, 5)
    assert (claim.verdict, claim.reason) == (NOT_ENOUGH_DATA, "needs networks of different size")


def test_what_is_the_same_for_all_is_undefined():
    rows = [row | {"transitions": 7.0} for row in related(0.9, 0)]
    (claim,) = claims_of(rows, 5)
    assert claim.verdict == NOT_ENOUGH_DATA
    assert "undefined" in claim.reason


# --- any frame


def test_a_frame_that_lacks_a_column_is_refused(refused):
    with refused("the frame must have the column transitions", error=InvalidInputError):
        check_claims(table([]).drop(columns="transitions"))


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


@given(st.lists(NETWORKS, max_size=30), st.booleans(), st.booleans())
@settings(max_examples=25)
def test_no_frame_raises(rows, failed, one_configuration):
    rows = [network(**row) for row in rows]
    for seed, row in enumerate(rows):
        if failed:
            row.update(state="failed", **dict.fromkeys(MEASURES))
        if one_configuration:
            row.update(width=1, depth=2, activation="relu", optimizer="lbfgs", labels="true", augmentation="none", seed=seed)
    found = check_claims(table(rows))
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
    assert len(lines) == 2 * (3 + 12 + 2)
    row = next(position for position, line in enumerate(lines) if line.startswith("4  mnist: Jacobian norm"))
    assert lines[row].endswith("above 0     holds")
    assert lines[row + 1] == "   the gap rises with the Jacobian norm (120 networks of 60 configurations)"


def test_the_command_prints_json(folder, run):
    status, printed, errors = run("claims", folder, "--json")
    assert (status, errors) == (0, "")
    found = json.loads(printed)
    keys = ["claim", "subject", "quantity", "statement", "statistic", "value", "low", "high", "method", "threshold", "side"]
    keys += ["unit", "count", "configurations", "verdict", "reason"]
    assert all(list(one) == keys for one in found)
    assert [one["claim"] for one in found] == [1, 2, *[3] * 12, 4, 5, 6]
    assert found[0]["value"] is None
    assert found[14]["verdict"] == HOLDS


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
