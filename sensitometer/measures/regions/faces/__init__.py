"""Convex polygons that are cut along straight lines: what slices are made of."""
