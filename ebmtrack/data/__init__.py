"""From image files to crops and training batches."""
