import inspect

import numpy as np
import pytest
import torch

from sensitometer import errors
from sensitometer.errors import check_whole_number
from sensitometer.measures import boundaries, jacobian_norm, jacobian_norm_estimate, point_values
from sensitometer.networks import MLP
from sensitometer.paths import Slice

ALL = [error for _, error in inspect.getmembers(errors, inspect.isclass) if error.__module__ == errors.__name__]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_a_sensitometer_error_and_says_when_it_is_raised(error):
    assert issubclass(error, errors.SensitometerError)
    assert error.__doc__


def test_bad_input_is_a_value_error_too():
    assert issubclass(errors.InvalidInputError, ValueError)


@pytest.mark.parametrize("value", [1, 7, np.int64(7), np.uint8(7), torch.tensor(7)])
def test_whole_numbers_of_any_type_are_taken(value):
    assert check_whole_number("points", value) == int(value)
    assert type(check_whole_number("points", value)) is int


@pytest.mark.parametrize("value", [0, -1, 2.0, True, False, np.True_, "3", None, [3], np.float32(3), 11])
def test_what_is_no_whole_number_in_the_range_is_refused(value, refused):
    with refused(r"points must be a whole number from 1 to 10; got "):
        check_whole_number("points", value, most=10)


def test_without_a_largest_number_the_message_names_the_smallest_one(refused):
    with refused(r"points must be a whole number of at least 2; got 1"):
        check_whole_number("points", 1, least=2)


@pytest.mark.parametrize("number", [np.int64(2), np.uint8(2)])
def test_functions_take_whole_numbers_of_any_type(number):
    network, x = MLP([torch.ones(4, 3), torch.ones(9, 4)], "relu"), torch.rand(5, 3)
    assert jacobian_norm(network, x, chunk_size=number).equal(jacobian_norm(network, x, chunk_size=2))
    assert jacobian_norm_estimate(network, x, projections=4 * number, chunk_size=number).projections == 8
    assert len(point_values(network, x, torch.zeros(5, dtype=torch.int64), chunk_size=number).label) == 5
    first, last = (boundaries(network, Slice(*x[:3]), layer=layer) for layer in (number - number, 0))
    assert first.segments.equal(last.segments)
