import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import binomtest

from sensitometer.analysis import FACTORS, network_pairs, share_larger
from sensitometer.analysis.pairs import wilson_interval
from sensitometer.configuration import FIELDS, Configuration
from sensitometer.errors import InvalidInputError

COLUMNS = ["gap", "jacobian_norm"]


def table(networks):
    """A frame of networks, each the values in which it differs from the others."""
    rows = []
    for network in networks:
        measured = {"state": "fitted", "gap": 0.1, "jacobian_norm": 1.0, "transitions": 2.0}
        settings = {name: value for name, value in network.items() if name not in measured}
        configuration = Configuration(**{"dataset": "digits", "width": 16, "depth": 2} | settings)
        rows.append({"id": configuration.id, **configuration.as_dict(), **measured, **network})
        rows[-1] |= {"learning_rate": configuration.learning_rate, "batch_size": configuration.batch_size}
    columns = ["id", *FIELDS, "state", "gap", "jacobian_norm", "transitions"]
    return pd.DataFrame(rows, columns=columns).drop_duplicates("id", ignore_index=True)


networks = st.fixed_dictionaries(
    {
        "width": st.sampled_from([16, 32]),
        "activation": st.sampled_from(["relu", "hardsigmoid", "tanh"]),
        "optimizer": st.sampled_from(["lbfgs", "momentum", "adam"]),
        "learning_rate": st.sampled_from([0.1, 0.2]),
        "labels": st.sampled_from(["true", "random"]),
        "augmentation": st.sampled_from(["none", "shift-flip", "shift-flip-rotate"]),
        "seed": st.integers(1, 2),
        "steps": st.just(5000),
        "state": st.sampled_from(["fitted", "fitted", "unfitted", "diverged"]),
        "gap": st.sampled_from([0.1, 0.2, 0.3]),
        "jacobian_norm": st.sampled_from([1.0, 2.0, math.nan, math.inf]),
    }
)


def slow_pairs(frame, factor):
    """The twin: every network with every other."""
    apart = [factor]
    if factor == "optimizer":
        apart += ["learning_rate", "batch_size", "steps"]
    for a, b in itertools.product(frame.to_dict("records"), repeat=2):
        alike = all(a[name] == b[name] or (pd.isna(a[name]) and pd.isna(b[name])) for name in FIELDS if name not in apart)
        kept = factor == "augmentation" or a["state"] == b["state"] == "fitted"
        measured = all(math.isfinite(one[name]) for one in (a, b) for name in COLUMNS)
        if alike and kept and measured and a[factor] == FACTORS[factor].worse and b[factor] in FACTORS[factor].better:
            yield a, b


@settings(max_examples=50, deadline=None)
@given(st.lists(networks, min_size=20, max_size=80), st.sampled_from(list(FACTORS)))
def test_the_pairs_are_those_of_a_double_loop(rows, factor):
    frame = table(rows)
    pairs = network_pairs(frame, factor, COLUMNS)
    expected = list(slow_pairs(frame, factor))
    assert len(pairs) == len(expected)
    for pair, (a, b) in zip(pairs.to_dict("records"), expected, strict=True):
        assert (pair["worse"], pair["better"]) == (a[factor], b[factor])
        assert factor not in pair
        for name in set(FIELDS) - {factor}:
            assert pair[name] == b[name] or (pd.isna(pair[name]) and pd.isna(b[name]))
        for name in COLUMNS:
            assert (pair[f"{name}_worse"], pair[f"{name}_better"]) == (a[name], b[name])
    # Pairs of one configuration are those whose worse networks differ in the seed alone.
    apart = [tuple(str(a[name]) for name in FIELDS if name != "seed") for a, _ in expected]
    for (i, one), (j, other) in itertools.combinations(enumerate(apart), 2):
        assert (one == other) == (pairs["configuration"][i] == pairs["configuration"][j])


def test_an_lbfgs_network_makes_a_pair_with_each_momentum_network_alike_in_the_rest():
    frame = table(
        [
            {"optimizer": "lbfgs", "steps": 5000, "gap": 0.5},
            {"optimizer": "momentum", "steps": 5000, "learning_rate": 0.1, "batch_size": 128, "gap": 0.1},
            {"optimizer": "momentum", "steps": 5000, "learning_rate": 0.1, "batch_size": 512, "gap": 0.2},
            {"optimizer": "momentum", "steps": 5000, "learning_rate": 0.2, "batch_size": 128, "gap": 0.3},
            {"optimizer": "momentum", "steps": 5000, "seed": 2},
            {"optimizer": "adam", "steps": 5000},
        ]
    )
    pairs = network_pairs(frame, "optimizer", ["gap"])
    assert pairs["gap_worse"].tolist() == [0.5, 0.5, 0.5]
    assert pairs["gap_better"].tolist() == [0.1, 0.2, 0.3]
    assert pairs[["learning_rate", "batch_size"]].to_numpy().tolist() == [[0.1, 128], [0.1, 512], [0.2, 128]]
    assert pairs["steps"].tolist() == [5000] * 3
    assert pairs["configuration"].nunique() == 1


def test_two_lbfgs_networks_have_no_settings_that_could_differ():
    frame = table([{"optimizer": "lbfgs", "labels": labels} for labels in ("true", "random")])
    pairs = network_pairs(frame, "labels", ["gap"])
    assert len(pairs) == 1
    assert pairs[["learning_rate", "batch_size"]].isna().all(axis=None)


def test_networks_that_are_not_fitted_make_pairs_of_augmentation_alone():
    networks = [{"augmentation": "none"}, {"augmentation": "shift-flip", "state": "unfitted"}, {"labels": "random"}]
    frame = table(networks)
    assert len(network_pairs(frame, "augmentation", COLUMNS)) == 1
    assert len(network_pairs(frame, "labels", COLUMNS)) == 1
    frame["state"] = "unfitted"
    assert len(network_pairs(frame, "augmentation", COLUMNS)) == 1
    assert network_pairs(frame, "labels", COLUMNS).empty


@pytest.mark.parametrize("factor", FACTORS)
def test_no_networks_make_no_pairs(factor):
    pairs = network_pairs(table([]), factor, COLUMNS)
    assert pairs.empty
    assert {"worse", "better", "gap_worse", "jacobian_norm_better", "configuration"} < set(pairs)


def test_300_000_networks_are_paired():
    """A double loop over them would take days."""
    one = table([{}])
    frame = one.loc[one.index.repeat(300_000)].reset_index(drop=True)
    frame = frame.assign(labels=np.where(frame.index % 2, "true", "random"), width=frame.index // 2 + 1)
    assert len(network_pairs(frame, "labels", COLUMNS)) == 150_000


def pairs_of(worse, better, configurations):
    return pd.DataFrame({"gap_worse": worse, "gap_better": better, "configuration": configurations})


def test_a_share_by_hand():
    found = share_larger(pairs_of([0.3, 0.3, 0.3, 0.3], [0.1, 0.2, 0.3, 0.4], [0, 1, 2, 3]), "gap")
    assert found.share == (2 + 0.5) / 4
    assert (found.pairs, found.configurations) == (4, 4)
    assert (found.low, found.high) == wilson_interval(2.5 / 4, 4)


def test_pairs_that_say_the_same_are_worth_one():
    apart = share_larger(pairs_of([1, 1, 0, 1], [0, 0, 1, 0], [0, 1, 2, 3]), "gap")
    together = share_larger(pairs_of([1, 1, 0, 1] * 8, [0, 0, 1, 0] * 8, [0, 1, 2, 3] * 8), "gap")
    assert together == apart._replace(pairs=32)
    # One configuration of six pairs and two of one: 8^2 / (36 + 1 + 1).
    uneven = share_larger(pairs_of([1] * 8, [0] * 8, [0] * 6 + [1, 2]), "gap")
    assert (uneven.low, uneven.high) == wilson_interval(1.0, 64 / 38)


def test_the_interval_of_shares_whose_seeds_agree_holds_what_it_says():
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        sizes = generator.integers(1, 9, size=60)
        configurations = np.repeat(np.arange(60), sizes)
        worse = np.repeat(generator.uniform(size=60) < 0.8, sizes).astype(float)
        found = share_larger(pairs_of(worse, 0.5, configurations), "gap")
        held += found.low <= 0.8 <= found.high
    # 95% of 400 and 3 standard deviations.
    assert 380 - 14 <= held <= 380 + 14


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (77, 1000), (999, 1000)])
def test_the_interval_is_wilsons(successes, n):
    expected = binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert_allclose(wilson_interval(successes / n, n), expected, rtol=1e-12, atol=1e-15)


def test_an_unknown_factor_is_refused():
    with pytest.raises(InvalidInputError, match="factor must be one of labels, augmentation, activation, optimizer; got 'width'"):
        network_pairs(table([]), "width", COLUMNS)


@pytest.mark.parametrize("column", ["jacobian_norm", "optimizer", "state"])
def test_a_frame_without_a_column_is_refused(column):
    with pytest.raises(InvalidInputError, match=f"the frame must have the column {column}; it has id, "):
        network_pairs(table([{}]).drop(columns=column), "optimizer", COLUMNS)
