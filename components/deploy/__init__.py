"""Deploy: register a proved bundle, let the service take it up, and see that it answers."""
