"""foreman's HTTP side: what clients see.

Begin with ``api.py`` (every URL); ``connection.py`` is what happens before that, from the head of a request alone.
"""
