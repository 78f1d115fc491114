"""foreman: a daemon in front of one Ollama server, where chats take turns.

Begin with ``tap.py`` (the start), then ``service.py`` (what the daemon is built of), ``web/api/routes.py`` (the routes to
the target) and ``proxy/inference.py`` (one request, from its place in the queue to the last line of its answer).
"""

#: The name of the distribution. On PyPI ``foreman`` is another project.
DISTRIBUTION = "ollama-foreman"
