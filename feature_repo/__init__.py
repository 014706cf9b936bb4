"""The feature store: what is registered in Feast, how it is filled, and `online.py`, the one reader for serving."""
