"""One file per training run: its settings and its plan, readable from top to bottom."""
