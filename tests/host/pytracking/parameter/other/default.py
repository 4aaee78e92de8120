"""Miniature: parameters of the tracker that stands still."""

from pytracking.utils.params import TrackerParams


def parameters():
    return TrackerParams()
