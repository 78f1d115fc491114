"""Jobs as values: their states, artifacts and claims, parameters and results of the store's operations, and the retry policy."""
