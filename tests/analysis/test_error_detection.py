"""Scores that find errors, against loops over pairs, thresholds and resamples."""

import itertools
import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference import DIGITS
from scipy.stats import spearmanr

from sensitometer.analysis.error_detection import (
    detection_verdict,
    error_augrc,
    error_detection,
    paired_difference,
    scores_of,
)
from sensitometer.analysis.points import error_auroc

# --- slow twins


def slow_auroc(score, wrong):
    points = list(zip(score, wrong, strict=True))
    pairs = [(a > b) + 0.5 * (a == b) for a, mistaken in points for b, other in points if mistaken and not other]
    return sum(pairs) / len(pairs) if pairs else math.nan


def slow_augrc(score, wrong):
    """
    The mean over thresholds of the share of points that are accepted and wrong, from the definition.

    Points are accepted one by one by rising score. The mean is over all coverages from 0 to 1, on straight lines between the
    points of the curve, and over all orders of points of one score.
    """
    n = len(score)
    areas = []
    for order in itertools.permutations(range(n)):
        if all(score[i] <= score[j] for i, j in itertools.pairwise(order)):
            risks = [sum(wrong[i] for i in order[:accepted]) / n for accepted in range(n + 1)]
            areas.append(sum((a + b) / 2 for a, b in itertools.pairwise(risks)) / n)
    return sum(areas) / len(areas)


def slow_augrc_by_groups(score, wrong):
    """The same area where the points of one score are accepted together, without orders."""
    curve = [(0.0, 0.0), *((np.mean(score <= s), np.mean((score <= s) & wrong)) for s in np.unique(score))]
    return sum((c - a) * (b + d) / 2 for (a, b), (c, d) in itertools.pairwise(curve))


def slow_detection(scores, wrong, baseline, resamples, seed):
    """Draw the points of each resample, and measure each score anew."""
    stream = np.random.default_rng(seed)
    rows = {name: {"auroc": [], "augrc": []} for name in scores}
    for _ in range(resamples):
        points = stream.integers(len(wrong), size=len(wrong))
        if 0 < wrong[points].sum() < len(wrong):
            for name, score in scores.items():
                rows[name]["auroc"].append(slow_auroc(score[points], wrong[points]))
                rows[name]["augrc"].append(slow_augrc_by_groups(score[points], wrong[points]))
    return {
        name: {
            **{measure: np.quantile(values, [0.025, 0.975]) for measure, values in row.items()},
            **{
                f"{measure}_difference": np.quantile(np.subtract(values, rows[baseline][measure]), [0.025, 0.975])
                for measure, values in row.items()
            },
        }
        for name, row in rows.items()
    }


@pytest.fixture
def points():
    """40 points, a third of them wrong, and three scores: two alike, one of them with many ties, and one that is noise."""
    stream = np.random.default_rng(5)
    wrong = stream.random(40) < 0.3
    confidence = stream.standard_normal(40) + wrong
    scores = {"Jacobian norm": confidence.round(), "1 - max p": confidence, "noise": stream.random(40)}
    return scores, wrong


# --- AUROC and AUGRC

few_points = st.lists(st.tuples(st.sampled_from([0.0, 1e-40, 1.0, 1e30]), st.booleans()), min_size=1, max_size=6)


@given(few_points)
def test_augrc_is_the_area_under_the_generalised_risk_coverage_curve(points):
    score, wrong = np.array([score for score, _ in points]), np.array([wrong for _, wrong in points])
    area = slow_augrc(score, wrong)
    assert area == pytest.approx(slow_augrc_by_groups(score, wrong))
    expected = area if wrong.any() and not wrong.all() else math.nan
    assert error_augrc(score, wrong) == pytest.approx(expected, nan_ok=True)


def test_the_table_holds_the_values_and_their_differences(points):
    scores, wrong = points
    table = error_detection(scores, wrong, resamples=50)
    assert list(table.index) == list(scores)
    for name, score in scores.items():
        row = table.loc[name]
        assert row["auroc"] == pytest.approx(slow_auroc(score, wrong)) == error_auroc(score, wrong)
        assert row["augrc"] == pytest.approx(slow_augrc_by_groups(score, wrong))
        assert row["auroc_difference"] == pytest.approx(row["auroc"] - table.loc["1 - max p", "auroc"])
        assert row["augrc_difference"] == pytest.approx(row["augrc"] - table.loc["1 - max p", "augrc"])
        assert row["spearman"] == pytest.approx(spearmanr(score, scores["1 - max p"]).statistic)
    assert (table.loc["1 - max p", [column for column in table.columns if "difference" in column]] == 0).all()


@pytest.mark.parametrize("baseline", ["1 - max p", "noise"])
def test_intervals_are_those_of_points_drawn_in_a_loop(points, baseline):
    scores, wrong = points
    table = error_detection(scores, wrong, baseline=baseline, resamples=150, seed=3)
    for name, intervals in slow_detection(scores, wrong, baseline, 150, 3).items():
        for measure, ends in intervals.items():
            assert table.loc[name, [f"{measure}_low", f"{measure}_high"]].to_list() == pytest.approx(list(ends), abs=1e-12)


def test_resamples_without_errors_are_left_out():
    """One wrong point of five is missing from a third of the resamples."""
    scores, wrong = {"1 - max p": np.array([1.0, 2.0, 3.0, 4.0, 3.0])}, np.arange(5) == 2
    table = error_detection(scores, wrong, resamples=100)
    (expected,) = slow_detection(scores, wrong, "1 - max p", 100, 0).values()
    assert [table.loc["1 - max p", f"auroc_{end}"] for end in ("low", "high")] == pytest.approx(list(expected["auroc"]))


def test_resamples_are_the_same_in_any_number_of_pieces():
    """3,000 points make three pieces of the resamples; each is compared with the same points drawn at once."""
    stream = np.random.default_rng(0)
    wrong = stream.random(3000) < 0.1
    score = (stream.standard_normal(3000) + wrong).round(1)
    table = error_detection({"s": score}, wrong, baseline="s", resamples=200, seed=7)
    drawn = np.random.default_rng(7).integers(3000, size=(200, 3000))
    aurocs = [error_auroc(score[points], wrong[points]) for points in drawn]
    assert table.loc["s", ["auroc_low", "auroc_high"]].to_list() == pytest.approx(list(np.quantile(aurocs, [0.025, 0.975])))


@pytest.mark.parametrize("wrong", [np.zeros(4, dtype=bool), np.ones(4, dtype=bool), np.zeros(0, dtype=bool)])
def test_without_both_kinds_of_points_nothing_is_known(wrong):
    score = np.arange(float(len(wrong)))
    table = error_detection({"1 - max p": score, "Jacobian norm": -score}, wrong)
    assert table.drop(columns="spearman").isna().all(axis=None)
    assert math.isnan(error_augrc(score, wrong))
    assert "than 1 - max p: the points are all correct or all wrong" in detection_verdict(table)


@pytest.mark.parametrize(
    ("scores", "wrong", "message"),
    [
        (
            {"1 - max p": [1.0, math.nan, math.inf]},
            [True, False, True],
            "1 - max p is not everywhere: leave out 2 points of 3, the first is point 1",
        ),
        ({"1 - max p": [1.0, 2.0]}, [True, False, True], r"scores must be one per point, \[3\]; 1 - max p is \[2\]"),
        ({"norm": [1.0, 2.0]}, [True, False], "baseline must be one of the scores, norm; got '1 - max p'"),
        ({"1 - max p": [1.0, 2.0]}, [1, 0], r"wrong must be bool \[N\], whether each point is wrong; got int64 \[2\]"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(refused, scores, wrong, message):
    with refused(message):
        error_detection(scores, wrong)
    with refused("resamples must be a whole number of at least 1; got 0"):
        error_detection({"1 - max p": [1.0, 2.0]}, [True, False], resamples=0)


# --- the sentence


def sentence(norm, confidence, wrong):
    return detection_verdict(error_detection({"Jacobian norm": norm, "1 - max p": confidence}, wrong))


def test_the_sentence_says_which_is_better_or_that_it_cannot_be_told(refused):
    stream = np.random.default_rng(0)
    wrong = stream.random(500) < 0.2
    good, bad = stream.standard_normal(500) + 2 * wrong, stream.standard_normal(500)
    better, worse = sentence(good, bad, wrong), sentence(bad, good, wrong)
    assert better.startswith("The Jacobian norm finds errors better than 1 - max p: AUROC 0.9")
    assert worse.startswith("The Jacobian norm finds errors worse than 1 - max p: AUROC 0.")
    assert "difference +0." in better and "difference -0." in worse and "Spearman correlation of the two -0.0" in worse
    same = sentence(good + 0.01 * bad, good, wrong)
    assert same.startswith("Cannot tell whether the Jacobian norm finds errors better than 1 - max p: AUROC 0.9")
    assert same.endswith("Spearman correlation of the two 1.000, nearly the same order of points.")
    assert sentence(good, good, wrong).startswith("Cannot tell")
    assert sentence(np.ones(500), good, wrong).endswith("; one of the two is the same at all points.")
    table = error_detection({"1 - max p": good}, wrong)
    assert detection_verdict(table, "1 - max p").startswith("Cannot tell whether 1 - max p finds")
    with refused("no score 'Jacobian norm' in the table; it has 1 - max p"):
        detection_verdict(table)


# --- scores of logits


def slow_scores(logits):
    """The four scores of one point, from 60 digits."""
    with localcontext(DIGITS):
        f = [Decimal(float(logit)) for logit in logits]
        total = sum(logit.exp() for logit in f)
        p = [logit.exp() / total for logit in f]
        top = f.index(max(f))
        others = sum(share for k, share in enumerate(p) if k != top)
        second, highest = sorted(f)[-2:]
        values = (others, -sum(share * share.ln() for share in p), second - highest, -total.ln())
        return [float(value) for value in values]


@pytest.mark.parametrize("saturation", [0.0, 1.0, 69.0, 100.0])
@pytest.mark.parametrize("offset", [0.0, 300.0])
def test_scores_are_exact_for_saturated_points(saturation, offset):
    logits = np.random.default_rng(1).standard_normal((5, 4))
    logits[:, 2] += saturation
    scores = scores_of(logits + offset)
    expected = np.array([slow_scores(row) for row in logits + offset]).T
    for (name, values), exact in zip(scores.items(), expected, strict=True):
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, exact, rtol=1e-13, err_msg=name)


def test_scores_of_points_between_classes():
    scores = scores_of(np.float32([[0, 0, 0], [5, 5, -999]]))
    assert scores["1 - max p"] == pytest.approx([2 / 3, 1 / 2])
    assert scores["entropy"] == pytest.approx([math.log(3), math.log(2)])
    assert scores["-margin"].tolist() == [0, 0]
    assert scores["energy"] == pytest.approx([-math.log(3), -5 - math.log(2)])


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        ([[1.0], [2.0]], r"logits must be of points and of at least two classes, \[N, C\]; got \[2, 1\]"),
        ([1.0, 2.0], r"got \[2\]"),
        ([[1.0, 2.0], [1.0, -math.inf]], "logits must be finite: leave out 1 point of 2, the first is point 1"),
    ],
)
def test_logits_without_scores_are_refused(refused, logits, message):
    with refused(message):
        scores_of(logits)


# --- two models on the same points


def test_paired_difference_has_the_error_of_the_differences():
    a, b = np.array([3.0, 5.0, 4.0, 8.0]), np.array([1.0, 4.0, 4.0, 5.0])
    found_difference = paired_difference(a, b)
    # Student's 97.5% with three degrees of freedom.
    error = math.sqrt(sum((d - 1.5) ** 2 for d in (2, 1, 0, 3)) / 3 / 4)
    assert found_difference[:2] == pytest.approx((1.5, error))
    assert found_difference[2:4] == pytest.approx((1.5 - 3.182446 * error, 1.5 + 3.182446 * error), rel=1e-6)


@pytest.mark.parametrize(
    ("shift", "verdict"), [(1.0, "A higher"), (-1.0, "B higher"), (0.0, "cannot tell"), (0.001, "cannot tell")]
)
def test_verdicts_of_paired_differences(shift, verdict):
    stream = np.random.default_rng(0)
    b = stream.standard_normal(200)
    assert paired_difference(b + shift + 0.1 * (np.arange(200) % 2 - 0.5), b).verdict == verdict
    # Nothing can be told of equal values, and of one point.
    assert paired_difference(b, b).verdict == "cannot tell"
    assert paired_difference([shift], [0.0]).verdict == "cannot tell"


@pytest.mark.parametrize("kind", ["norms", "correct"])
def test_intervals_cover_the_true_difference_95_times_in_100(kind):
    """Skewed values that two models share for the most part, and shares of correct points; 1,500 samples of 200 points."""
    stream = np.random.default_rng(0)
    covered = 0
    for _ in range(1500):
        common, first, second = stream.standard_normal((3, 200))
        if kind == "norms":
            a, b, truth = np.exp(common) + 0.3 * np.exp(first), np.exp(common) + 0.2 * np.exp(second), 0.1 * math.exp(0.5)
        else:
            a, b, truth = common + first < 1, common + second < 1, 0.0
        interval = paired_difference(a, b)
        covered += interval.low <= truth <= interval.high
    assert covered / 1500 == pytest.approx(0.95, abs=0.02)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([1.0, 2.0], [1.0], r"a and b must be values at the same points, \[N\] each; got \[2\] and \[1\]"),
        ([], [], r"got \[0\] and \[0\]"),
        ([1.0, math.nan, 2.0], [1.0, 1.0, 3.0], "a and b must be finite: leave out 1 point of 3, the first is point 1"),
    ],
)
def test_values_that_have_no_difference_are_refused(refused, a, b, message):
    with refused(message):
        paired_difference(a, b)
