"""Conditional energy models p(y|x) ∝ exp f(x, y): noise, losses, ascent, densities; no images, no boxes."""
