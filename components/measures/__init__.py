"""Ranking metrics, intervals, slices and baselines: used by evaluation, monitoring and benchmarks. No I/O."""
