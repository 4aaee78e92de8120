"""Training sources: each lists targets, their frames and boxes."""
