"""Plain tables in, plain tables out: what a survey's frame says about sensitivity and generalisation."""

from .correlations import QUANTITIES, gap_correlations, running_tau
from .rank_correlation import Correlation, kendall
from .seeds import average_over_seeds, cluster_codes, configuration_columns, fitted_networks

__all__ = [
    "QUANTITIES",
    "Correlation",
    "average_over_seeds",
    "cluster_codes",
    "configuration_columns",
    "fitted_networks",
    "gap_correlations",
    "kendall",
    "running_tau",
]
