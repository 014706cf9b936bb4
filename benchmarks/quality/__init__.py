"""How good the recommender is, on published splits and in rolling months."""
