"""Readers of benchmark sequences."""
