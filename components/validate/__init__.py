"""`events` becomes `clean`: Great Expectations judges each day and the catalogue; bad rows go to quarantine."""
