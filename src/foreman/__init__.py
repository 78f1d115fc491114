"""foreman stands in front of one Ollama server and lets its callers take turns.

Begin reading at ``tap.py`` (how it is started), then ``service.py`` (what runs), then ``web/api.py`` (every URL) and
``inference.py`` (one chat, from arrival to last line).
"""
