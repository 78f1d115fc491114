"""The commands, one module each, and the modules that serve only one or two of them."""
