"""The trained default network and its model card."""
