"""What foreman shares with the system it runs on: log lines, systemd's notifications, the listening port, the banner."""
