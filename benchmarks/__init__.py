"""What the project claims, measured. Each benchmark prints a table and writes JSON under benchmarks/results/."""
