import inspect

import pytest

from sensitometer import errors

ALL = [error for _, error in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("error", ALL)
def test_every_error_is_a_sensitometer_error_and_says_when_it_is_raised(error):
    assert issubclass(error, errors.SensitometerError)
    assert error.__doc__


def test_bad_input_is_a_value_error_too():
    assert issubclass(errors.InvalidInputError, ValueError)
