"""What every step shares: settings, artifacts, contracts, time, errors. Imports nothing from the other rooms."""
