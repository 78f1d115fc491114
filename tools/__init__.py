"""Commands for whoever changes foreman; nothing that is installed."""
