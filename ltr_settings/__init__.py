"""One file per training run: run(settings), readable from top to bottom."""
