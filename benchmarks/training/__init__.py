"""What training, propagation and evaluation cost, beside what peers cost on the same machine in the same run."""
