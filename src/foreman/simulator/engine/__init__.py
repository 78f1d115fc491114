"""The models of the simulator: which are installed and loaded, the text that they generate, and the faults."""
