"""Thin adapters to other toolkits; the only files that import those."""
