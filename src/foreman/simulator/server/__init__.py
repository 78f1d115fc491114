"""The HTTP server of the simulator, which writes as Go's does."""
