"""The HTTP server of the simulator, which imitates that of Go."""
