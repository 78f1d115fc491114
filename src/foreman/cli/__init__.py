"""The ``foreman`` command: starts the daemon, and asks a running one over HTTP. Begin with ``main.py``."""
