"""Scheduling: which networks are trained together, on what, and what a survey takes. Imports no torch."""
