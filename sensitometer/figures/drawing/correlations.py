"""How a correlation and its interval are written above a panel."""

import math


def tau_words(tau: float, low: float, high: float, count: int) -> str:
    """Return Kendall's tau with its interval and the number of points, as in `τ = 0.62 (0.51 to 0.71), n = 120`."""
    if math.isnan(tau):
        return f"τ undefined, n = {count}"
    middle, *ends = (f"{value:z.2f}".replace("-", "−") for value in (tau, low, high))
    interval = "no interval" if math.isnan(low) else " to ".join(ends)
    return f"τ = {middle} ({interval}), n = {count}"
