"""Drift of the log, the graph, the bundle and the feature store against what the live bundle was trained on."""
