"""The time that is left, by hand."""

import pytest

from sensitometer.survey.status import seconds_left


def test_nothing_left_takes_no_time():
    assert seconds_left(0, 0, 0, [], 4) == 0
    assert seconds_left(10, 20, 0, [], 4) == 0


def test_before_anything_is_measured_it_is_what_was_predicted():
    assert seconds_left(0, 0, 120, [], 4) == 30


def test_what_is_left_takes_as_much_longer_as_what_is_done_did():
    assert seconds_left(10, 30, 120, [], 4) == pytest.approx(90)
    assert seconds_left(10, 5, 120, [], 4) == pytest.approx(15)


def test_what_is_being_trained_has_had_some_of_its_time():
    assert seconds_left(10, 10, 100, [(20, 5), (20, 25)], 1) == pytest.approx(115)


def test_no_worker_can_help_another_with_its_stack():
    assert seconds_left(10, 20, 0, [(100, 20), (1, 0)], 2) == pytest.approx(180)
