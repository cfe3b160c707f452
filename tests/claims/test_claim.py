import json
import math

import pytest

from sensitometer.claims import DOES_NOT_HOLD, HOLDS, NOT_ENOUGH_DATA, Claim


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


@pytest.mark.parametrize(
    ("unit", "seeds", "count", "configurations", "reason"),
    [
        ("networks", False, 1, 1, "1 network of 1 configuration; needs 10 configurations"),
        ("networks", False, 2, 1, "2 networks of 1 configuration; needs 10 configurations"),
        ("pairs", False, 1, 1, "1 pair of 1 configuration; needs 10 configurations"),
        ("pairs", False, 1200, 1000, "1,200 pairs of 1,000 configurations"),
        ("networks", True, 1, 1, "1 network; needs 10 seeds"),
        ("networks", True, 0, 0, "0 networks; needs 10 seeds"),
        ("networks", True, 24, 24, "24 networks"),
        ("networks", True, 48, 24, "48 networks of 24 seeds"),
        ("networks", True, 24, 1, "24 networks of 1 seed; needs 10 seeds"),
        # The number of configurations does not.
        ("networks", False, 24, 24, "24 networks of 24 configurations"),
    ],
)
def test_the_reason_counts_what_the_verdict_rests_on(unit, seeds, count, configurations, reason):
    claim = Claim(
        3, "", "gap", "", low=0.6, high=0.9, threshold=0.5, unit=unit, count=count, configurations=configurations, seeds=seeds
    )
    assert claim.reason == reason


@pytest.mark.parametrize(
    ("low", "high", "rest"),
    [
        (0.4, 0.9, "; the interval includes the threshold"),
        (math.nan, math.nan, "; undefined, since one of the quantities is the same for all"),
        (0.1, 0.2, ""),
    ],
)
def test_the_reason_says_what_is_undecided(low, high, rest):
    claim = Claim(
        4, "", "gap", "", low=low, high=high, threshold=0.5, unit="pairs", count=12, configurations=11, detail="of tau +0.1"
    )
    assert claim.reason == f"12 pairs of 11 configurations; of tau +0.1{rest}"


def test_json_has_no_nan():
    found = Claim(2, "", "", "stated", obstacle="needs more").as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert (found["claim"], found["value"], found["verdict"], found["reason"]) == (2, None, NOT_ENOUGH_DATA, "needs more")
