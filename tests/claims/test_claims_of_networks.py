"""Claims 3, 4 and 5 on surveys that are made up, so that each claim gets each verdict that it can get."""

import math

import pandas as pd
import pytest
from made_up import claims_of, network, pairs, related

from sensitometer.analysis import FACTORS, kendall
from sensitometer.analysis.pairs import wilson_interval
from sensitometer.claims import DOES_NOT_HOLD, HOLDS, NOT_ENOUGH_DATA, THRESHOLDS

MEASURES = ("gap", "jacobian_norm", "transitions")


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(
    ("quantity", "share", "configurations", "verdict"),
    [
        *((quantity, 1, 40, HOLDS) for quantity in MEASURES),
        *((quantity, 0, 40, DOES_NOT_HOLD) for quantity in MEASURES),
        # On the right side of every threshold, and yet undecided.
        ("gap", 1, 9, NOT_ENOUGH_DATA),
        ("jacobian_norm", "threshold", 40, NOT_ENOUGH_DATA),
        ("transitions", "threshold", 100, NOT_ENOUGH_DATA),
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


@pytest.mark.parametrize(
    ("higher", "configurations", "verdict"),
    [(40, 40, HOLDS), (0, 40, DOES_NOT_HOLD), (28, 40, NOT_ENOUGH_DATA), (9, 9, NOT_ENOUGH_DATA)],
)
def test_augmentation_must_have_the_higher_test_accuracy(higher, configurations, verdict):
    (claim,) = claims_of(
        pairs("augmentation", "test_accuracy", configurations - higher, configurations), 3, "augmentation", "test_accuracy"
    )
    share = higher / configurations
    low, high = wilson_interval(share, configurations)
    assert (claim.value, claim.low, claim.high) == pytest.approx((share, low, high))
    assert (claim.statistic, claim.threshold, claim.side, claim.verdict) == ("share of pairs", 0.7, "above", verdict)
    assert claim.statement == "augmentation, against none: the higher test accuracy"


def test_test_accuracies_that_are_equal_count_half():
    rows = list(pairs("augmentation", "test_accuracy", 0, 40))
    rows[: len(rows) // 2] = [row | {"test_accuracy": 0.5} for row in rows[: len(rows) // 2]]
    (claim,) = claims_of(rows, 3, "augmentation", "test_accuracy")
    assert claim.value == pytest.approx(0.75)


def test_only_of_augmentation_is_the_test_accuracy_tested():
    rows = [row for factor in FACTORS for row in pairs(factor, "gap", 40, 40)]
    for factor in FACTORS:
        quantities = [claim.quantity for claim in claims_of(rows, 3, factor)]
        assert quantities == [*MEASURES, *(["test_accuracy"] if factor == "augmentation" else [])]


@pytest.mark.parametrize("quantity", [*MEASURES, "test_accuracy"])
def test_the_train_accuracies_of_augmentation_are_said(quantity):
    rows = [
        row | {"train_accuracy": 1.0 if row["augmentation"] == "none" else 0.5 + row["seed"] / 50}
        for row in pairs("augmentation", quantity, 9, 9)
    ]
    # Networks without a partner do not count.
    rows += [network(50 + width, augmentation="shift-flip", state="unfitted", train_accuracy=0.0) for width in range(5)]
    (claim,) = claims_of(rows, 3, "augmentation", quantity)
    assert claim.reason == "18 pairs of 9 configurations; train accuracy 0.53 with, 1.00 without; needs 10 configurations"


def test_of_other_factors_train_accuracies_are_not_said():
    for factor in FACTORS:
        (claim,) = claims_of(pairs(factor, "gap", 40, 40), 3, factor, "gap")
        assert ("train accuracy" in claim.reason) == (factor == "augmentation")


def test_networks_without_a_test_accuracy_make_no_pairs_of_it():
    (claim,) = claims_of(pairs("augmentation", "gap", 40, 40, test_accuracy=math.nan), 3, "augmentation", "test_accuracy")
    assert claim.verdict == NOT_ENOUGH_DATA
    assert claim.reason == "needs pairs of networks that differ in augmentation alone and have a test accuracy"


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
    frame = pd.DataFrame(rows)
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
    frame = pd.DataFrame(rows)
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
