"""Exact linear regions: where the pieces of a piecewise-linear model change, along paths and on slices."""
