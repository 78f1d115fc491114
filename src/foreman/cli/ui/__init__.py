"""The terminal side of the commands: options, help, tables, messages and exit statuses."""
