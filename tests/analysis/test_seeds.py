import math

import numpy as np
import pandas as pd
import pytest

from sensitometer.analysis import average_over_seeds, cluster_codes, configuration_columns, fitted_networks
from sensitometer.errors import InvalidInputError


@pytest.fixture
def frame():
    return pd.DataFrame(
        {
            "id": list("abcdef"),
            "seed": [1, 2, 3, 1, 2, 1],
            "width": [8, 8, 8, 16, 16, 16],
            # A setting that does not apply to the optimizer.
            "learning_rate": [0.1, 0.1, 0.1, math.nan, math.nan, 0.1],
            "labels": ["true", "true", "true", "random", "random", "true"],
            "state": ["fitted", "fitted", "fitted", "fitted", "unfitted", "fitted"],
            "gap": [0.1, 0.2, 0.6, 0.9, 0.1, 0.3],
            "jacobian_norm": [1.0, 2.0, math.nan, 5.0, 1.0, math.inf],
            "transitions": [None] * 6,
            "logit_jacobian_norm": pd.array([None] * 6, dtype="Float64"),
        }
    )


def test_a_configuration_is_all_but_the_seed(frame):
    assert configuration_columns(frame) == ["width", "learning_rate", "labels"]


def test_seeds_share_a_cluster_and_null_equals_null(frame):
    assert cluster_codes(frame).tolist() == [0, 0, 0, 1, 1, 2]


def test_mean_and_standard_error_by_hand(frame):
    averages = average_over_seeds(frame, ["gap"])
    assert list(averages) == ["width", "learning_rate", "labels", "gap", "gap_sem", "seeds"]
    assert averages["seeds"].tolist() == [3, 2, 1]
    assert averages["gap"].tolist() == pytest.approx([0.3, 0.5, 0.3])
    # Deviations -0.2, -0.1, 0.3: variance 0.14 / 2, over 3 seeds. Then ±0.4: variance 0.32, over 2 seeds.
    expected = [math.sqrt(0.07 / 3), math.sqrt(0.32 / 2), math.nan]
    assert averages["gap_sem"].tolist() == pytest.approx(expected, nan_ok=True)


def test_several_columns_keep_their_order(frame):
    averages = average_over_seeds(fitted_networks(frame, ["jacobian_norm", "gap"]), ["jacobian_norm", "gap"])
    assert list(averages)[3:] == ["jacobian_norm", "jacobian_norm_sem", "gap", "gap_sem", "seeds"]


def test_the_fitted_seeds_of_a_configuration_count(frame):
    averages = average_over_seeds(fitted_networks(frame, ["gap"]), ["gap"])
    assert averages["seeds"].tolist() == [3, 1, 1]
    assert averages["gap"].tolist() == pytest.approx([0.3, 0.9, 0.3])


def test_no_networks_no_configurations(frame):
    averages = average_over_seeds(frame.iloc[:0], ["gap"])
    assert list(averages) == ["width", "learning_rate", "labels", "gap", "gap_sem", "seeds"]
    assert averages.empty


def test_fitted_networks_have_finite_values(frame):
    assert fitted_networks(frame, ["gap"])["id"].tolist() == ["a", "b", "c", "d", "f"]
    assert fitted_networks(frame, ["gap", "jacobian_norm"])["id"].tolist() == ["a", "b", "d"]
    assert fitted_networks(frame, ["gap"], labels="random")["id"].tolist() == ["d"]


@pytest.mark.parametrize("column", ["transitions", "logit_jacobian_norm"])
def test_a_column_never_measured_has_no_networks(frame, column):
    found = fitted_networks(frame, ["gap", column])
    assert found.empty
    assert found[column].dtype == np.float64


def test_an_empty_frame_has_no_networks(frame):
    assert fitted_networks(frame.iloc[:0], ["gap"]).empty


def test_unknown_labels_are_refused(frame):
    with pytest.raises(InvalidInputError, match=r"labels must be one of true, random, or None for both; got 'false'"):
        fitted_networks(frame, ["gap"], labels="false")


def test_a_frame_without_the_column_is_refused(frame):
    with pytest.raises(InvalidInputError, match="must have the column test_loss"):
        fitted_networks(frame, ["gap", "test_loss"])
