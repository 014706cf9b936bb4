"""Does the gate let equals pass, and catch what is planted? Run by `python -m benchmarks.gates`."""
