import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sensitometer.analysis.means import average_profiles
from sensitometer.errors import InvalidInputError


def test_mean_and_standard_error_by_hand():
    networks = [{"norm": np.array(norm), "density": np.array(density)} for norm, density in [([1, 5], [0, 0]), ([3, 5], [0, 8])]]
    averages = average_profiles([*networks, {"norm": np.array([8, 5]), "density": np.array([0, 1])}])
    assert list(averages) == ["angle", "norm", "norm_sem", "density", "density_sem", "networks"]
    # The middles of two bins of half a turn.
    assert_allclose(averages["angle"], [math.pi / 2, 3 * math.pi / 2])
    assert_allclose(averages["norm"], [4, 5])
    # Deviations -3, -1, 4: variance 26 / 2, over 3 networks. Then -3, 5, -2: 38 / 2.
    assert_allclose(averages["norm_sem"], [math.sqrt(13 / 3), 0])
    assert_allclose(averages["density"], [0, 3])
    assert_allclose(averages["density_sem"], [0, math.sqrt(19 / 3)])
    assert averages["networks"].tolist() == [3, 3]


def test_one_network_has_no_standard_error():
    averages = average_profiles([{"norm": np.array([1.0, 2.0, 4.0])}])
    assert averages["norm"].tolist() == [1, 2, 4]
    assert averages["norm_sem"].isna().all()
    assert averages["networks"].tolist() == [1, 1, 1]


def test_the_error_of_values_of_0_but_one_is_their_mean():
    averages = average_profiles([{"norm": np.array([value])} for value in (0.0, 0.0, 0.0, 0.0, 7.0)])
    assert averages["norm_sem"].tolist() == pytest.approx(averages["norm"].tolist())


@pytest.mark.parametrize(
    ("profiles", "got"),
    [
        ([], "none"),
        ([{"norm": np.ones(5)}, {"norm": np.ones(4)}], r"\[4\] and \[5\]"),
        ([{"norm": np.ones(5), "density": np.ones(6)}], r"\[5\] and \[6\]"),
        ([{"norm": np.ones((2, 5))}], r"\[2, 5\]"),
    ],
)
def test_other_than_one_number_of_bins_is_refused(profiles, got):
    with pytest.raises(InvalidInputError, match=rf"of one number of bins, \[B\] each; got {got}$"):
        average_profiles(profiles)
