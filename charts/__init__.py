"""The Helm chart, and what keeps it in step with the code. `basketweave` beside this file is the chart itself."""
