"""Training: windows in time, the loop, the weights of the score's terms, tracking."""
