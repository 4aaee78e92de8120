"""The trained default network and its model card."""

from __future__ import annotations

DEFAULT_WEIGHTS = "ebm18_small"
