"""What must hold of the charts, as functions: `python -m charts.check` runs them all, the tests call the same."""
