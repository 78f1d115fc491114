"""The HTTP client with which the commands talk to a running foreman."""
