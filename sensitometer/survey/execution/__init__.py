"""Execution: where stacks are trained, on this machine or on a Ray cluster, behind one contract."""
