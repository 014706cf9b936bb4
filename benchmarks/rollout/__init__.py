"""Rollouts on the simulator: a sound model is promoted, a bad one rejected, one that only clicks reveal rolled back."""
