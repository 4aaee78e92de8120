"""Objective, loop and run of a training."""
