"""Correlations with the generalization gap: Kendall's tau of the gap against each measure (paper, 4.3 and Figures 1 and 5)."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from .rank_correlation import kendall, kendall_tau
from .seeds import cluster_codes, fitted_networks

# The paper's measure; the variant that it found less predictive; the one that does not order networks of different size (4.3);
# and the two that its Figure 1 finds to say little.
QUANTITIES = ("jacobian_norm", "logit_jacobian_norm", "transitions", "weights", "train_loss")


def gap_correlations(frame: pd.DataFrame, *, labels: str | None = None) -> pd.DataFrame:
    """
    Return how the generalization gap of the fitted networks goes with each quantity, one row each.

    Parameters
    ----------
    frame
        One row a network, as `store.frame()` gives it.
    labels
        `true` or `random`: only networks trained on these; None: both.

    Returns
    -------
    DataFrame
        `quantity` (the column: Jacobian norm, logit Jacobian norm, transitions, number of weights, train loss), `tau`,
        `low`, `high` (95%, configurations resampled: see `kendall`), `networks`, `configurations`. A quantity that no fitted
        network has is nan with 0 networks.

    Raises
    ------
    InvalidInputError
        The frame lacks a column, or `labels` is neither.
    """
    rows = []
    for quantity in QUANTITIES:
        networks = fitted_networks(frame, ("gap", quantity), labels=labels)
        rows.append({"quantity": quantity} | correlation_row(networks, quantity))
    return pd.DataFrame(rows)


def correlation_row(networks: pd.DataFrame, quantity: str) -> dict[str, float]:
    """Return `tau`, `low`, `high`, `networks`, `configurations` of the gap against one finite quantity of `networks`."""
    # The gap goes second: it has few different values, and the time of kendall() is in those of its second argument.
    found = kendall(networks[quantity].to_numpy(), networks["gap"].to_numpy(), cluster_codes(networks))
    return {
        "tau": found.tau,
        "low": found.low,
        "high": found.high,
        "networks": found.networks,
        "configurations": found.clusters,
    }


def running_tau(gaps: Iterable[float], norms: Iterable[float]) -> float:
    """
    Return Kendall's tau-b of the networks so far, for a live display: no interval, a few milliseconds for thousands.

    Networks with a value that is not finite are left out; nan while tau is undefined (see `Correlation`).
    """
    pairs = [(gap, norm) for gap, norm in zip(gaps, norms, strict=True) if math.isfinite(gap) and math.isfinite(norm)]
    return kendall_tau(*np.array(pairs, dtype=np.float64).reshape(-1, 2).T)
