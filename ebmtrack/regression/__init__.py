"""Regression of numbers from images with energies: image -> R^D, with an interval for each answer (Papers I and IV)."""
