"""Jobs as values: their states, artifacts and claims, what is asked of the store about them, and the retry policy."""
