"""What the project claims, measured. Each benchmark prints a table and writes JSON under benchmarks/results/."""

from components.core.libraries import prepare_libraries

# Before any module here imports torch: OpenMP reads how its threads wait when it is loaded.
prepare_libraries()
