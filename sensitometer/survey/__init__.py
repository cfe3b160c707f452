"""Surveys: their specification, their division into stacks, the run, and the state of their folders."""

from .runner import Reporter, run_survey
from .scheduling.plan import Plan, plan
from .spec import Spec, load_spec, preset_names

__all__ = ["Plan", "Reporter", "Spec", "load_spec", "plan", "preset_names", "run_survey"]
