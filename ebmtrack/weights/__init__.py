"""The networks that ship, their model cards, and what is taken if no network or set-up is named."""

from __future__ import annotations

DEFAULT_WEIGHTS = "ebm18_small"
DEFAULT_SET_UP = "dimp18_nce_plus"  # in tracker_params
