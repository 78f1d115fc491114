"""Tell twistd and twist that foreman is there; nothing of foreman is imported before it is chosen."""

from twisted.application.service import ServiceMaker

foreman = ServiceMaker("foreman", "foreman.tap", "Let the callers of an Ollama server take turns.", "foreman")
