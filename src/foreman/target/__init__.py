"""The target: how foreman asks an Ollama server, and what it knows of it.

Begin with ``client.py`` (asking), then ``inventory.py`` (what the target has, and whether it answers).
"""
