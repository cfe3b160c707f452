"""Plain tables and arrays in, plain tables and numbers out: what a survey says about sensitivity and generalisation."""

from .correlations import QUANTITIES, gap_correlations, running_tau
from .means import MeanInterval, average_profiles, contrast, dip, mean_interval
from .pairs import FACTORS, Factor, Share, network_pairs, share_larger
from .points import (
    BoundShares,
    approximation,
    bound_shares,
    error_auroc,
    lower_bound,
    mean_square,
    precision_at_errors,
    rank_correlation_of_wrong,
    upper_bound,
)
from .rank_correlation import Correlation, kendall, kendall_contrast
from .seeds import average_over_seeds, cluster_codes, configuration_columns, fitted_networks, measured_networks

__all__ = [
    "FACTORS",
    "QUANTITIES",
    "BoundShares",
    "Correlation",
    "Factor",
    "MeanInterval",
    "Share",
    "approximation",
    "average_over_seeds",
    "average_profiles",
    "bound_shares",
    "cluster_codes",
    "configuration_columns",
    "contrast",
    "dip",
    "error_auroc",
    "fitted_networks",
    "gap_correlations",
    "kendall",
    "kendall_contrast",
    "lower_bound",
    "mean_interval",
    "mean_square",
    "measured_networks",
    "network_pairs",
    "precision_at_errors",
    "rank_correlation_of_wrong",
    "running_tau",
    "share_larger",
    "upper_bound",
]
