"""Plain tables in, plain tables out: what a survey's frame says about sensitivity and generalisation."""

from .correlations import QUANTITIES, gap_correlations, running_tau
from .pairs import FACTORS, Factor, Share, network_pairs, share_larger
from .rank_correlation import Correlation, kendall, kendall_contrast
from .seeds import average_over_seeds, cluster_codes, configuration_columns, fitted_networks, measured_networks

__all__ = [
    "FACTORS",
    "QUANTITIES",
    "Correlation",
    "Factor",
    "Share",
    "average_over_seeds",
    "cluster_codes",
    "configuration_columns",
    "fitted_networks",
    "gap_correlations",
    "kendall",
    "kendall_contrast",
    "measured_networks",
    "network_pairs",
    "running_tau",
    "share_larger",
]
