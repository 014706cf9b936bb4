"""The pipeline's rooms, one folder a step; see docs/architecture.md for the order of the flow."""
