"""What an answer of the service costs: see __main__.py."""
