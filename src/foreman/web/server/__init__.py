"""The HTTP server: connections, admission, bodies, responses."""
