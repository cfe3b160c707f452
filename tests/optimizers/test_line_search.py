"""The line search on functions of one variable: the strong Wolfe conditions, and what it says where no step meets them."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sensitometer.optimizers.line_search import CURVATURE, MOST_TRIALS, SUFFICIENT_DECREASE, strong_wolfe


def run(function, first=1.0, curvature=CURVATURE):
    """Search along `function(step) -> (value, slope)`: whether it ended well, and all (step, value, slope) asked for."""
    value, slope = function(0.0)
    search = strong_wolfe(value, slope, first, curvature)
    trials = []
    answer = None
    try:
        while True:
            step = search.send(answer)
            answer = function(step)
            trials.append((step, *answer))
    except StopIteration as end:
        return end.value, trials


def decreases_enough(function, step, value):
    start, slope = function(0.0)
    return value <= start + SUFFICIENT_DECREASE * step * slope


def assert_strong_wolfe(function, first, curvature):
    well, trials = run(function, first, curvature)
    step, value, slope = trials[-1]
    assert well is True
    assert step > 0
    assert decreases_enough(function, step, value)
    assert abs(slope) <= curvature * abs(function(0.0)[1])
    return trials


def more_and_thuente_3(step, beta=0.01, waves=39):
    """A kink smoothed over 2 beta, with waves on it: steps around 1 - beta and 1 + beta count."""
    if step <= 1 - beta:
        value, slope = 1 - step, -1.0
    elif step >= 1 + beta:
        value, slope = step - 1, 1.0
    else:
        value, slope = ((step - 1) ** 2 / beta + beta) / 2, (step - 1) / beta
    angle = waves * math.pi / 2 * step
    return value + 2 * (1 - beta) / (waves * math.pi) * math.sin(angle), slope + (1 - beta) * math.cos(angle)


def yanai(step, b1, b2):
    """The convex functions 4 to 6 of More and Thuente, after Yanai, Ozawa and Kaneko."""

    def gamma(b):
        return math.sqrt(1 + b * b) - b

    left, right = math.hypot(1 - step, b2), math.hypot(step, b1)
    return gamma(b1) * left + gamma(b2) * right, -gamma(b1) * (1 - step) / left + gamma(b2) * step / right


# But for the first two: More and Thuente (1994), section 5; their 2nd with a slope at 0 that rounding does not hide.
FUNCTIONS = {
    "parabola": lambda a: ((a - 3) ** 2, 2 * (a - 3)),
    "exponential": lambda a: (math.exp(a) - 3 * a, math.exp(a) - 3) if a < 700 else (math.inf, math.inf),
    "rational": lambda a: (-a / (a * a + 2), (a * a - 2) / (a * a + 2) ** 2),
    "quintic": lambda a: ((a + 0.1) ** 5 - 2 * (a + 0.1) ** 4, 5 * (a + 0.1) ** 4 - 8 * (a + 0.1) ** 3),
    "waves": more_and_thuente_3,
    "steep at 0": lambda a: yanai(a, 0.001, 0.001),
    "steep at the end": lambda a: yanai(a, 0.01, 0.001),
    "steep at both": lambda a: yanai(a, 0.001, 0.01),
}


@pytest.mark.parametrize("curvature", [0.9, 0.1, 1e-3])
@pytest.mark.parametrize("first", [1e-3, 0.1, 1.0, 10.0, 1e3])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_step_satisfies_both_conditions(function, first, curvature):
    assert_strong_wolfe(function, first, curvature)


@given(
    minimum=st.floats(-4, 4).map(lambda power: 10**power),
    first=st.floats(-4, 4).map(lambda power: 10**power),
    height=st.floats(-6, 6).map(lambda power: 10**power),
    tilt=st.floats(0, 3),
    curvature=st.sampled_from([0.9, 0.3, 0.01]),
)
def test_step_satisfies_both_conditions_on_convex_functions(minimum, first, height, tilt, curvature):
    def function(step):
        # A parabola plus a quartic, minimal at `minimum`.
        u = step / minimum - 1
        return height * (u**2 + tilt * u**4), height * (2 * u + 4 * tilt * u**3) / minimum

    assert_strong_wolfe(function, first, curvature)


@given(
    wall=st.floats(-3, 3).map(lambda power: 10**power),
    first=st.floats(-2, 2).map(lambda power: 10**power),
    beyond=st.sampled_from([(math.inf, math.inf), (math.inf, math.nan), (math.nan, math.nan), (math.nan, 0.0), (1e300, 1e300)]),
    curvature=st.sampled_from([0.9, 0.1]),
)
def test_what_is_not_a_number_is_stepped_back_from(wall, first, beyond, curvature):
    def function(step):
        u = step / wall
        return beyond if u >= 1 else (-math.log1p(-u) - 2 * u, (1 / (1 - u) - 2) / wall)

    assert_strong_wolfe(function, first, curvature)


@pytest.mark.parametrize("slope", [math.nan, -math.inf])
def test_value_is_enough_to_go_on_from_a_slope_that_is_not_a_number(slope):
    def function(step):
        return (step - 3) ** 2, slope if 0 < step < 2 else 2 * (step - 3)

    assert_strong_wolfe(function, 1.0, 0.1)


def test_one_cubic_finds_the_minimum_of_a_parabola():
    steps = [step for step, *_ in assert_strong_wolfe(FUNCTIONS["parabola"], 1.0, 0.01)]
    assert steps == pytest.approx([1, 3], rel=1e-12)  # beyond the first trial
    steps = [step for step, *_ in assert_strong_wolfe(FUNCTIONS["parabola"], 8.0, 0.01)]
    assert steps == pytest.approx([8, 3], rel=1e-12)  # before a trial that is too high
    steps = [step for step, *_ in assert_strong_wolfe(FUNCTIONS["parabola"], 5.0, 0.01)]
    assert steps == pytest.approx([5, 3], rel=1e-12)  # before a trial that is beyond the minimum, and low enough


def test_one_cubic_finds_the_minimum_of_a_cubic():
    def function(step):
        return step**3 / 3 - 2 * step**2 + step, step**2 - 4 * step + 1

    def falling(step):  # minimal at 2 + sqrt(3)
        return function(step + 1)

    assert [step for step, *_ in assert_strong_wolfe(falling, 4.0, 1e-6)] == pytest.approx([4, 1 + math.sqrt(3)], rel=1e-12)


def test_first_step_is_taken_where_it_will_do():
    assert run(FUNCTIONS["parabola"], 2.5) == (True, [(2.5, 0.25, -1.0)])


def test_smaller_curvature_constant_searches_on():
    assert len(run(FUNCTIONS["parabola"], 1.0, 0.9)[1]) == 1
    assert len(run(FUNCTIONS["parabola"], 1.0, 0.1)[1]) == 2


def test_slope_that_never_turns_is_followed_tenfold_and_ends_well():
    well, trials = run(lambda step: (-step, -1.0))
    assert well is True
    assert len(trials) == MOST_TRIALS
    steps = [step for step, *_ in trials]
    assert all(before < after <= 10.001 * before for before, after in itertools.pairwise(steps))


def test_it_turns_back_where_a_later_trial_is_higher_though_low_enough_and_falling():
    search = strong_wolfe(0.0, -2.5, 0.5, 0.1)
    first = next(search)
    second = search.send((-1.2, -2.25))
    assert second > first
    assert first < search.send((-0.6, -1.0)) < second


FAILURES = {
    "it rises, against its slope": lambda step: (step, -1.0 if step == 0 else 1.0),
    "nothing but rounding": lambda step: (1.0 if step == 0 else 1.0 + 1e-15, -1e-20),
    "nothing but nan": lambda step: (1.0, -1.0) if step == 0 else (math.nan, math.nan),
    "nothing but infinity": lambda step: (1.0, -1.0) if step == 0 else (math.inf, math.nan),
    "it decreases too little": lambda step: (-1e-5 * step, -1.0 if step == 0 else -1e-5),
    "a slope of nan": lambda step: (1.0 - step, math.nan if step == 0 else -1.0),
}


@pytest.mark.parametrize("function", FAILURES.values(), ids=FAILURES)
def test_no_step_that_decreases_enough_is_a_failure(function):
    well, trials = run(function)
    assert well is False
    assert 1 <= len(trials) <= MOST_TRIALS
    assert all(math.isfinite(step) for step, *_ in trials)


@pytest.mark.parametrize("first", [0.3, 1.0, 7.0])
def test_without_a_step_for_the_second_condition_the_last_one_asked_for_is_the_best(first):
    def kink(step):  # slopes of -1 and 1 only
        return abs(step - 1), -1.0 if step < 1 else 1.0

    well, trials = run(kink, first)
    assert well is True
    assert trials[-1][1] == min(value for _, value, _ in trials)
    assert trials[-1][1] < 1e-6
    assert decreases_enough(kink, *trials[-1][:2])
    assert len(trials) <= MOST_TRIALS + 1


def test_it_goes_back_to_the_best_step_where_later_ones_were_worse():
    well, trials = run(lambda step: (abs(step - 1), -1.0 if step < 1 else 1.0), 1.0)
    assert well is True
    assert [step for step, *_ in trials if step == 1.0] == [trials[0][0], trials[-1][0]]
    assert len(trials) > 3


NUMBERS = st.one_of(st.floats(-1e80, 1e80), st.sampled_from([math.inf, math.nan]))


@given(
    value=st.floats(-1e80, 1e80),
    slope=st.floats(-1e80, -1e-80),
    first=st.floats(1e-20, 1.0),
    curvature=st.sampled_from([0.9, 1e-3]),
    answers=st.lists(
        st.tuples(NUMBERS, st.one_of(NUMBERS, st.just(-math.inf))), min_size=MOST_TRIALS + 2, max_size=MOST_TRIALS + 2
    ),
)
def test_whatever_it_is_told_it_asks_for_numbers_and_ends(value, slope, first, curvature, answers):
    search = strong_wolfe(value, slope, first, curvature)
    step, told = next(search), {}
    with pytest.raises(StopIteration) as end:
        for answer in answers:
            assert math.isfinite(step)
            assert step > 0
            # One step has one answer.
            last = step
            step = search.send(told.setdefault(step, answer))
    if end.value.value:
        assert told[last][0] <= value + SUFFICIENT_DECREASE * last * slope
    else:
        assert end.value.value is False
