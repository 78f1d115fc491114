"""What the commands share at the terminal: options, input, tables, words and exit statuses."""
