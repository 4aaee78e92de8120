"""Miniature: the paths of this checkout."""

import importlib


def env_settings():
    return importlib.import_module("pytracking.evaluation.local").local_env_settings()
