"""The models of the simulator: which are installed and loaded, and what they say."""
