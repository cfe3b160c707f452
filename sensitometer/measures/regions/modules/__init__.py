"""A module as a graph of piecewise-linear operations, read by `torch.export`."""
