"""The routes of the simulated Ollama."""
