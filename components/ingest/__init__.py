"""The log becomes the `events` artifact: day partitions in the contract, the catalogue, and what could not be cast."""
