"""foreman stands in front of one Ollama server and lets its callers take turns.

Begin reading at ``tap.py`` (how it is started), then ``service.py`` (what runs), then ``web/api.py`` (every URL) and
``inference.py`` (one chat, from arrival to last line).
"""

#: The name under which it is installed. On PyPI ``foreman`` is somebody else's.
DISTRIBUTION = "ollama-foreman"
