"""Conditional energy models p(y|x) ∝ exp f(x, y): noise, losses, ascent and densities; knows nothing of images or boxes."""
