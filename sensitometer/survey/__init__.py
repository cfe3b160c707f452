"""Surveys: what to train, in which stacks, where, and what became of it."""

from .plan import Plan, plan
from .runner import Reporter, run_survey
from .spec import Spec, load_spec, preset_names

__all__ = ["Plan", "Reporter", "Spec", "load_spec", "plan", "preset_names", "run_survey"]
