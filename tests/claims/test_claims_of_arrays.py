"""Claims 1, 2 and 6 on arrays that are made up, so that each statistic is known and gets each verdict that it can get."""

import numpy as np
import pytest
from made_up import Survey, about_bounds, claims_of, ellipses, measured, network, on_slice, single_points
from scipy.stats import t

from sensitometer.claims import DOES_NOT_HOLD, HOLDS, NOT_ENOUGH_DATA, check_claims

ELLIPSES = ("different classes", "one class", "random", "classes")
ARGUMENTS = {"different classes": "different", "one class": "same", "random": "random", "classes": "classes"}
NEEDS = {
    1: "needs networks fitted to true labels, measured along ellipses in at least 16 bins: the preset trajectory makes them",
    2: "needs networks trained on true labels, with their boundaries on slices: the preset boundaries makes them",
    6: "needs networks fitted to true labels, with the measures of single points: the preset per-point makes them",
}
NORM, DENSITY = "jacobian_norm", "transition_density"


def spread(middle, networks=12, width=0.05):
    """Numbers that are `middle` in the mean, and differ."""
    return middle + width * np.linspace(-1, 1, networks)


def only(claims):
    (claim,) = claims
    return claim


def of_configurations(arrays, seeds=1, **settings):
    """Networks of different configurations, each of so many seeds, and their arrays, one after the other."""
    rows = [network(2 + place // seeds, seed=1 + place % seeds, **settings) for place in range(len(arrays))]
    return rows, dict(zip((row["id"] for row in rows), arrays, strict=True))


# --- claim 1


def claim_1(part, arrays, measure=NORM, **settings):
    rows, kept = measured(arrays, **settings)
    quantity = "transitions" if measure == DENSITY else measure
    return only(claims_of(rows, 1, f"mnist, {part}", quantity, arrays=kept))


@pytest.mark.parametrize("measure", [NORM, DENSITY])
@pytest.mark.parametrize("part", ["different classes", "one class", "classes"])
@pytest.mark.parametrize(
    ("middle", "width", "networks", "verdict"),
    [
        (0.3, 0.05, 12, HOLDS),
        (-0.3, 0.05, 12, DOES_NOT_HOLD),
        (0.05, 0.5, 12, NOT_ENOUGH_DATA),
        (-0.05, 0.5, 12, NOT_ENOUGH_DATA),
        # On the right side of the threshold, and yet undecided.
        (0.3, 0.05, 9, NOT_ENOUGH_DATA),
        (0.0, 0.0, 12, NOT_ENOUGH_DATA),
    ],
)
def test_dips_get_each_verdict(part, measure, middle, width, networks, verdict):
    contrasts = spread(middle, networks, width)
    claim = claim_1(part, [ellipses(measure, **{ARGUMENTS[part]: value}) for value in contrasts], measure)
    half = t.ppf(0.975, networks - 1) * contrasts.std(ddof=1) / np.sqrt(networks)
    assert (claim.value, claim.low, claim.high) == pytest.approx((middle, middle - half, middle + half), abs=1e-12)
    assert (claim.verdict, claim.threshold, claim.side, claim.count) == (verdict, 0, "above", networks)


def test_a_dip_of_one_measure_and_kind_is_of_no_other():
    rows, kept = measured([ellipses(NORM, different=value) for value in spread(0.3)])
    for claim in claims_of(rows, 1, arrays=kept):
        expected = {("mnist, different classes", NORM): 0.3, ("mnist, random", NORM): -0.15}
        assert claim.value == pytest.approx(expected.get((claim.subject, claim.quantity), 0), abs=1e-12)
    assert [claim.subject for claim in claims_of(rows, 1, arrays=kept)] == [f"mnist, {part}" for part in ELLIPSES] * 2


@pytest.mark.parametrize("measure", [NORM, DENSITY])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("random", "different", "width", "networks", "verdict"),
    [
        (0.1, 0.6, 0.05, 12, HOLDS),
        # More uneven than half.
        (0.4, 0.6, 0.05, 12, DOES_NOT_HOLD),
        # Uneven along both kinds alike, or even along both.
        (0.3, 0.3, 0.05, 12, DOES_NOT_HOLD),
        (0.0, 0.0, 0.0, 12, NOT_ENOUGH_DATA),
        (0.3, 0.6, 0.05, 12, NOT_ENOUGH_DATA),
        (0.1, 0.6, 0.05, 9, NOT_ENOUGH_DATA),
    ],
)
def test_evenness_gets_each_verdict(measure, sign, random, different, width, networks, verdict):
    sizes = spread(random, networks, width)
    # Contrasts of either sign do not even out: of each network it is the size.
    signs = np.where(np.arange(networks) % 2, sign, -sign)
    arrays = [ellipses(measure, random=one * size, different=-one * different) for one, size in zip(signs, sizes, strict=True)]
    claim = claim_1("random", arrays, measure)
    half = t.ppf(0.975, networks - 1) * sizes.std(ddof=1) / np.sqrt(networks)
    middle = random - different / 2
    assert (claim.value, claim.low, claim.high) == pytest.approx((middle, middle - half, middle + half), abs=1e-12)
    assert (claim.verdict, claim.threshold, claim.side) == (verdict, 0, "below")


def test_along_random_ellipses_no_verdict_is_true_by_symmetry():
    # In the mean of these networks the contrast is 0, and yet each is as uneven along random ellipses as along others.
    claim = claim_1("random", [ellipses(random=sign * 0.5, different=0.5) for sign in (1, -1) * 10])
    assert (claim.value, claim.verdict) == (pytest.approx(0.25), DOES_NOT_HOLD)


@pytest.mark.parametrize(
    "arrays",
    [
        pytest.param({name: values[::8] for name, values in ellipses(different=0.3).items()}, id="12 bins"),
        pytest.param(ellipses() | {"paths.different.jacobian_norm": np.full(96, np.nan)}, id="nan"),
        pytest.param(ellipses() | {"paths.same.jacobian_norm": np.where(np.arange(96), 1.0, np.inf)}, id="one infinity"),
        pytest.param({"paths.translation.curve": np.zeros((3, 2), np.float32)}, id="no ellipses"),
    ],
)
def test_networks_without_whole_profiles_do_not_count(arrays):
    rows, kept = measured([arrays] * 12)
    claim = only(claims_of(rows, 1, arrays=kept))
    assert (claim.verdict, claim.reason) == (NOT_ENOUGH_DATA, NEEDS[1])
    rows, kept = measured([ellipses(different=value) for value in spread(0.3)] + [arrays] * 3)
    claim = only(claims_of(rows, 1, "mnist, different classes", NORM, arrays=kept))
    assert (claim.value, claim.count) == (pytest.approx(0.3), 12)


# --- claim 2


@pytest.mark.parametrize(
    ("place", "argument", "statistic"),
    [(0, "farther", "contrast after / before"), (1, "elsewhere", "rise of contrast at / anywhere")],
)
@pytest.mark.parametrize(
    ("middle", "width", "networks", "verdict"),
    [
        (0.3, 0.05, 12, HOLDS),
        (-0.3, 0.05, 12, DOES_NOT_HOLD),
        (0.05, 0.5, 12, NOT_ENOUGH_DATA),
        (0.3, 0.05, 9, NOT_ENOUGH_DATA),
    ],
)
def test_distances_from_boundaries_get_each_verdict(place, argument, statistic, middle, width, networks, verdict):
    rows, kept = measured([on_slice(**{argument: value}) for value in spread(middle, networks, width)])
    found = claims_of(rows, 2, "mnist", "boundaries", arrays=kept)
    assert [claim.value for claim in found] == pytest.approx([middle if place == one else 0.0 for one in (0, 1)], abs=1e-12)
    assert (found[place].statistic, found[place].verdict, found[place].count) == (statistic, verdict, networks)


def test_elsewhere_is_compared_with_what_it_was_before_training():
    # Twice as far from the points as from others, but so it was.
    arrays = on_slice() | {"slice.before.anywhere": np.array([0.5]), "slice.after.anywhere": np.array([0.5])}
    rows, kept = measured([arrays] * 12)
    assert [claim.value for claim in claims_of(rows, 2, arrays=kept)] == [0, 0]


@pytest.mark.parametrize("when", ["before", "after"])
def test_slices_without_any_boundary_do_not_count(when):
    nowhere = {f"slice.{when}.distance": np.full(3, np.inf), f"slice.{when}.anywhere": np.array([np.inf])}
    rows, kept = measured([on_slice(value, 0.2) for value in spread(0.3)] + [on_slice() | nowhere] * 2)
    found = claims_of(rows, 2, arrays=kept)
    assert [(claim.value, claim.count) for claim in found] == [(pytest.approx(0.3), 12), (pytest.approx(0.2), 12)]


@pytest.mark.parametrize("count", [1, 2])
def test_slices_that_were_too_dense_do_not_count(count):
    shown = {"slice.anchors": np.zeros((3, 2)), "slice.images": np.zeros((3, 1, 2, 2), np.uint8), "slice.labels": np.arange(3)}
    # At most, the boundaries before training were not too dense.
    before = {name: values for name, values in on_slice().items() if name.startswith("slice.before.")} if count == 2 else {}
    rows, kept = measured([on_slice(value) | shown for value in spread(0.3)] + [shown | before] * 5)
    found = claims_of(rows, 2, arrays=kept)
    assert [(claim.count, claim.configurations) for claim in found] == [(12, 12)] * 2
    assert found[0].value == pytest.approx(0.3)
    rows, kept = measured([shown | before] * 12)
    assert only(claims_of(rows, 2, arrays=kept)).reason == NEEDS[2]


def test_a_rise_may_be_more_than_1():
    # From 1/5 as far as others to five times as far: the contrast rises by 4/3.
    arrays = on_slice() | {"slice.before.anywhere": np.array([5.0]), "slice.after.anywhere": np.array([0.2])}
    rows, kept = measured([arrays] * 12)
    claim = claims_of(rows, 2, arrays=kept)[1]
    assert (claim.value, claim.low, claim.high) == pytest.approx((4 / 3, 4 / 3, 4 / 3))


# --- claim 6


ERRORS = ("AUROC", "share misclassified", "Kendall's tau")


def claims_6(arrays, **settings):
    rows, kept = of_configurations(arrays, **settings)
    return claims_of(rows, 6, arrays=kept)


@pytest.mark.parametrize("statistic", ["AUROC", "share misclassified"])
@pytest.mark.parametrize(
    ("highest", "verdict"),
    [
        ([8, 9] * 6, HOLDS),
        ([1, 2] * 6, DOES_NOT_HOLD),
        ([0, 10] * 6, NOT_ENOUGH_DATA),
        # Exactly at the threshold, without any doubt.
        ([5] * 12, NOT_ENOUGH_DATA),
        ([8] * 9, NOT_ENOUGH_DATA),
    ],
)
def test_wrong_points_get_each_verdict(statistic, highest, verdict):
    claim = only(one for one in claims_6([single_points(count) for count in highest]) if one.statistic == statistic)
    # N of 10 are above all correct points, the others below all.
    assert claim.value == pytest.approx(np.mean(highest) / 10)
    assert (claim.verdict, claim.threshold, claim.side, claim.subject) == (verdict, 0.5, "above", "mnist")


def test_higher_norms_are_not_the_highest():
    # All wrong points are above 10 correct ones and below 10 others.
    norms = np.concatenate([np.arange(10), 20 + np.arange(10), 10 + np.arange(10)]).astype(float)
    found = claims_6([single_points() | {"points.jacobian_norm": norms}] * 12)
    assert [claim.value for claim in found[:2]] == [0.5, 0]


@pytest.mark.parametrize(("loss", "sign"), [("cross-entropy", 1), ("l2", -1)])
@pytest.mark.parametrize(
    ("falling", "value", "verdict"),
    [
        ([True] * 12, -1, HOLDS),
        ([False] * 12, 1, DOES_NOT_HOLD),
        ([True, False] * 6, 0, NOT_ENOUGH_DATA),
        ([True] * 9, -1, NOT_ENOUGH_DATA),
    ],
)
def test_order_among_wrong_points_gets_each_verdict_with_the_loss_trained_on(loss, sign, falling, value, verdict):
    found = claims_6([single_points(falling=one if sign > 0 else not one) for one in falling], loss=loss)
    claim = only(one for one in found if one.statistic == "Kendall's tau")
    assert (claim.value, claim.verdict, claim.threshold, claim.side) == (pytest.approx(value), verdict, 0, "below")
    assert claim.subject == ("mnist" if loss == "cross-entropy" else "mnist, l2")


@pytest.mark.parametrize(
    ("correct", "wrong", "obstacle"),
    [(9, "0.53", True), (10, "0.50", True), (11, "0.48", False), (20, "0.33", False)],
)
def test_where_most_points_are_wrong_the_highest_norms_say_nothing(correct, wrong, obstacle):
    found = claims_6([single_points(8, correct=correct)] * 12)
    claim = only(one for one in found if one.statistic == "share misclassified")
    assert (claim.value, claim.low, claim.high) == pytest.approx((0.8, 0.8, 0.8))
    if obstacle:
        assert claim.verdict == NOT_ENOUGH_DATA
        assert claim.reason == f"of all points {wrong} are misclassified, so that most of any points are"
    else:
        assert claim.verdict == HOLDS
        assert claim.reason == f"12 networks of 12 configurations; of all points {wrong} are"
    # This is no obstacle to the other claims.
    assert [one.verdict for one in found[:3]] == [HOLDS, NOT_ENOUGH_DATA if obstacle else HOLDS, HOLDS]


def test_whether_most_points_are_wrong_is_of_the_networks_together():
    # Shares of 10/15 and 10/40: 0.46 in the mean.
    found = claims_6([single_points(8, correct=correct) for correct in (5, 30) * 6])
    assert found[1].reason == "12 networks of 12 configurations; of all points 0.46 are"


@pytest.mark.parametrize(("place", "argument"), [(0, "inside"), (1, "around"), (2, "above"), (3, "near")])
@pytest.mark.parametrize(
    ("shares", "verdict"),
    [
        ([0.8, 0.9] * 6, HOLDS),
        ([0.2, 0.1] * 6, DOES_NOT_HOLD),
        ([0.1, 0.9] * 6, NOT_ENOUGH_DATA),
        ([0.8] * 9, NOT_ENOUGH_DATA),
    ],
)
def test_bounds_get_each_verdict(place, argument, shares, verdict):
    claim = claims_6([about_bounds(**{argument: share}) for share in shares])[3 + place]
    assert (claim.subject, claim.statistic, claim.value) == ("mnist, bounds", "share of points", pytest.approx(np.mean(shares)))
    assert (claim.verdict, claim.threshold, claim.side) == (verdict, 0.5, "above")


def test_within_the_bounds_is_less_than_around_them():
    found = claims_6([about_bounds(inside=0.2)] * 12)[3:]
    assert [claim.value for claim in found] == pytest.approx([0.2, 1, 1, 1])
    assert [claim.verdict for claim in found] == [DOES_NOT_HOLD, HOLDS, HOLDS, HOLDS]
    assert [claim.statement.removeprefix("for most points ") for claim in found[:2]] == [
        "the norm of the true class's row is within (5)",
        "the norm of the true class's row is within a factor of two of (5)",
    ]


def test_bounds_are_those_of_the_data_sets_classes():
    arrays = [about_bounds(classes=100)] * 12
    assert [claim.value for claim in claims_6(arrays, dataset="cifar100")[3:]] == [1, 1, 1, 1]
    assert [claim.value for claim in claims_6(arrays, dataset="mnist")[3:]] == [0, 0, 0, 0]


def test_with_l2_loss_there_are_no_bounds():
    assert [claim.statistic for claim in claims_6([single_points()] * 12, loss="l2")] == [*ERRORS, "AUROC"]
    assert [claim.statistic for claim in claims_6([single_points()] * 12)] == [*ERRORS, *["share of points"] * 4]


def test_each_loss_has_its_networks_and_what_one_lacks_is_said_only_where_both_do():
    rows, kept = of_configurations([single_points(8)] * 10)
    others, more = of_configurations([single_points(3)] * 11, loss="l2")
    found = claims_of(rows + others, 6, arrays=kept | more)
    assert [(claim.subject, claim.count) for claim in found] == [("mnist", 10)] * 3 + [("mnist, bounds", 10)] * 4 + [
        ("mnist, l2", 11)
    ] * 4
    assert (found[0].value, found[-4].value) == pytest.approx((0.8, 0.3))
    assert {claim.count for claim in claims_of(rows + others, 6, arrays=more)} == {11}
    assert only(claims_of(rows + others, 6)).reason == NEEDS[6]


def test_points_that_are_no_numbers_are_left_out():
    arrays = single_points(8)
    for place, name in enumerate(("points.jacobian_norm", "points.cross_entropy", "points.logit_jacobian_norm")):
        # Three of the eight wrong points of highest norms.
        arrays[name] = np.where(np.arange(30) == 20 + place, (np.nan, np.inf, -np.inf)[place], arrays[name])
    found = claims_6([arrays] * 12)
    assert found[0].value == pytest.approx(5 / 7)
    assert found[1].value == pytest.approx(5 / 7)
    # Seven wrong points are too few for a rank correlation.
    assert (found[2].count, found[2].verdict) == (0, NOT_ENOUGH_DATA)
    assert [claim.count for claim in found[3:]] == [12, 12, 12, 12]


def test_networks_of_which_no_point_is_left_do_not_count():
    nowhere = single_points() | {"points.jacobian_norm": np.full(30, np.inf)}
    assert {claim.count for claim in claims_6([single_points()] * 11 + [nowhere])} == {11}
    assert only(claims_6([nowhere] * 11)).reason == NEEDS[6]


def test_networks_without_any_wrong_point_say_nothing_of_wrong_points():
    found = claims_6([single_points()] * 4 + [about_bounds()] * 11)
    assert [claim.count for claim in found] == [4, 4, 4, 15, 15, 15, 15]
    assert {claim.reason for claim in (found[0], found[2])} == {"4 networks of 4 configurations; needs 10 configurations"}
    # A third of the points of 4 networks; those of the 11 are not in the statistic.
    assert found[1].reason == "4 networks of 4 configurations; of all points 0.33 are; needs 10 configurations"
    for claim in claims_6([about_bounds()] * 11)[:3]:
        assert claim.reason == "0 networks of 0 configurations; needs 10 configurations"


# --- which networks count, and as what

KINDS = {1: ellipses(different=0.3), 2: on_slice(0.3), 6: single_points(8)}


@pytest.mark.parametrize("number", [1, 2, 6])
@pytest.mark.parametrize(
    ("settings", "counting"),
    [
        ({"state": "unfitted"}, {2}),
        ({"labels": "random"}, set()),
        ({"labels": "random", "state": "unfitted"}, set()),
        ({"state": "diverged"}, set()),
        ({"state": "failed"}, set()),
        ({"augmentation": "shift-flip-rotate"}, {1, 2, 6}),
    ],
)
def test_networks_count_by_state_and_labels(number, settings, counting):
    rows, kept = of_configurations([KINDS[number]] * 12)
    others, more = of_configurations([KINDS[number]] * 5, **settings)
    assert claims_of(rows + others, number, arrays=kept | more)[0].count == (17 if number in counting else 12)
    reason = claims_of(others, number, arrays=more)[0].reason
    assert (reason == NEEDS[number]) == (number not in counting)


@pytest.mark.parametrize("number", [1, 2, 6])
def test_arrays_of_another_kind_do_not_count(number):
    arrays = {name: values for other, own in KINDS.items() if other != number for name, values in own.items()}
    rows, kept = measured([arrays] * 12)
    claim = only(claims_of(rows, number, arrays=kept))
    assert (claim.verdict, claim.reason, claim.subject, claim.quantity) == (NOT_ENOUGH_DATA, NEEDS[number], "", "")
    assert claim == only(claims_of(rows, number))


@pytest.mark.parametrize("number", [1, 2])
def test_along_paths_and_on_slices_seeds_are_independent(number):
    rows, kept = measured([KINDS[number]] * 12)
    claim = claims_of(rows, number, arrays=kept)[0]
    assert (claim.verdict, claim.count, claim.configurations) == (HOLDS, 12, 12)
    assert claim.reason == "12 networks"
    assert claims_of(rows[:9], number, arrays=kept)[0].reason == "9 networks; needs 10 seeds"


@pytest.mark.parametrize("number", [1, 2])
def test_configurations_of_a_seed_are_averaged_first(number):
    kinds = {1: lambda value: ellipses(different=value), 2: on_slice}
    contrasts = spread(0.3)
    rows, kept = measured([kinds[number](value) for value in contrasts])
    # Three seeds have other configurations, all measured at the same points.
    others, more = {}, {}
    for width in (20, 21):
        added, arrays = measured([kinds[number](value + 0.2) for value in contrasts[:3]], width=width)
        others, more = [*others, *added], more | arrays
    claim = claims_of([*rows, *others], number, arrays=kept | more)[0]
    means = contrasts + np.where(np.arange(12) < 3, 2 / 3 * 0.2, 0)
    half = t.ppf(0.975, 11) * means.std(ddof=1) / np.sqrt(12)
    assert (claim.value, claim.low, claim.high) == pytest.approx((means.mean(), means.mean() - half, means.mean() + half))
    assert (claim.count, claim.configurations, claim.reason) == (18, 12, "18 networks of 12 seeds")


@pytest.mark.parametrize("number", [1, 2])
def test_many_configurations_of_few_seeds_are_not_enough(number):
    rows, kept = of_configurations([KINDS[number]] * 36, seeds=3)
    claim = claims_of(rows, number, arrays=kept)[0]
    assert (claim.verdict, claim.reason) == (NOT_ENOUGH_DATA, "36 networks of 3 seeds; needs 10 seeds")


@pytest.mark.parametrize(
    ("number", "unread"),
    [
        (1, ["paths.same.images", "paths.translation.curve"]),
        (2, ["slice.before.segments", "slice.after.segments", "slice.images"]),
    ],
)
def test_of_the_arrays_only_what_a_claim_needs_is_read(number, unread):
    rows, kept = measured([KINDS[number] | {name: np.zeros(3) for name in unread}] * 12)
    survey = Survey(rows, kept)
    assert next(claim for claim in check_claims(survey) if claim.number == number).verdict == HOLDS
    assert survey.asked == set(KINDS[number])


def test_at_single_points_configurations_are_independent():
    rows, kept = measured([single_points(8)] * 12)
    claim = claims_of(rows, 6, arrays=kept)[0]
    assert (claim.verdict, claim.count, claim.configurations) == (NOT_ENOUGH_DATA, 12, 1)
    assert claim.reason == "12 networks of 1 configuration; needs 10 configurations"


def test_seeds_of_a_configuration_are_averaged_first():
    # One of 11 configurations has ten seeds, the others one.
    rows, kept = measured([single_points(10)] * 10, width=100)
    others, more = of_configurations([single_points(count) for count in (6, 8) * 5])
    claim = claims_of(others + rows, 6, arrays=kept | more)[0]
    means = np.array([1.0] + [0.6, 0.8] * 5)
    half = t.ppf(0.975, 10) * means.std(ddof=1) / np.sqrt(11)
    assert (claim.value, claim.low, claim.high) == pytest.approx((means.mean(), means.mean() - half, means.mean() + half))
    assert (claim.count, claim.configurations, claim.reason) == (20, 11, "20 networks of 11 configurations")


@pytest.mark.parametrize("number", [1, 2, 6])
def test_each_data_set_has_its_own_claims(number):
    kinds = {
        1: lambda sign: ellipses(different=0.3 * sign),
        2: lambda sign: on_slice(0.3 * sign),
        6: lambda sign: single_points(5 + 3 * sign),
    }
    made = of_configurations if number == 6 else measured
    rows, kept = made([kinds[number](1)] * 12, dataset="mnist")
    others, more = made([kinds[number](-1)] * 12, dataset="cifar10")
    found = claims_of(rows + others + [network(dataset="digits")], number, arrays=kept | more)
    assert {claim.subject.split(", ")[0] for claim in found} == {"cifar10", "mnist"}
    firsts = [next(claim for claim in found if claim.subject.startswith(name)) for name in ("mnist", "cifar10")]
    assert [claim.verdict for claim in firsts] == [HOLDS, DOES_NOT_HOLD]
    assert [claim.count for claim in firsts] == [12, 12]
