"""Correlations with the generalization gap: Kendall's tau of the gap against each measure (paper, 4.3 and Figures 1 and 5)."""

import math
from collections.abc import Iterable

import numpy as np
import pandas as pd

from .rank_correlation import Correlation, kendall, kendall_tau
from .seeds import cluster_codes, fitted_networks

# The paper's measure; the variant that it found less predictive; the one that does not order networks of different size (4.3);
# and the two that its Figure 1 finds to say little.
QUANTITIES = ("jacobian_norm", "logit_jacobian_norm", "transitions", "weights", "train_loss")


def gap_correlations(frame: pd.DataFrame, *, labels: str | None = None) -> pd.DataFrame:
    """
    Return how the generalization gap of the fitted networks goes with each quantity, one row per quantity.

    Parameters
    ----------
    frame
        One row per network, as `store.frame()` gives it.
    labels
        `true` or `random`: only networks trained on these; None: both.

    Returns
    -------
    DataFrame
        `quantity` (the column: Jacobian norm, logit Jacobian norm, transitions, number of weights, train loss), and the fields
        of `Correlation`. A quantity that no fitted network has is nan with 0 networks.

    Raises
    ------
    InvalidInputError
        The frame lacks a column, or `labels` is neither.
    """
    networks = {quantity: fitted_networks(frame, ("gap", quantity), labels=labels) for quantity in QUANTITIES}
    return pd.DataFrame([{"quantity": name, **gap_correlation(group, name)._asdict()} for name, group in networks.items()])


def gap_correlation(networks: pd.DataFrame, quantity: str) -> Correlation:
    """Return Kendall's tau of the gap against one finite quantity of `networks`; configurations are resampled."""
    return kendall(networks[quantity], networks["gap"], cluster_codes(networks))


def running_tau(gaps: Iterable[float], norms: Iterable[float]) -> float:
    """
    Return Kendall's tau-b of the networks so far, for a live display: no interval, a few milliseconds for thousands.

    Networks with a value that is not finite are left out; nan while tau is undefined (see `Correlation`).
    """
    pairs = [(gap, norm) for gap, norm in zip(gaps, norms, strict=True) if math.isfinite(gap) and math.isfinite(norm)]
    return kendall_tau(*np.array(pairs, dtype=np.float64).reshape(-1, 2).T)
