"""Judges a bundle on the hold-out, against baselines, and says whether it may serve."""
