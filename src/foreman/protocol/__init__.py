"""What is known of the APIs of Ollama, OpenAI and Anthropic, as pure functions: routes, bodies, framing, usage, model names, headers."""
