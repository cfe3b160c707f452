"""The parts that figures share: interface, style, scales of axes, and the panels of gaps and of single points."""
