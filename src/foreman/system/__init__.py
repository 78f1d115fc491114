"""The interface to the operating system and its users: log lines, systemd's notifications, the port, the banner."""
