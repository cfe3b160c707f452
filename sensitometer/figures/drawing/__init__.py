"""The parts that figures share: interface, both styles, scales of axes, and the panels of gaps and of single points."""
