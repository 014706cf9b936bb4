"""User and item features computed point in time, and handed to Feast."""
