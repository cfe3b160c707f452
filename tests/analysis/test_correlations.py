import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau

from sensitometer.analysis import QUANTITIES, gap_correlations, kendall, running_tau
from sensitometer.errors import InvalidInputError


@pytest.fixture
def frame():
    generator = np.random.default_rng(0)
    norm = np.repeat(generator.normal(size=20), 3) + 0.1 * generator.normal(size=60)
    return pd.DataFrame(
        {
            "width": np.repeat(np.arange(20), 3),
            "seed": np.tile([1, 2, 3], 20),
            "labels": np.where(np.arange(60) < 30, "true", "random"),
            "state": np.where(np.arange(60) % 10 == 9, "unfitted", "fitted"),
            "gap": norm + 0.5 * generator.normal(size=60),
            "jacobian_norm": np.exp(norm),
            "logit_jacobian_norm": None,
            "transitions": generator.normal(size=60),
            "weights": np.repeat(np.arange(20), 3) ** 2,
            "train_loss": np.where(np.arange(60) % 2, 0.0, 1e-200),
        }
    )


def test_one_row_a_quantity(frame):
    table = gap_correlations(frame)
    assert list(table) == ["quantity", "tau", "low", "high", "networks", "configurations"]
    assert table["quantity"].tolist() == list(QUANTITIES)
    assert table["networks"].tolist() == [54, 0, 54, 54, 54]
    assert table["configurations"].tolist() == [20, 0, 20, 20, 20]


@pytest.mark.parametrize("labels", [None, "true"])
def test_tau_and_interval_are_those_of_the_fitted_networks(frame, labels):
    table = gap_correlations(frame, labels=labels).set_index("quantity")
    chosen = frame[(frame["state"] == "fitted") & ((frame["labels"] == labels) | (labels is None))]
    for quantity in ("jacobian_norm", "transitions", "weights", "train_loss"):
        row = table.loc[quantity]
        assert row["tau"] == pytest.approx(kendalltau(chosen["gap"], chosen[quantity]).statistic)
        found = kendall(chosen[quantity], chosen["gap"], chosen["width"])
        assert (row["low"], row["high"], row["networks"]) == (found.low, found.high, len(chosen))


def test_a_quantity_never_measured_is_nan(frame):
    row = gap_correlations(frame).set_index("quantity").loc["logit_jacobian_norm"]
    assert row[["tau", "low", "high"]].isna().all()


def test_no_networks_yet(frame):
    table = gap_correlations(frame.iloc[:0])
    assert table["networks"].tolist() == [0, 0, 0, 0, 0]
    assert table["tau"].isna().all()


def test_unknown_labels_are_refused(frame):
    with pytest.raises(InvalidInputError, match="labels must be one of"):
        gap_correlations(frame, labels="all")


def test_running_tau_leaves_out_what_is_not_finite():
    gaps, norms = [0.1, 0.2, math.nan, 0.4, 0.3], [1.0, 2.0, 3.0, math.inf, 1.5]
    assert running_tau(gaps, norms) == pytest.approx(kendalltau([0.1, 0.2, 0.3], [1.0, 2.0, 1.5]).statistic)


@pytest.mark.parametrize(("gaps", "norms"), [([], []), ([0.1], [1.0]), ([0.1, 0.1], [1.0, 2.0]), ([math.nan], [1.0])])
def test_running_tau_is_nan_while_undefined(gaps, norms):
    assert math.isnan(running_tau(gaps, norms))
