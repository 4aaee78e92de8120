"""Sequences on disk -> results -> curves -> plots and report."""
