"""The recommender: item graph encoder, user vector, linear filter, and the score they add up to. Pure torch.

Tensor shapes are written as suffixes: B users, I items, N history entries of all users, D vector width, A attributes,
V values of an attribute, F user statistics, E edges.
"""
