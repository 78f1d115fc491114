"""foreman's HTTP side: what clients see.

Begin with ``api/routes.py`` (the routes); ``server/`` is what happens before that, from the head of a request alone.
"""
