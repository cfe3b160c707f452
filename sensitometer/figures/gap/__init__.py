"""Figures with the generalization gap on the vertical axis: one file each, and the panels that they share."""
