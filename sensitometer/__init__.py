"""Sensitometer measures how sensitive trained networks are to their inputs, and what that says about generalisation."""
