"""Magnitudes: what catalogues say of a filter, zero points of frames, and frames tied to each other."""
