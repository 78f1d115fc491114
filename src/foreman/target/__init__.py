"""The target: the HTTP client of one Ollama server, its models, and whether it answers.

Begin with ``client.py`` (requests), then ``inventory.py`` (models, and whether the target answers).
"""
