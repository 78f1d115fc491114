"""The ``foreman`` command: starts the daemon, and sends requests to a running one over HTTP. Begin with ``main.py``."""
