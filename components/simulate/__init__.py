"""A world with a key: a shop's catalogue, its people and their log, made under a seed, and a note of what was planted.

`simulate(WorldSettings(...), folder)` of components.simulate.writer writes the data contract's files a day at a time.
"""
